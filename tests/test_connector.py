"""The connector: one class, alone and on several real processes, for inference and for training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpcjobs.connector import AccelerateConnector
from hpcjobs.errors import ConfigError, UsageError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.requests import Completion

pytestmark = pytest.mark.model
PROGRAMS = Path(__file__).parent / "programs"


def _launch(processes: int, program: str, *words: str, launcher: str = "torchrun") -> str:
    """A program on several processes of this machine, as users start it; its output."""
    python = [sys.executable, "-m"]
    start = {
        "torchrun": [*python, "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)],
        "accelerate": [
            *python, "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes),
            "--rdzv_backend", "c10d", "--main_process_port", "0", "--mixed_precision", "no",
        ],
    }[launcher]  # fmt: skip
    env = clean_environment(os.environ) | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*start, str(PROGRAMS / program), *words], env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def connector() -> AccelerateConnector:
    return AccelerateConnector("tiny", batch_size=4)


def _chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_complete_one_and_a_batch(connector: AccelerateConnector) -> None:
    one = connector.complete(_chat("Spell: wecu"))
    assert isinstance(one, Completion)
    assert (one.text, one.finish_reason) == ("w-e-c-u", "stop")
    texts = [c.text for c in connector.complete_batch([_chat("Upper: axun"), _chat("Add: 63+9"), _chat("Spell: wecu")])]
    assert texts == ["AXUN", "72", "w-e-c-u"]
    assert connector.complete_batch([]) == []


def test_texts_and_chats_in_one_batch_are_each_what_they_are_alone(connector: AccelerateConnector) -> None:
    text = "Spell: wecu"
    chats = [_chat(text), tuple(_chat(text)), np.array(_chat(text))]
    mixed: list[Any] = [chats[0], text, None, chats[1], float("nan"), [], chats[2], np.str_(text)]
    found = connector.complete_batch(mixed)
    alone = connector.complete(text).text
    assert alone != "w-e-c-u"  # without the chat template it is no question
    assert [one.text for one in found] == ["w-e-c-u", alone, "", "w-e-c-u", "", "", "w-e-c-u", alone]
    assert [one.index for one in found if one.error] == [2, 4, 5]
    assert [one.text for one in connector.complete_batch(iter([_chat(text)] * 2))] == ["w-e-c-u"] * 2
    assert [one.text for one in connector.complete_batch(pd.Series([text], index=["a"]))] == [alone]


def test_options_of_a_call_are_checked(connector: AccelerateConnector) -> None:
    assert connector.complete(_chat("Spell: wecu"), max_new_tokens=3).text == "w-e"
    assert connector.complete(_chat("Spell: wecu"), stop="-c").text == "w-e"
    with pytest.raises(UsageError, match="did you mean 'max_new_tokens'"):
        connector.complete(_chat("Spell: wecu"), max_new_token=3)
    for wrong in ({"max_new_tokens": 0}, {"temperature": "0.5"}, {"stop": 5}, {"stop": [""]}):
        with pytest.raises(UsageError, match=rf"^{next(iter(wrong))} .*: "):
            connector.complete(_chat("Spell: wecu"), **wrong)
    with pytest.raises(UsageError, match="prompt 0 is a list of texts"):
        connector.complete(["Spell: wecu", "Spell: wecu"])  # type: ignore[list-item]


def test_a_model_is_loaded_once(connector: AccelerateConnector) -> None:
    connector.load_model_once()
    model = connector.model
    connector.load_model_once()
    assert connector.model is model


def test_wrong_arguments_are_said_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match="mixed_precision 'fp8'"):
        AccelerateConnector("tiny", mixed_precision="fp8")
    with pytest.raises(UsageError, match="batch_size 0"):
        AccelerateConnector("tiny", batch_size=0)
    with pytest.raises(UsageError, match="batch_size 8"):
        AccelerateConnector("tiny", batch_size="8")  # type: ignore[arg-type]


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        AccelerateConnector(str(tmp_path)).load_model_once()


def test_one_process_has_the_whole_data_set(connector: AccelerateConnector) -> None:
    assert connector.split_dataset(["a", "b", "c"]) == ["a", "b", "c"]
    assert connector.gather_results([1, 2, 3]) == [1, 2, 3]


def test_split_and_gather_on_three_processes() -> None:
    said = json.loads(_launch(3, "split_gather.py").splitlines()[-1])
    assert said["sizes"] == {"0": [0, 0, 0], "1": [1, 0, 0], "7": [3, 2, 2], "97": [33, 32, 32]}
    assert said["in_order"] is True
    assert said["others_empty"] is True


def test_the_training_loop_of_the_readme_on_one_and_two_processes(tmp_path: Path) -> None:
    """Gradients are averaged: two processes with half a batch each end where one with the whole ends."""
    losses: dict[int, list[float]] = {}
    for processes in (1, 2):
        _launch(processes, "train_loop.py", str(tmp_path / str(processes)), launcher="torchrun")
        losses[processes] = json.loads((tmp_path / str(processes) / "losses.json").read_text())
    assert losses[1] == pytest.approx(losses[2], abs=1e-5)
    assert losses[1][-1] < losses[1][0] / 2
    _check_saved(tmp_path / "2" / "model")


def test_the_training_loop_under_accelerate_launch(tmp_path: Path) -> None:
    _launch(2, "train_loop.py", str(tmp_path / "a"), launcher="accelerate")
    _check_saved(tmp_path / "a" / "model")


@pytest.mark.parametrize("launcher", ["accelerate", "submit script"])
def test_the_loop_that_this_project_grew_from_runs_word_for_word(tmp_path: Path, launcher: str) -> None:
    if launcher == "accelerate":
        _launch(2, "seed_loop.py", str(tmp_path / "model"), launcher="accelerate")
    else:
        words = ["submit", "script", "--executor", "local", "--ntasks-per-node", "2", "--run-dir", f"{tmp_path}/run"]
        program = [str(PROGRAMS / "seed_loop.py"), str(tmp_path / "model")]
        env = clean_environment(os.environ) | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "hpcjobs", *words, "--wait", "--yes", "--", *program]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    _check_saved(tmp_path / "model")


def _check_saved(folder: Path) -> None:
    """What save_model wrote loads with plain transformers and has learned what it was taught."""
    import torch
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert (folder / "model.safetensors").exists()
    assert model.dtype == torch.float32
    ids = tokenizer.apply_chat_template(
        _chat("Say: it"), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True) == "learned"
