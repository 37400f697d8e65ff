"""Which engine runs a model, and how many rows at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.batch_rows import batch_rows, expected_tokens, host_memory, token_bytes
from hpcjobs.engines.pick import EngineSpec, best_engine, make_engine
from hpcjobs.errors import UsageError
from hpcjobs.requests import Request
from tests.engines.test_generate import MIXED, Failing, by_index, engine_of, said

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model

SMALL: dict[str, Any] = {
    "vocab_size": 103, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 256, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
}  # fmt: skip
GPT: dict[str, Any] = {
    "vocab_size": 103, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "bos_token_id": 2,
    "eos_token_id": 3, "pad_token_id": 0,
}  # fmt: skip
KINDS: dict[str, tuple[dict[str, Any], str]] = {  # config class: its values, the engine that 'auto' is on CPU
    "Llama": (SMALL, "LoopEngine"),
    "Qwen2": (SMALL, "LoopEngine"),
    "Qwen3": (SMALL | {"head_dim": 8}, "LoopEngine"),
    "Olmo2": (SMALL, "LoopEngine"),
    "GPTNeoX": (SMALL, "LoopEngine"),
    "Mixtral": (SMALL | {"num_local_experts": 4, "sliding_window": None}, "LoopEngine"),
    "GPT2": (GPT, "LoopEngine"),
    "Mistral": (SMALL | {"sliding_window": 8}, "GenerateEngine"),
    "Gemma2": (SMALL | {"head_dim": 8, "sliding_window": 8}, "GenerateEngine"),
    "Mamba": ({"vocab_size": 103, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}, "GenerateEngine"),
}


def _random_model(kind: str, values: dict[str, Any]) -> Any:
    import transformers

    torch.manual_seed(7)
    config = getattr(transformers, f"{kind}Config")(**values)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)  # so that no two logits are near each other
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 3, 0
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_auto_says_what_generate_says_for_any_kind_of_model(tiny: Any, kind: str) -> None:
    values, engine_name = KINDS[kind]
    model = _random_model(kind, values)
    engine = make_engine(model, tiny[1], GenerationConfig(max_new_tokens=12), EngineSpec(batch_size=4))
    assert type(engine).__name__ == engine_name
    requests = [Request(index=n, id=str(n), prompt=chat) for n, chat in enumerate(MIXED[:9])]
    expected = by_index(engine_of("generate", (model, tiny[1]), 1, max_new_tokens=12), requests)
    assert [said(completion) for completion in by_index(engine, requests)] == [said(each) for each in expected]
    assert len({each.text for each in expected}) > 4


def test_an_encoder_decoder_has_no_plain_cache() -> None:
    import transformers

    from hpcjobs.engines.support import has_plain_cache, runs_continuous

    config = transformers.T5Config(vocab_size=103, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    assert not has_plain_cache(model)
    assert not runs_continuous(model)


def test_a_model_whose_attention_is_its_own_is_not_packed(tiny: Any) -> None:
    """It says that it can be packed, and comes to other logits."""
    from hpcjobs.engines.support import has_plain_cache, runs_packed

    model = _random_model("Llama", SMALL)
    forward = model.model.layers[0].self_attn.forward
    model.model.layers[0].self_attn.forward = lambda hidden_states, **how: forward(
        hidden_states.flip(1) if hidden_states.shape[1] > 1 else hidden_states, **how
    )
    assert has_plain_cache(model)
    assert not runs_packed(model)


def test_an_engine_that_cannot_run_the_model_is_refused(tiny: Any) -> None:
    with pytest.raises(UsageError, match=r"'loop' cannot run Mistral.*'auto' or 'generate'"):
        make_engine(_random_model(*_kind("Mistral")), tiny[1], GenerationConfig(), EngineSpec(engine="loop"))
    with pytest.raises(UsageError, match="'transformers' cannot run Mamba"):
        make_engine(_random_model(*_kind("Mamba")), tiny[1], GenerationConfig(), EngineSpec(engine="transformers"))


def _kind(name: str) -> tuple[str, dict[str, Any]]:
    return name, KINDS[name][0]


class _OnGpu(Failing):
    """The tiny model, as if it stood on a GPU."""

    device = SimpleNamespace(type="cuda")


def test_auto_is_continuous_batching_on_gpus_but_not_where_results_must_not_depend_on_time(tiny: Any) -> None:
    model, hot = _OnGpu(tiny[0], lambda ids: None), GenerationConfig(temperature=1.0)
    assert best_engine(model, GenerationConfig(), EngineSpec()) == "transformers"
    assert best_engine(model, GenerationConfig(), EngineSpec(deterministic=True)) == "loop"
    assert best_engine(model, hot, EngineSpec()) == "loop"
    assert best_engine(tiny[0], GenerationConfig(), EngineSpec()) == "loop"


def test_engines_by_name_and_batch_size(tiny: Any) -> None:
    model, tokenizer = tiny
    for name, kind in (("generate", "GenerateEngine"), ("loop", "LoopEngine"), ("transformers", "ContinuousEngine")):
        engine = make_engine(model, tokenizer, GenerationConfig(), EngineSpec(engine=name, batch_size=5))
        assert (type(engine).__name__, engine.batch_size) == (kind, 5)
    assert make_engine(model, tokenizer, GenerationConfig(), EngineSpec()).batch_size == 64
    assert make_engine(model, tokenizer, GenerationConfig(), EngineSpec(engine="generate")).batch_size == 16
    assert make_engine(model, tokenizer, GenerationConfig(), EngineSpec(deterministic=True)).batch_size == 16


def test_bytes_of_a_token_and_rows_by_them(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcjobs.engines import batch_rows as memory

    assert token_bytes(tiny[0]) == 2 * 4 * 4 * 32 * 4  # keys and values, layers, heads, head size, float32
    assert token_bytes(_random_model("Llama", SMALL)) == 2 * 2 * 2 * 8 * 4
    row = token_bytes(tiny[0]) * expected_tokens(32, 256)
    monkeypatch.setattr(memory, "host_memory", lambda: 40 * row)
    assert batch_rows(tiny[0], 32, 256) == 20
    assert batch_rows(tiny[0], 32, 256, local_ranks=4) == 5
    assert batch_rows(tiny[0], 32, 1 << 20) < 10
    monkeypatch.setattr(memory, "host_memory", lambda: 0)
    assert batch_rows(tiny[0], 32, 256) == 1


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       8000 kB\nMemAvailable:    4000 kB\n"}


def test_memory_without_a_cgroup_is_what_the_host_has(tmp_path: Path) -> None:
    assert host_memory(_write(tmp_path, MEMINFO)) == 4000 * 1024


def test_memory_in_a_cgroup_is_what_the_tightest_of_its_parents_leaves(tmp_path: Path) -> None:
    job = "sys/fs/cgroup/system.slice/job_7"
    files = {
        "proc/self/cgroup": "0::/system.slice/job_7/step_0\n",
        f"{job}/step_0/memory.max": "max\n", f"{job}/step_0/memory.current": "100\n",
        f"{job}/memory.max": "2000000\n", f"{job}/memory.current": "1500000\n",
        f"{job}/memory.stat": "anon 900000\ninactive_file 250000\n",
    }  # fmt: skip
    assert host_memory(_write(tmp_path, MEMINFO | files)) == 750_000


def test_memory_in_a_cgroup_of_version_1(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/slurm/job_7"
    files = {
        "proc/self/cgroup": "5:cpuset:/slurm/job_7\n4:memory:/slurm/job_7\n",
        f"{folder}/memory.limit_in_bytes": "1000000\n", f"{folder}/memory.usage_in_bytes": "400000\n",
        f"{folder}/memory.stat": "total_inactive_file 100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "5000000\n",
    }  # fmt: skip
    assert host_memory(_write(tmp_path, MEMINFO | files)) == 700_000


def test_memory_of_this_machine() -> None:
    assert 1 << 20 < host_memory() < 1 << 50
