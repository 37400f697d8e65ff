"""What the code of an lm_eval task does when it is imported, as far as its text shows: download, or start programs."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpcjobs.tasks.lmeval.user_files import modules_of

# Ends of the names of calls that go to the network or start programs.
_DOWNLOADS = (
    "nltk.download", "evaluate.load", "spacy.load", "load_dataset", "hf_hub_download", "snapshot_download",
    "from_pretrained", "urlopen", "urlretrieve", "requests.get", "requests.post", "wget.download", "gdown.download",
)  # fmt: skip
_PROGRAMS = (
    "subprocess.run", "subprocess.call", "check_call", "check_output", "subprocess.Popen", "os.system", "os.popen",
)  # fmt: skip
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def import_notes(yamls: Iterable[Path]) -> list[str]:
    """A line for each Python file of these tasks that downloads or starts programs when it is imported."""
    notes = list[str]()
    for path in _with_imports([module for yaml in yamls for module in modules_of(yaml)]):
        calls = dict(reversed(list(_calls(path))))  # the first of each name
        for does, names in (("downloads", _DOWNLOADS), ("starts programs", _PROGRAMS)):
            found = [f"{name}, line {line}" for name, line in calls.items() if name.endswith(names)]
            if found:
                advice = ": nodes need its files in their caches, or a network" if does == "downloads" else ""
                notes.append(f"{path} {does} when it is imported, in each rank too ({'; '.join(found)}){advice}")
    return notes


def _with_imports(modules: Iterable[Path]) -> list[Path]:
    """The modules and those that they import from their folder or from lm_eval's tasks."""
    found, left = dict[Path, None](), list(modules)
    while left:
        path = left.pop(0).resolve()
        if path not in found:
            found[path] = None
            left += _imported(path)
    return list(found)


def _imported(path: Path) -> Iterator[Path]:
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = f"{node.module}." if node.module else ""
            names = [start + alias.name for alias in node.names] + [node.module or ""]
        else:
            continue
        level = node.level if isinstance(node, ast.ImportFrom) else 0
        yield from (file for name in names for file in _files(name, path, level))


def _files(name: str, importer: Path, level: int) -> Iterator[Path]:
    folders = [importer.parents[max(0, level - 1)]]
    if name.startswith("lm_eval.tasks."):
        spec = importlib.util.find_spec("lm_eval")
        folders = [Path(place).parent for place in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        file = folder / f"{name.replace('.', '/')}.py"
        if name and file.is_file():
            yield file


def _calls(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of the calls that importing a module makes, functions of its own that it calls included."""
    module = _parsed(path)
    own = {node.name: node for node in ast.walk(module) if isinstance(node, _FUNCTIONS)}
    entered, left = set[str](), list[ast.AST](module.body)
    while left:
        node = left.pop(0)
        if isinstance(node, _FUNCTIONS | ast.Lambda):
            continue  # made, not run
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            yield name, node.lineno
            if name in own and name not in entered:
                entered.add(name)
                left += own[name].body
        left += ast.iter_child_nodes(node)


def _dotted(node: ast.expr) -> str:
    parts = list[str]()
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "", *reversed(parts)])


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # its import says it better
        return ast.Module(body=[], type_ignores=[])
