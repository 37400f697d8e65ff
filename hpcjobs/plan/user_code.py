"""Which files are the user's own code: what a program, module or metric can import from its folder.

Folders and import statements are read; nothing is imported or run here.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from hpcjobs.plan.code_tree import OWN, TOP, CodeTree, TooMuchError, module_at
from hpcjobs.run_folder.snapshot import MAX_BYTES, MAX_ENTRIES, MAX_FILES, Snapshot

_MEETS_ITSELF = b"TorchDistributedEnvironment"
_INSTALLED = {"site-packages", "dist-packages"}
_LIMITS = f"more than {MAX_FILES:,} files of Python, {MAX_BYTES // 1_000_000} MB or {MAX_ENTRIES:,} names"


def metric_code(names: Iterable[str], run: Path) -> Snapshot:
    """A snapshot of the modules of `package.module:Class` metrics, and of what they import from their folder.

    The metrics must have been imported. A module of a package stands for the whole package. Installed packages and
    hpcjobs itself are left out.
    """
    found, note = CodeTree(run), ""
    for name in dict.fromkeys(name.partition(":")[0].partition(".")[0] for name in names if ":" in name):
        place = _imported_from(name)
        if place is None or _installed(place):
            continue
        root, part = place.parent, CodeTree(run)
        try:
            part.imports(root, [name], lambda other, at: _imported_from(other) == at)
        except TooMuchError:
            note = f"the code of metric module {name} is not copied: {_LIMITS}"
            continue
        part.link_beside(root)
        found.add(part)
    return found.snapshot(note=note)


def program_code(argv: Sequence[str], folder: Path, run: Path) -> Snapshot:
    """A snapshot of the program that `python argv` runs in `folder`, and of what it can import from its folder.

    `run` is the run folder.
    """
    if argv[0] == "-m":
        return _module_code(argv[1], folder.resolve(), run)
    if argv[0].startswith("-"):
        return Snapshot(note=f"the program's code is not copied: python's option {argv[0]} stands before it")
    program, here = (folder / argv[0]).resolve(), folder.resolve()
    if _installed(program):
        return Snapshot()
    root = program.parent
    at = PurePosixPath(*root.relative_to(here).parts) if root.is_relative_to(here) else TOP
    found, note = _code_beside(program, at, run)
    if root != here:  # the working folder is on the program's path, too
        part = CodeTree(run)
        try:
            part.imports(here, found.imported())
            found.add(part)
        except TooMuchError:
            note = note or f"what the program imports from {here} is not copied: {_LIMITS}"
    also, name = str(root) if note and root != here else "", str(at / program.name)
    return found.snapshot(program=name if name in found.files else "", note=note, also=also)


def _code_beside(program: Path, at: PurePosixPath, run: Path) -> tuple[CodeTree, str]:
    """The program's whole folder; if too large, the program and what it imports; else the program only."""
    root, note = program.parent, ""
    for how in ("all", "imported", "alone"):
        found = CodeTree(run)
        try:
            found.file(program, at / program.name)
            if how == "all":
                found.folder(root, at, top=True)
            elif how == "imported":
                found.imports(root, found.imported(), at=at)
            return found, note
        except TooMuchError:
            what = {"all": "only what the program imports is", "imported": "only the program is"}.get(how, "nothing is")
            note = f"{what} copied from {root}: {_LIMITS}"
    return found, note


def _module_code(module: str, here: Path, run: Path) -> Snapshot:
    top = module.partition(".")[0]
    place = module_at(here, top)
    if place is None or place == OWN:
        return Snapshot()
    found, note = CodeTree(run), ""
    try:
        found.folder(here, TOP, top=True)
    except TooMuchError:
        found, note = CodeTree(run), f"only what {top} imports is copied from {here}: {_LIMITS}"
        try:
            found.imports(here, [top])
        except TooMuchError:
            return Snapshot(note=f"the code of module {top} is not copied: {_LIMITS}")
    return found.snapshot(module=module, note=note)


def meets_itself(argv: Sequence[str], folder: Path) -> bool:
    """Whether a program, or what it imports from its folder, sets its ranks' variables by submitit's helper.

    `TorchDistributedEnvironment().export()` refuses to find them set.
    """
    place = module_at(folder, argv[1].partition(".")[0]) if argv[0] == "-m" else folder / argv[0]
    found = CodeTree(folder)
    if place is None or argv[0].startswith("-") != (argv[0] == "-m"):
        return False
    with contextlib.suppress(TooMuchError):
        if place.is_dir():
            found.folder(place, TOP)
        else:
            found.file(place, PurePosixPath(place.name))
        found.imports(place.parent, found.imported())
    return any(_MEETS_ITSELF in content and _names(content, _MEETS_ITSELF.decode()) for content in found.files.values())


def _names(content: bytes, name: str) -> bool:
    """Whether a program uses this name, not only in a comment or a text."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return False
    fields = ("id", "attr", "name")
    return any(name == getattr(node, field, None) for node in ast.walk(tree) for field in fields)


def _imported_from(name: str) -> Path | None:
    """The file or package folder from which this process imports the top-level module `name`."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.has_location and spec.origin and spec.origin.endswith(".py") else None


def _installed(path: Path) -> bool:
    """Whether a file belongs to Python, an installed package or hpcjobs: these are not copied."""
    path = path.resolve()
    folders = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")]
    programs = {Path(sysconfig.get_path("scripts")).resolve(), Path(sys.executable).parent.resolve()}
    return (
        not _INSTALLED.isdisjoint(path.parts)
        or path.parent in programs
        or any(path.is_relative_to(folder) for folder in (OWN, *folders))
    )
