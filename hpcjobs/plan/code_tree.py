"""Collect the Python files to copy and the other files to link, by what can be imported."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import hpcjobs
from hpcjobs.run_folder.snapshot import MAX_BYTES, MAX_ENTRIES, MAX_FILES, Snapshot

_MAX_LINKS = 1_000
_PASSED_OVER = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
OWN = Path(hpcjobs.__file__).resolve().parent
TOP = PurePosixPath()


class TooMuchError(Exception):
    """More files or bytes than a run folder should hold."""


class CodeTree:
    """Files to copy and names to link, collected within limits. `run` is the run folder, which is never linked."""

    def __init__(self, run: Path) -> None:
        self._run = run.resolve()
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self._size = self._entries = 0

    def add(self, other: CodeTree) -> None:
        """Add what `other` has under names that are still free."""
        self.files = other.files | self.files
        self.links = other.links | self.links

    def snapshot(self, note: str = "", program: str = "", module: str = "", also: str = "") -> Snapshot:
        """Everything collected, as a Snapshot. A name that is copied is not linked."""
        taken = {str(folder) for name in self.files for folder in (PurePosixPath(name), *PurePosixPath(name).parents)}
        links = {name: target for name, target in self.links.items() if name not in taken}
        links = {name: links[name] for name in links if links.keys().isdisjoint(map(str, PurePosixPath(name).parents))}
        if len(links) > _MAX_LINKS:
            links, note = {}, note or f"files beside the code are not linked: more than {_MAX_LINKS:,}"
        if not self.files:
            return Snapshot(note=note)
        return Snapshot(files=self.files, links=links, note=note, program=program, module=module, also=also)

    def _holds_run(self, path: Path) -> bool:
        return self._run.is_relative_to(path.resolve())

    def file(self, path: Path, at: PurePosixPath) -> None:
        """Copy one file. Unreadable files are skipped: they could not be imported either. Raises a TooMuchError."""
        if str(at) in self.files:
            return
        try:
            self._size += path.stat().st_size
            if self._size > MAX_BYTES or len(self.files) >= MAX_FILES:
                raise TooMuchError
            self.files[str(at)] = path.read_bytes()
        except OSError:
            return

    def folder(self, folder: Path, at: PurePosixPath, above: tuple[Path, ...] = (), top: bool = False) -> bool:
        """Copy the Python files of a folder and link the rest; returns whether it has any Python.

        A folder without Python is skipped, unless it is the `top`. Only subfolders whose names can be imported are
        searched. Raises a TooMuchError.
        """
        above, links, any_code = (*above, folder.resolve()), dict[str, str](), top
        for entry in _entries(folder):
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise TooMuchError
            path, inside = folder / entry.name, at / entry.name
            if not entry.is_dir():
                if entry.name.endswith(".py") and entry.is_file():
                    self.file(path, inside)
                    any_code = True
                else:
                    links[str(inside)] = str(path)
            elif not _no_code(path) and path.resolve() not in above:
                if entry.name.isidentifier() and self.folder(path, inside, above):
                    any_code = True
                elif not self._holds_run(path):
                    links[str(inside)] = str(path)
        if any_code:
            self.links |= links
        return any_code

    def imports(
        self,
        root: Path,
        names: Iterable[str],
        accept: Callable[[str, Path], bool] = lambda name, place: True,
        at: PurePosixPath = TOP,
    ) -> None:
        """Copy the modules and packages `names` of the folder `root`, and what they import from there, recursively."""
        todo, seen = list(names), set[str]()
        while todo:
            name = todo.pop()
            place = None if name in seen else module_at(root, name)
            seen.add(name)
            if place is None or place.resolve() == OWN or not accept(name, place):
                continue
            before = set(self.files)
            if place.is_dir():
                self.folder(place, at / name)
            else:
                self.file(place, at / place.name)
            todo += self.imported(set(self.files) - before)

    def imported(self, names: Iterable[str] | None = None) -> list[str]:
        """The top-level modules that the collected files (default: all) import."""
        sources = [self.files[name] for name in (self.files if names is None else names)]
        return sorted({module for source in sources for module in _import_statements(source)})

    def link_beside(self, root: Path) -> None:
        """Link data files and folders beside a copied module, which it may open by its `__file__`."""
        for entry in _entries(root):
            path = root / entry.name
            if entry.is_dir():
                if _no_code(path) or (path / "__init__.py").exists() or self._holds_run(path):
                    continue
            elif entry.name.endswith(".py"):
                continue
            if not any(name.startswith(f"{entry.name}/") for name in self.files):
                self.links[entry.name] = str(path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden names, broken links and folders that never have user code."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name[0] != "." and entry.name not in _PASSED_OVER]
    except OSError:
        return []
    return sorted((entry for entry in found if _is_there(entry)), key=lambda entry: entry.name)


def _is_there(entry: os.DirEntry[str]) -> bool:
    try:
        entry.stat()
    except OSError:
        return False
    return True


def _no_code(folder: Path) -> bool:
    """Whether a folder is a virtual environment, a run folder or hpcjobs itself."""
    marks = ("pyvenv.cfg", "conda-meta", "plan.json")
    return folder.resolve() == OWN or any((folder / mark).exists() for mark in marks)


def module_at(root: Path, name: str) -> Path | None:
    """What `import name` finds in `root`: a package's folder, a file, or a folder without `__init__.py`; None if
    nothing.
    """
    if (root / name / "__init__.py").is_file():
        return root / name
    if (root / f"{name}.py").is_file():
        return root / f"{name}.py"
    return root / name if (root / name).is_dir() and not _no_code(root / name) else None


def _import_statements(source: bytes) -> set[str]:
    """The top-level modules that a file imports, also inside functions; empty if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found
