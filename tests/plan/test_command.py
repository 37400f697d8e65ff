"""What `submit script` runs, and what it refuses before anything is queued."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hpcjobs.errors import UsageError
from hpcjobs.plan.command import read_command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    files = {
        "good.py": "print(1)\n", "bad.py": "def f(:\n", "nul.py": "\0", "x.sh": "#!/bin/bash\necho x\n",
        "plain.sh": "#!/bin/bash\necho x\n", "none.sh": "echo x\n", "gone.sh": "#!/opt/none/python9\n",
        "crlf.sh": "#!/bin/bash\r\necho x\r\n", "other.py": "#!/usr/bin/python9\n", "noext": "print(1)\n",
        "by_option": f"#!{sys.executable} -I\n", "ours": f"#!{sys.executable}\n",
        "by_env": f"#!/usr/bin/env {Path(sys.executable).name}\nprint(1)\n", "data.txt": "x\n",
        "by_no_env.sh": "#!/usr/bin/env python9\n", "app/__main__.py": "print(1)\n", "lib/__init__.py": "",
    }  # fmt: skip
    for name in ("app", "lib"):
        Path(name).mkdir()
    for name, text in files.items():
        Path(name).write_text(text)
    for name in ("x.sh", "none.sh", "gone.sh", "by_env", "crlf.sh", "other.py", "by_option", "ours", "by_no_env.sh"):
        os.chmod(name, 0o755)
    Path("folder").mkdir()
    Path("package").mkdir()
    Path("hangs").symlink_to("nowhere")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "python"),
    [
        (["good.py", "a"], True), (["-m", "json.tool"], True), (["-m", "package.x"], True), (["./by_env"], True),
        (["other.py"], True), (["./ours"], True), (["./by_option"], False),
        (["-X", "dev", "good.py"], True), (["./x.sh", "1"], False), (["bash", "plain.sh"], False), (["env"], False),
        (["/bin/echo", "hello"], False),
    ],
)  # fmt: skip
def test_python_is_told_from_other_commands(here: Path, words: list[str], python: bool) -> None:
    command = read_command(words, elsewhere=False)
    assert (list(command.argv), command.python) == (words, python)


def test_our_own_python_is_python_and_a_file_here_needs_no_dot(here: Path) -> None:
    ours = (["good.py"], ["noext", "pass"], ["app"], ["-m", "app"], ["--version"], ["-X", "dev", "good.py"])
    for words in (*ours, ["-m", "json.tool"]):
        command = read_command(["python", *words], elsewhere=False)
        assert (list(command.argv), command.python) == (words, True)
    assert read_command(["x.sh", "1"], elsewhere=False).argv == ("./x.sh", "1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["goood.py"], ["goood.py is neither a file here nor a command", "did you mean 'good.py'"]),
        (["bad.py"], ["bad.py, line 1:"]), (["nul.py"], ["nul.py is not a Python program"]),
        (["python", "folder"], ["folder has no __main__.py"]), (["-m", "lib"], ["lib has no __main__.py"]),
        (["--nodes", "2", "good.py"], ["--nodes stands behind --"]), (["./hangs"], ["./hangs does not exist"]),
        (["./by_no_env.sh"], ["python9, which is not here"]), (["./none"], ["./none does not exist"]),
        (["folder"], ["folder is a folder"]),
        (["plain.sh"], ["not executable: chmod +x plain.sh", "-- bash plain.sh"]),
        (["plain.sh", "-x"], ["-- bash plain.sh -x"]), (["data.txt"], ["not executable"]),
        (["./crlf.sh"], ["line ends of Windows"]), (["./other.py"], ["/usr/bin/python9, which is not here"]),
        (["python", "nothing"], ["nothing does not exist"]), (["python"], ["python needs a program"]),
        (["python", "-m"], ["-m module"]), (["-m"], ["-m module"]), (["x.py", "\udc80"], ["not UTF-8"]),
        (["none.sh"], ["no #! line", "-- bash none.sh"]), (["gone.sh"], ["/opt/none/python9, which is not here"]),
        (["-m", "nothing.at.all"], ["no module nothing"]), (["trochrun", "x"], ["neither a file here nor a command"]),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_when_planning(here: Path, words: list[str], said: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        read_command(words, elsewhere=False)
    for text in said:
        assert text in str(error.value)


def test_what_the_jobs_own_set_up_brings_is_not_asked_for_here(here: Path) -> None:
    """Modules and containers have other programs and packages."""
    assert read_command(["-m", "nothing.at.all"], elsewhere=True).python
    assert not read_command(["nvfortran", "x"], elsewhere=True).python
    assert not read_command(["/opt/conda/bin/x"], elsewhere=True).python


def test_a_launcher_of_another_environment_is_one_too(here: Path) -> None:
    Path("venv").mkdir()
    Path("venv/torchrun").write_text("#!/bin/bash\n")
    os.chmod("venv/torchrun", 0o755)
    command = read_command(["venv/torchrun", "good.py"], elsewhere=False)
    assert (command.launcher, command.python) == ("torchrun", False)


@pytest.mark.parametrize("words", [["torchrun", "good.py"], ["-m", "torch.distributed.run", "good.py"]])
def test_what_starts_the_ranks_of_a_node_itself_is_known(here: Path, words: list[str]) -> None:
    assert read_command(words, elsewhere=True).launcher == (words[0] if words[0] != "-m" else words[1])
