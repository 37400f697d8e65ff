"""Every key of transformers' GenerationConfig: as `generate` has it on each prompt alone, or named as not used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config.schema import Config
from hpcjobs.engines.generation_keys import USES, unused_keys
from hpcjobs.errors import ConfigError
from hpcjobs.plan.generation_keys import generation_notes
from hpcjobs.plan.model import checked_model
from hpcjobs.requests import Request
from tests.engines.test_generate import by_index, engine_of
from tests.engines.test_pick import KINDS, _random_model

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "config.md"
PROMPTS = ["a", "Reverse: cat", "x y z x y z x y z", "hello world", "12345", "q", "Spell: dog and cat"]
KEYS: dict[str, Any] = {
    "min_length": 16, "min_new_tokens": 9, "repetition_penalty": 1.8, "encoder_repetition_penalty": 1.7,
    "no_repeat_ngram_size": 2, "encoder_no_repeat_ngram_size": 1, "bad_words_ids": [[94], [82, 33]],
    "sequence_bias": [[[35], 4.0], [[0, 50], 9.0]], "forced_bos_token_id": 44, "forced_eos_token_id": 3,
    "exponential_decay_length_penalty": (2, 1.5), "suppress_tokens": list(range(20, 60)),
    "begin_suppress_tokens": list(range(10, 90)), "guidance_scale": 1.6, "watermarking_config": {"bias": 5.0},
    "renormalize_logits": True, "stop_strings": ["v", "9"], "eos_token_id": [3, *range(30, 50)],
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    made = _random_model("Llama", KINDS["Llama"][0])
    made.lm_head.weight.data[3] *= 1.5
    return made


def alone(model: Any, tokenizer: Any, prompt: str) -> str:
    """The answer of `generate` to this prompt by itself, up to its end."""
    ids = torch.tensor([tokenizer(prompt).input_ids])
    with torch.inference_mode():
        made = model.generate(ids, max_new_tokens=12, do_sample=False, tokenizer=tokenizer)[0, ids.shape[1] :].tolist()
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends
    made = made[: next((place for place, token in enumerate(made) if token in ends), None)]
    text = str(tokenizer.decode(made, skip_special_tokens=True))
    stops = [text.find(stop) for stop in model.generation_config.stop_strings or () if stop in text]
    return text[: min(stops, default=None)]


@pytest.fixture(scope="module")
def without(tiny: Any, model: Any) -> list[str]:
    """The answers of `generate` without any of the keys."""
    import transformers

    model.generation_config = transformers.GenerationConfig(eos_token_id=3, pad_token_id=0)
    return [alone(model, tiny[1], prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("kind", ["loop", "generate", "transformers"])
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_used(
    tiny: Any, model: Any, without: list[str], key: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each changes an answer, but for the one that scales probabilities and not their order."""
    import transformers

    if key == "guidance_scale" and kind == "loop":
        kind = "generate"  # loop is refused
    keys = {"eos_token_id": 3, "pad_token_id": 0} | {key: KEYS[key]}
    monkeypatch.setattr(model, "generation_config", transformers.GenerationConfig(**keys))
    requests = [Request(index=n, id=str(n), prompt=prompt) for n, prompt in enumerate(PROMPTS)]
    found = by_index(engine_of(kind, (model, tiny[1]), 4, max_new_tokens=12), requests)
    assert [each.error for each in found] == [None] * len(PROMPTS)
    right = [alone(model, tiny[1], prompt) for prompt in PROMPTS]
    assert [each.text for each in found] == right
    assert (right != without) == (key != "renormalize_logits")


def test_the_table_has_every_key() -> None:
    import transformers

    assert set(transformers.GenerationConfig().to_dict()) <= set(USES)
    assert set(KEYS) == {key for key, use in USES.items() if use == "used"}
    page = PAGE.read_text(encoding="utf-8")
    for use in ("used", "no effect", "not used"):
        names = ", ".join(f"`{key}`" for key in sorted(USES) if USES[key] == use)
        assert f"| {use} | {names} |" in page


def test_what_is_not_used_is_named_and_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "generation_config.json"
    model = {"name": str(tmp_path)}
    file.write_text('{"do_sample": true, "top_k": 20, "num_beams": 1, "new_key": 1, "eos_token_id": 3}')
    assert generation_notes(Config.model_validate({"model": model}))[0].startswith(
        "not used of generation_config.json: do_sample, new_key, top_k;"
    )
    file.write_text('{"guidance_scale": 2.0}')
    with pytest.raises(ConfigError, match=r"set model\.engine to auto or generate"):
        generation_notes(Config.model_validate({"model": model | {"engine": "loop"}}))
    assert unused_keys({"use_cache": True, "temperature": 1.0}) == []


def test_settings_of_sampling_in_a_greedy_run_are_named() -> None:
    said = {"top_k": 50, "top_p": 0.9, "min_p": 0.0}
    notes = generation_notes(Config.model_validate({"task": {"generation": said}}))
    assert notes == ["not used: task.generation.top_k, task.generation.top_p; task.generation.temperature is 0, greedy"]
    assert generation_notes(Config.model_validate({"task": {"generation": {**said, "temperature": 0.5}}})) == []


def test_keys_in_the_config_of_an_older_model_are_named_and_refused_too(tmp_path: Path, tiny: Any) -> None:
    """As transformers reads them, where there is no generation_config.json."""
    import transformers

    values = json.loads((ASSETS / "tiny" / "config.json").read_text()) | {"top_k": 7, "guidance_scale": 1.5}
    (tmp_path / "config.json").write_text(json.dumps(values))
    read = transformers.GenerationConfig.from_model_config(transformers.AutoConfig.from_pretrained(tmp_path))
    assert read.guidance_scale == 1.5
    config = Config.model_validate({"model": {"name": str(tmp_path)}})
    assert generation_notes(config)[0].startswith("not used of config.json: top_k;")
    assert checked_model(config).likely_engine == "generate"


def test_a_run_whose_engine_cannot_do_a_key_is_not_queued(tmp_path: Path) -> None:
    shutil.copytree(ASSETS / "tiny", tmp_path / "model")
    file = tmp_path / "model" / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "guidance_scale": 1.5}))
    words = ["--model", str(tmp_path / "model"), "--set", "model.engine=loop", "--run-dir", str(tmp_path / "run")]
    command = [sys.executable, "-m", "hpcjobs", "submit", "eval", *words, "--executor", "local", "--yes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the engine 'loop' has no guidance_scale: set model.engine to auto or generate" in done.stderr
    assert not (tmp_path / "run").exists()
