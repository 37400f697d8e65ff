"""What `submit script -- WORDS` runs: Python, which is copied, or any other command, which runs as it is."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import stat
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.errors import UsageError, did_you_mean

# Programs and modules that start the ranks of a node themselves.
_LAUNCHERS = {
    "torchrun", "accelerate", "deepspeed", "torch.distributed.run", "torch.distributed.launch",
    "accelerate.commands.launch", "colossalai", "composer",
}  # fmt: skip
_PYTHON = re.compile(r"python(3(\.\d+)?)?")
# Those that Python has; any other stands there by mistake.
_LONG_OPTIONS = {"--help", "--help-all", "--help-env", "--help-xoptions", "--version", "--check-hash-based-pycs"}
_SHEBANG = 512  # bytes; execve(2) reads fewer


@dataclass(frozen=True)
class Command:
    """The words to run. `python`: they are what stands behind `python`. `launcher`: it starts the ranks of a node
    itself, under this name.
    """

    argv: tuple[str, ...]
    python: bool
    launcher: str | None = None


def read_command(argv: Sequence[str], elsewhere: bool, path: str | None = None) -> Command:
    """What the words mean. Raises a UsageError if they cannot run.

    `elsewhere`: the job's own set-up (modules, a container) decides what is installed, so that nothing is said of what
    is not here. `path`: the job's PATH, if it is another one.
    """
    words = list(argv)
    if not all(_is_utf8(word) for word in words):
        raise UsageError("a word of the command is not UTF-8, and plan.json could not hold it")
    if _is_our_python(words[0], path):
        return _python(words[1:], elsewhere)
    name, file = words[0], Path(words[0])
    program = name.endswith(".py") and file.is_file()
    if name.startswith("-") or (program and not _names_another_python(file, name, path)):
        return _python(words, elsewhere)
    if file.is_dir():
        raise UsageError(f"{name} is a folder: name the program in it")
    launcher = file.name if file.name in _LAUNCHERS else None
    found = shutil.which(name, path=path)
    if "/" in name or (file.is_file() and found is None):
        _check_file(file, name, words, elsewhere)
        if launcher is None and file.is_file() and _is_for_our_python(file, path):
            return _python(words, elsewhere)
        words[0] = name if "/" in name else f"./{name}"
    elif found is None and (not elsewhere or name.endswith(".py")):
        here = [entry.name for entry in Path().iterdir() if entry.is_file()]
        raise UsageError(
            f"{name} is neither a file here nor a command on PATH{did_you_mean(name, here)}: submit script runs a "
            "Python file, -m module, or any command"
        )
    return Command(tuple(words), False, launcher)


def _python(words: Sequence[str], elsewhere: bool) -> Command:
    """What stands behind `python`."""
    if not words or list(words) == ["-m"]:
        raise UsageError("nothing to run: python needs a program, or -m module")
    name, launcher = words[0], None
    if name == "-m":
        _check_module(words[1], elsewhere)
        package = Path(words[1].replace(".", "/"))
        if (package / "__init__.py").exists():
            _check_main(package, f"-m {words[1]}")
        launcher = words[1] if words[1] in _LAUNCHERS else None
    elif name.startswith("--") and name not in _LONG_OPTIONS:
        raise UsageError(f"{name} stands behind --, where the program begins: options of hpcjobs stand before it")
    elif not name.startswith("-"):
        if not Path(name).exists():
            raise UsageError(f"{name} does not exist")
        _check_main(Path(name), name)
        if name.endswith(".py"):
            _check_syntax(Path(name))
    return Command(tuple(words), True, launcher)


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_our_python(word: str, path: str | None) -> bool:
    """Whether a word is the Python that runs hpcjobs; another one is a command as any other."""
    found = shutil.which(word, path=path)
    if not _PYTHON.fullmatch(Path(word).name) or found is None:
        return False
    return Path(found).parent.resolve() == Path(sys.executable).parent.resolve()


def _is_for_our_python(file: Path, path: str | None) -> bool:
    """Whether the #! line names the Python that runs hpcjobs, without options of its own."""
    line = _shebang(file)
    words = line.split()
    if words and Path(words[0]).name == "env":
        words = words[1:]
    return len(words) == 1 and _is_our_python(words[0], path)


def _names_another_python(file: Path, name: str, path: str | None) -> bool:
    """Whether `./x.py` is to be run by what its #! line says, and that is not the Python that runs hpcjobs."""
    return "/" in name and os.access(file, os.X_OK) and bool(_shebang(file)) and not _is_for_our_python(file, path)


def _check_module(module: str, elsewhere: bool) -> None:
    top = module.partition(".")[0]
    if elsewhere or (Path(top).is_dir() or Path(f"{top}.py").is_file()):
        return
    try:
        known = importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        known = False
    if not known:
        raise UsageError(f"there is no module {top}, neither installed nor here: -m {module}")


def _check_main(folder: Path, name: str) -> None:
    """A UsageError where Python is to run a folder that has no program."""
    if folder.is_dir() and not list(folder.glob("__main__.*")):
        raise UsageError(f"{name} cannot be run: {folder} has no __main__.py; name the program in it")


def _check_syntax(path: Path) -> None:
    """A UsageError where this Python could not even read the program."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        where = f"{path}, line {error.lineno}" if error.lineno else f"{path} is not a Python program"
        raise UsageError(f"{where}: {error.msg}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not a Python program: {error}") from None


def _check_file(path: Path, name: str, words: Sequence[str], elsewhere: bool) -> None:
    """A UsageError where execve(2) could not start this file."""
    if not path.is_file():
        if elsewhere:
            return
        raise UsageError(f"{name} does not exist")
    rest, line = " ".join(["", *words[1:]]), _shebang(path)
    interpreter = _interpreter(line)
    if not os.access(path, os.X_OK) or not path.stat().st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH):
        by = Path(interpreter).name if interpreter else "bash" if name.endswith(".sh") else "python"
        raise UsageError(f"{name} is not executable: chmod +x {name}, or name who runs it: -- {by} {name}{rest}")
    if not line and _is_text(path):
        raise UsageError(f"{name} has no #! line that says what runs it: -- bash {name}{rest}")
    if line.endswith("\r"):
        raise UsageError(f"{name} has the line ends of Windows, and cannot be started: sed -i 's/\\r$//' {name}")
    if interpreter and not elsewhere and not Path(interpreter).exists():
        raise UsageError(f"{name} is to be run by {interpreter}, which is not here: mend its #! line")


def _shebang(path: Path) -> str:
    """What stands behind #! in the first line of a file."""
    with path.open("rb") as file:
        head = file.read(_SHEBANG)
    return head[2:].split(b"\n")[0].decode(errors="replace").strip(" \t") if head.startswith(b"#!") else ""


def _interpreter(line: str) -> str | None:
    """The program that a #! line names; that of `env` is the one on PATH."""
    words = line.split()
    if len(words) > 1 and Path(words[0]).name == "env":
        named = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), words[0])
        return shutil.which(named) or named
    return words[0] if words else None


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" not in file.read(4096)
