"""Weights that cannot be right are refused when planning, by their names, before anything is queued; without torch."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config.layers import dotted_layer
from hpcjobs.config.problems import validate
from hpcjobs.config.shape import Shape
from hpcjobs.errors import ConfigError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.plan.draft import draft_run
from hpcjobs.plan.weights import check_trained, check_weights
from hpcjobs.run_folder.job_kinds import KINDS, JobKind
from hpcjobs.run_folder.snapshot import Snapshot
from tests.trainings import plan_training

UP = "model.layers.1.mlp.up_proj.weight"
FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
Tensors = dict[str, tuple[str, list[int], bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ASSETS / "tiny", tmp_path / "m")
    return tmp_path / "m"


def read(file: Path) -> Tensors:
    """The tensors of a safetensors file, by its documented format."""
    content = file.read_bytes()
    base = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:base])
    header.pop("__metadata__", None)
    cut = {name: (base + one["data_offsets"][0], base + one["data_offsets"][1]) for name, one in header.items()}
    return {name: (one["dtype"], one["shape"], content[slice(*cut[name])]) for name, one in header.items()}


def write(file: Path, tensors: Tensors) -> None:
    header: dict[str, Any] = {}
    place = 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place := place + len(content)]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(one[2] for one in tensors.values()))


def renamed(folder: Path) -> None:
    tensors = read(folder / FILE)
    write(folder / FILE, {("model.layers.1.mlp.down" if name == UP else name): one for name, one in tensors.items()})


def missing(folder: Path) -> None:
    tensors = read(folder / FILE)
    del tensors[UP]
    write(folder / FILE, tensors)


def other_shape(folder: Path) -> None:
    tensors = read(folder / FILE)
    dtype, (rows, columns), content = tensors[UP]
    write(folder / FILE, tensors | {UP: (dtype, [rows - 1, columns], content[: -4 * columns])})


def other_type(folder: Path) -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 128, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 103}
    (folder / "config.json").write_text(json.dumps(gpt2))


def truncated(folder: Path) -> None:
    with (folder / FILE).open("r+b") as file:
        file.truncate((folder / FILE).stat().st_size - 10)


def in_shards(folder: Path) -> list[str]:
    """Cut the weights into two shards with an index; the names in the second."""
    tensors = read(folder / FILE)
    names = sorted(tensors)
    places = {name: f"model-0000{1 + (n > 9)}-of-00002.safetensors" for n, name in enumerate(names)}
    for shard in set(places.values()):
        write(folder / shard, {name: tensors[name] for name in names if places[name] == shard})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / FILE).unlink()
    return names[10:]


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (renamed, rf"1 not in its files.*{UP}; 1 in its files and not used by the model: model\.layers\.1\.mlp\.down"),
    (missing, f"1 not in its files, and would be random numbers: {UP}"),
    (other_shape, rf"1 of another shape: {UP} is \[255, 128\], not \[256, 128\]"),
    (other_type, r"not in its files.*transformer\..*in its files and not used by the model: model\."),
    (truncated, r"model\.safetensors is cut off: \d+ of \d+ bytes; model\.\S+ is the first of 1 tensors"),
]


def config(folder: Path, **more: object) -> Any:
    keys = {"model.name": str(folder), "task.prompt": "x"} | {key.replace("__", "."): one for key, one in more.items()}
    return validate(dotted_layer(keys, "here"))


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_a_fault_is_named(folder: Path, fault: Callable[[Path], None], message: str) -> None:
    check_weights(config(folder))
    fault(folder)
    with pytest.raises(ConfigError, match=message):
        check_weights(config(folder))


@pytest.mark.parametrize("job", ["eval", "generate", "train"])
def test_submit_refuses_each_fault_and_imports_no_torch(tmp_path: Path, job: str) -> None:
    """Exit 2 with the name, no run folder, and no torch: five times in one process, which then looks."""
    code = (
        "import sys; from hpcjobs.cli import app\n"
        "from typer.testing import CliRunner\n"
        "for model in sys.argv[2:]:\n"
        "    words = ['submit', sys.argv[1], '--model', model, '--name', 'a', '--executor', 'local', '--yes']\n"
        "    done = CliRunner().invoke(app, words)\n"
        "    print(getattr(done.exception, 'exit_code', done.exit_code), done.exception or done.output)\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()))\n"
    )
    folders = []
    for fault, _ in FAULTS:
        shutil.copytree(ASSETS / "tiny", tmp_path / fault.__name__)
        fault(tmp_path / fault.__name__)
        folders.append(str(tmp_path / fault.__name__))
    env = clean_environment() | {"HPCJOBS_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "-c", code, job, *folders], capture_output=True, text=True, env=env, check=False, timeout=300
    )
    said = done.stdout.split("\n")
    assert [line.split()[0] for line in said if line[:2] in ("0 ", "1 ", "2 ")] == ["2"] * 5, done.stdout + done.stderr
    assert said[-2] == "[]"
    assert not (tmp_path / "runs").exists()


def test_shards_are_read_and_what_is_wrong_with_them_is_named(folder: Path) -> None:
    second = in_shards(folder)
    check_weights(config(folder))
    shard = folder / "model-00002-of-00002.safetensors"
    whole = read(shard)
    write(shard, {name: one for name, one in whole.items() if name != second[3]})
    with pytest.raises(ConfigError, match=f"names 1 tensors that no shard has: {second[3]}"):
        check_weights(config(folder))
    name, (dtype, shape, content) = next(iter(read(folder / "model-00001-of-00002.safetensors").items()))
    write(shard, whole | {name: (dtype, shape, content)})
    check_weights(config(folder))
    write(shard, whole | {name: (dtype, shape, content[::-1])})
    with pytest.raises(ConfigError, match=f"{name} stands in .* and, with other values, in {shard.name}"):
        check_weights(config(folder))
    shard.unlink()
    with pytest.raises(ConfigError, match=rf"names 1 shards that are not there: {shard.name}, which has {second[0]}"):
        check_weights(config(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut off: 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "pointer of Git LFS.*git lfs pull"),
        (b"\x40" + bytes(7) + b"{", "cut off: 9 bytes"),
        (b"\x02" + bytes(7) + b"[]", "no safetensors file"),
        (b"\x02" + bytes(7) + b"{}  ", "has 12 bytes, and its header describes 10"),
    ],
)
def test_a_file_that_is_none_is_named(folder: Path, content: bytes, message: str) -> None:
    (folder / FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"model\.safetensors (is|has).*{message}|{message}"):
        check_weights(config(folder))


def test_weights_that_are_pickled_and_an_adapter_beside_them_are_refused(folder: Path) -> None:
    (folder / FILE).rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"it has pytorch_model\.bin.*save it again with save_pretrained"):
        check_weights(config(folder))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="would load the adapter's base model"):
        check_weights(config(folder))


def test_what_is_allowed_or_renamed_or_unknown_passes(folder: Path) -> None:
    missing(folder)
    check_weights(config(folder, model__weights__allow_missing=["*.up_proj.weight"]))
    tensors = read(folder / FILE)
    write(folder / FILE, {f"module.{name}": one for name, one in tensors.items()})
    check_weights(config(folder, model__weights__rename={r"^module\.": ""}))
    (folder / "config.json").write_text(json.dumps({"model_type": "rwkv"}))
    check_weights(config(folder))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "v_prj"], r"no linear layer 'v_prj' \(did you mean 'v_proj'\?\); it has down_proj, embed_tokens"),
        (["c_attn"], "no linear layer 'c_attn'; it has .*k_proj"),
        (["input_layernorm"], "no linear layer 'input_layernorm'"),
        (["proj"], "no linear layer 'proj'"),
        (["layers.9.mlp.up_proj"], r"no linear layer 'layers\.9\.mlp\.up_proj'"),
    ],
)
def test_a_target_that_no_layer_has_is_refused(folder: Path, targets: list[str], message: str) -> None:
    """peft would train the others, and say nothing."""
    with pytest.raises(ConfigError, match=rf"train\.lora\.target_modules: this model has {message}"):
        check_trained(config(folder, train__lora__rank=2, train__lora__target_modules=targets))
    there = ["q_proj", "mlp.up_proj", "model.layers.1.self_attn.k_proj"]
    check_trained(config(folder, train__lora__rank=2, train__lora__target_modules=there))
    check_trained(config(folder, train__lora__target_modules=targets))


def test_a_base_that_adapters_cannot_be_merged_into_is_refused(folder: Path) -> None:
    lora = {"train__lora__rank": 2, "train__lora__target_modules": ["q_proj", "lm_head"]}
    with pytest.raises(ConfigError, match=r"train\.lora\.target_modules: lm_head shares its weights"):
        check_trained(config(folder, **lora))
    check_trained(config(folder, **lora | {"train__lora__target_modules": ["q_proj"]}))
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"tie_word_embeddings": False}))
    check_trained(config(folder, **lora))
    (folder / "config.json").write_text(json.dumps(values | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ConfigError, match=r"is quantised \(gptq\): its weights cannot be trained"):
        check_trained(config(folder))


@pytest.mark.parametrize("job", ["eval", "count"])
def test_every_kind_of_job_is_checked(
    folder: Path, tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One from another package too, and an eval that a training starts: neither goes by `submit`."""
    monkeypatch.setitem(KINDS, "count", JobKind(name="count"))
    missing(folder)
    with pytest.raises(ConfigError, match=f"1 not in its files, and would be random numbers: {UP}"):
        draft_run(job, config(folder), tmp_path / "run", Shape(1, 1, 0, 1), lambda run: Snapshot())
    draft_run("script", config(folder), tmp_path / "run", Shape(1, 1, 0, 1), lambda run: Snapshot(), argv=["a.py"])


def test_an_eval_after_a_training_from_scratch_needs_no_weights_of_its_base(folder: Path, tmp_path: Path) -> None:
    missing(folder)
    after = tmp_path / "after.yaml"
    task = {"prompt": "{{ question }}", "target": "{{ answer }}", "metrics": ["exact_match"]}
    after.write_text(json.dumps({"data": {"name": "canned_50_quick"}, "task": task}))
    assert plan_training(tmp_path / "run", model=str(folder), then_eval=str(after)).plan.is_file()
    with pytest.raises(ConfigError, match=UP):
        plan_training(tmp_path / "other", model=str(folder), then_eval=str(after), init="pretrained")
