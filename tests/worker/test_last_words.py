"""The last words of a program on stderr, as the rank that started it reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAID_BEFORE = "OldError: of another start\n"
# A process like a rank: it looks at its stderr, starts what writes there, and says what it read.
RANK = """
import subprocess, sys
from hpcjobs.worker.last_words import LastWords
said = LastWords()
subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write(sys.argv[1])", sys.argv[1]])
print(said.read(), end="")
"""


def read_after(text: str, stderr: Path, **env: str) -> str:
    stderr.write_text(SAID_BEFORE)
    with stderr.open("a") as file:
        words = [sys.executable, "-c", RANK, text]
        return subprocess.run(
            words, stdout=subprocess.PIPE, stderr=file, text=True, check=True, env=os.environ | env
        ).stdout


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Traceback\n  File x\nValueError: bad\nTell us at once\n", "ValueError: bad"),
        ("[rank1]: Traceback\n[rank1]: torch.distributed.DistBackendError: no\n[W1] warned\n",
         "torch.distributed.DistBackendError: no"),
        ("usage: p.py\np.py: error: --x is required\n", "p.py: error: --x is required"),
        ("OSError: gone\nsrun: error: node1: task 0: Exited with exit code 1\n", "OSError: gone"),
        ("a line\n\nthe last line\n\n", "the last line"), ("", ""), ("x" * 1000, "x" * 300),
        ("KeyError: my-secret-value\n", "KeyError: ***"),
    ],
)  # fmt: skip
def test_the_last_error_or_the_last_line_of_this_start(tmp_path: Path, text: str, cause: str) -> None:
    assert read_after(text, tmp_path / "err", MY_TOKEN="my-secret-value") == cause


def test_nothing_where_stderr_is_no_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RANK, "ValueError: bad\n"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "ValueError: bad\n")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("epoch 3 loss 0.1\n", ""), ("x.sh: line 3: train: command not found\nepoch 3\n",
         "x.sh: line 3: train: command not found"),
        ("/usr/bin/python: No module named nothing\n", "/usr/bin/python: No module named nothing"),
    ],
)  # fmt: skip
def test_where_both_streams_are_one_file_only_an_error_is_a_cause(tmp_path: Path, text: str, cause: str) -> None:
    """As Slurm writes them: the last line may be of what the program computes."""
    words = [sys.executable, "-c", RANK.replace("end=", "file=sys.stderr, end="), text]
    with (tmp_path / "log").open("a") as file:
        subprocess.run(words, stdout=file, stderr=file, check=True)
    assert (tmp_path / "log").read_text() == text + cause
