"""The files of the user's from which an lm_eval task is loaded: they are copied into the run's code/."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hpcjobs.errors import ConfigError
from hpcjobs.run_folder.snapshot import MAX_BYTES, MAX_FILES

_COPIED = {".py", ".yaml", ".yml"}
_PASSED_OVER = {"__pycache__", ".ipynb_checkpoints"}


@dataclass(frozen=True)
class UserTask:
    """Where a task of the user's lies: in the folder `include`, in the YAML file `path`, or neither.

    `yamls` are the files of the task and its parts with all files that they include.
    """

    include: Path | None = None
    path: Path | None = None
    yamls: tuple[Path, ...] = ()

    @property
    def top(self) -> Path:
        """The folder below which all files lie; the copy in code/ is laid out as it is."""
        folders = [*filter(None, [self.include]), *(yaml.parent for yaml in self.yamls)]
        return Path(os.path.commonpath(folders)) if folders else Path()

    def place(self, path: Path | None) -> str:
        """`path` relative to `top`; empty if there is none."""
        return "" if path is None else path.relative_to(self.top).as_posix()

    def files(self, run: Path) -> UserFiles:
        """The files to copy and to link, without those of the run folder `run`."""
        found = UserFiles(self.include or self.top)
        if self.include is not None:
            for path, at in _walk(self.include, PurePosixPath(self.place(self.include)), run):
                found.add(path, at)
        outside = [yaml for yaml in self.yamls if self.include is None or not yaml.is_relative_to(self.include)]
        for folder in dict.fromkeys(yaml.parent for yaml in outside):
            at = PurePosixPath(self.place(folder))
            for path in sorted(folder.iterdir()):
                if path.is_file() and not path.name.startswith(".") and not _is_yaml(path):
                    found.add(path, at / path.name)
        for path in [*outside, *(path for yaml in outside for path in modules_of(yaml))]:
            if path.is_relative_to(self.top):
                found.add(path, PurePosixPath(self.place(path)))
        return found


@dataclass
class UserFiles:
    """YAML and Python files by name, and the other files of `folder` as links."""

    folder: Path
    copied: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    _size: int = 0

    def add(self, path: Path, at: PurePosixPath) -> None:
        """Add the file `path` as `at`. Raises a ConfigError where there is too much."""
        if str(at) in self.copied:
            return
        if path.suffix in _COPIED or _is_yaml(path):
            self.copied[str(at)] = path.read_bytes()
            self._size += len(self.copied[str(at)])
        else:
            self.links[str(at)] = str(path)
        if self._size > MAX_BYTES or len(self.copied) + len(self.links) > MAX_FILES:
            raise ConfigError(
                f"task.include_path: {self.folder} has more than {MAX_FILES:,} files or {MAX_BYTES // 1_000_000} MB of "
                "YAML and Python: name the folder of the task alone"
            )

    def write(self, folder: Path) -> None:
        """Write them below `folder`."""
        for name, content in self.copied.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        for name, target in self.links.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target)


def with_includes(yamls: Iterable[Path]) -> tuple[Path, ...]:
    """YAML files and all those that they include."""
    found, left = dict[Path, None](), list(yamls)
    while left:
        path = left.pop(0).resolve()
        if path not in found:
            found[path] = None
            left += [path.parent / one for one in _includes(_content(path))]
    return tuple(found)


def _includes(content: Mapping[str, Any]) -> Sequence[str]:
    includes = content.get("include", [])
    return [includes] if isinstance(includes, str) else list(includes)


def _content(path: Path) -> Mapping[str, Any]:
    """A YAML file with its `!function` tags as texts, `FOLDER/module.function`."""
    from lm_eval.tasks._yaml_loader import load_yaml

    content: Mapping[str, Any] = load_yaml(path, resolve_func=False, recursive=False)
    return content


def modules_of(yaml: Path) -> Iterable[Path]:
    """The Python files that a YAML file's `!function` tags name."""
    start = f"{yaml.parent}{os.sep}"
    for text in _texts(_content(yaml)):
        if text.startswith(start):
            module = text.removeprefix(start).rpartition(".")[0]
            path = yaml.parent / f"{module.replace('.', '/')}.py"
            if path.is_file():
                yield path


def _texts(value: object) -> Iterable[str]:
    match value:
        case str():
            yield value
        case dict():
            for one in value.values():
                yield from _texts(one)
        case list():
            for one in value:
                yield from _texts(one)


def _is_yaml(path: Path) -> bool:
    """lm_eval's own templates have names like `_default_template_yaml`."""
    return path.suffix in (".yaml", ".yml") or path.name.endswith("_yaml")


def _walk(folder: Path, at: PurePosixPath, run: Path) -> Iterable[tuple[Path, PurePosixPath]]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = folder / entry.name
        if entry.name in _PASSED_OVER or entry.name.startswith(".") or path.resolve() == run:
            continue
        if entry.is_dir():
            if not (path / "plan.json").exists():  # a run folder
                yield from _walk(path, at / entry.name, run)
        elif entry.is_file():
            yield path.absolute(), at / entry.name
