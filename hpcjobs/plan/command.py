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
_SHEBANG = 512  # bytes; execve(2) reads fewer


@dataclass(frozen=True)
class Command:
    """The words to run. `python`: they are what stands behind `python`. `launcher`: it starts the ranks of a node
    itself, under this name.
    """

    argv: tuple[str, ...]
    python: bool
    launcher: str | None = None


def read_command(argv: Sequence[str], elsewhere: bool) -> Command:
    """What the words mean. Raises a UsageError if they cannot run.

    `elsewhere`: the job's own set-up (modules, a container) decides what is installed, so that nothing is said of what
    is not here.
    """
    words = list(argv)
    if len(words) > 1 and _is_our_python(words[0]):
        words = words[1:]
    name = words[0]
    if name == "-m":
        _check_module(words[1], elsewhere)
        return Command(tuple(words), True, words[1] if words[1] in _LAUNCHERS else None)
    if name.startswith("-"):
        return Command(tuple(words), True)
    path = Path(name)
    if path.is_dir():
        raise UsageError(f"{name} is a folder: name the program in it")
    if path.is_file() and (name.endswith(".py") or _PYTHON.fullmatch(Path(_interpreter(path) or "").name)):
        _check_syntax(path)
        return Command(tuple(words), True)
    launcher = Path(name).name
    if "/" in name or (path.is_file() and shutil.which(name) is None):
        _check_file(path, name, words, elsewhere)
        words[0] = name if "/" in name else f"./{name}"
    elif shutil.which(name) is None and not elsewhere:
        here = [entry.name for entry in Path().iterdir() if entry.is_file()]
        raise UsageError(
            f"{name} is neither a file here nor a command on PATH{did_you_mean(name, here)}: submit script runs a "
            "Python file, -m module, or any command"
        )
    return Command(tuple(words), False, launcher if launcher in _LAUNCHERS else None)


def _is_our_python(word: str) -> bool:
    """Whether a word is the Python that runs hpcjobs; another one is a command as any other."""
    found = shutil.which(word)
    if not _PYTHON.fullmatch(Path(word).name) or found is None:
        return False
    return Path(found).parent.resolve() == Path(sys.executable).parent.resolve()


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
    rest = " ".join(["", *words[1:]])
    interpreter = _interpreter(path)
    if not os.access(path, os.X_OK) or not path.stat().st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH):
        by = Path(interpreter).name if interpreter else "bash" if name.endswith(".sh") else "python"
        raise UsageError(f"{name} is not executable: chmod +x {name}, or name who runs it: -- {by} {name}{rest}")
    if interpreter is None and _is_text(path):
        raise UsageError(f"{name} has no #! line that says what runs it: -- bash {name}{rest}")
    if interpreter and not elsewhere and not Path(interpreter).exists():
        raise UsageError(f"{name} is to be run by {interpreter}, which is not here: mend its #! line")


def _interpreter(path: Path) -> str | None:
    """The program that the #! line names; that of `env` is the one on PATH."""
    with path.open("rb") as file:
        head = file.read(_SHEBANG)
    if not head.startswith(b"#!"):
        return None
    words = head[2:].split(b"\n")[0].decode(errors="replace").split()
    if len(words) > 1 and Path(words[0]).name == "env":
        named = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), words[0])
        return shutil.which(named) or named
    return words[0] if words else None


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" not in file.read(4096)
