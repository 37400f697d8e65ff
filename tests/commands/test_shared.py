"""Runs and other users: what a run folder lets whom do, with real uids."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hpcjobs.config.layers import set_layer
from hpcjobs.config.resolve import resolve
from hpcjobs.errors import UsageError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.paths import find_run
from hpcjobs.worker.run import run_rank
from tests.users import STRANGER, as_user, needs_root

HPCJOBS = [sys.executable, "-m", "hpcjobs"]
SMALL = ["--set", "model.engine=dummy", "--set", "data.max_samples=4", "--executor", "local", "--yes", "--wait"]
ANN, BOB, GROUP = 61001, 61002, 61000


def _planned(folder: Path) -> Path:
    config, _ = resolve("eval", None, None, [set_layer(["model.engine=dummy", "data.max_samples=4"])])
    make_plan("eval", config, folder).write()
    return folder


def _modes(root: Path) -> dict[str, int]:
    """The modes in a run folder; symbolic links have none of their own."""
    found = [path for path in (root, *root.rglob("*")) if not path.is_symlink()]
    return {str(path): stat.S_IMODE(path.stat().st_mode) for path in found}


def test_a_run_is_private_whatever_the_umask(tmp_path: Path) -> None:
    command = [*HPCJOBS, "submit", "eval", "--run-dir", str(tmp_path / "run"), *SMALL]
    done = subprocess.run(command, env=clean_environment(), umask=0, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modes = _modes(tmp_path / "run")
    assert any(name.endswith(".pkl") for name in modes)
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


# Every verb that reads or changes a run, in one process.
EVERY_VERB = """
import sys
from hpcjobs.cli import main
for verb in ("status", "logs", "resume", "cancel", "merge", "score", "report", "rm"):
    print(verb, main([verb, sys.argv[1], *(["--yes"] if verb in ("resume", "rm") else [])]), flush=True)
"""


@needs_root
def test_a_stranger_reads_and_changes_nothing_of_a_run(open_folder: Path) -> None:
    root, before = _planned(open_folder / "run"), _modes(open_folder / "run")
    done = as_user(STRANGER, [sys.executable, "-c", EVERY_VERB, str(root)])
    assert [line.split()[1] for line in done.stdout.splitlines()] in (["1"] * 8, ["2"] * 8), done.stdout
    assert done.stderr.count("ermission denied") == 8, done.stderr
    assert _modes(root) == before


@needs_root
def test_nobody_works_in_a_run_that_others_may_have_written(tmp_path: Path) -> None:
    root = _planned(tmp_path / "run")
    os.chown(root, STRANGER, STRANGER)
    for open_it in (find_run, run_rank):
        with pytest.raises(UsageError, match=r"belongs to .*, and its code would run as you"):
            open_it(str(root))
    os.chown(root, 0, 0)
    for mode, whose in ((0o777, "others"), (0o770, "its group"), (0o2777, "others")):
        root.chmod(mode)
        with pytest.raises(UsageError, match=rf"written by {whose} \(mode {mode:o}\).*chmod -R go-w {root}"):
            find_run(str(root))
    root.chmod(0o755)
    assert find_run(str(root)).root == root


MOST_VERBS = """
from hpcjobs.cli import main
verbs = ("status", "logs", "merge", "score", "report", "cancel")
codes = [main([verb, "ours"]) for verb in verbs] + [main(["runs"]), main(["compare", "ours", "ours"])]
print()
print(*codes)
"""


@needs_root
def test_two_users_of_a_group_work_on_one_run(open_folder: Path) -> None:
    os.chown(open_folder, 0, GROUP)
    open_folder.chmod(0o2770)

    def ann_or_bob(uid: int, *words: str) -> str:
        done = as_user(uid, [*HPCJOBS, *words], GROUP, {"HPCJOBS_RUNS": str(open_folder)}, umask=0o077)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    ann_or_bob(ANN, "submit", "eval", "--name", "ours", "--set", "run.shared=group", *SMALL)
    journal = next((open_folder / "ours/ranks").iterdir())
    journal.unlink()
    ann_or_bob(BOB, "resume", "ours", "--wait", "--yes")
    for uid in (ANN, BOB):
        done = as_user(uid, [sys.executable, "-c", MOST_VERBS], GROUP, {"HPCJOBS_RUNS": str(open_folder)}, umask=0o077)
        assert set(done.stdout.splitlines()[-1].split()) == {"0"}, done.stdout + done.stderr
    assert {path: oct(mode) for path, mode in _modes(open_folder / "ours").items() if mode not in (0o2770, 0o660)} == {}
    owners = {path.stat().st_uid for path in (open_folder / "ours").rglob("*")}
    assert owners == {ANN, BOB}
    ann_or_bob(BOB, "rm", "ours", "--yes")
    assert not (open_folder / "ours").exists()
