"""The layout is the architecture: stages import nothing of a later one, and importing does nothing."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import hpcjobs

PACKAGE = Path(hpcjobs.__file__).parent
MODULES = {
    ".".join(("hpcjobs", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# What a model is run with: these begin with torch, and whoever needs one imports it inside a function.
HEAVY = {
    f"hpcjobs.engines.{name}"
    for name in (
        "continuous", "continuous_trial", "generate", "loop.engine", "loop.kvcache", "loop.packed", "loop.places",
        "loop.row", "out_of_memory", "sampling",
        "scoring.boundary", "scoring.engine", "scoring.logit_parts", "scoring.passes", "scoring.sequences",
        "scoring.spans", "scoring.tree",
    )
} | {"hpcjobs.distributed.stream_part"}  # fmt: skip
CONTRIBUTING = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def layers() -> list[set[str]]:
    """The layers as CONTRIBUTING has them, the lowest first: rooms, and the files beside them."""
    block = re.search(r"^```layers\n(.*?)^```$", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    assert block, "CONTRIBUTING.md has no block of layers"
    return [set(line.split()) for line in block.group(1).splitlines()]


LEVEL = {room: number for number, rooms in enumerate(layers()) for room in rooms}


def imports(tree: ast.AST, inside: bool = True) -> Iterator[str]:
    """The modules that are imported: by a type checker too, and in functions where `inside`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not inside:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module or "" for name in names)
        yield from imports(node, inside)


def own_imports(name: str, inside: bool = True) -> set[str]:
    """The modules of hpcjobs that one imports; its `__init__`, which holds the version, is no room."""
    found = set(imports(ast.parse(MODULES[name].read_text()), inside))
    return {module for module in found if module in MODULES and module not in ("hpcjobs", name)}


def room(module: str) -> str:
    """`hpcjobs.worker.eval` -> `worker`."""
    return module.split(".")[1]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The circles of a graph: its strongly connected parts of more than one."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        found, todo = set[str](), [start]
        while todo:
            for other in graph[todo.pop()] - found:
                found.add(other)
                todo.append(other)
        reach[start] = found
    parts = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in graph if a in reach[a]}
    return [list(part) for part in sorted(parts) if len(part) > 1]


GRAPH = {name: own_imports(name) for name in MODULES}


def test_every_room_stands_in_the_layers() -> None:
    assert {room(name) for name in MODULES if name != "hpcjobs"} == set(LEVEL)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "hpcjobs"])
def test_a_room_imports_lower_layers_alone(name: str) -> None:
    """Counted over all imports; rooms of one layer do not import each other."""
    for other in GRAPH[name]:
        assert room(other) == room(name) or LEVEL[room(other)] < LEVEL[room(name)], f"{name} imports {other}"


def test_there_is_no_circle_of_files_and_none_of_rooms() -> None:
    assert circles(GRAPH) == []
    rooms: dict[str, set[str]] = {}
    for name, others in GRAPH.items():
        if name != "hpcjobs":
            rooms.setdefault(room(name), set()).update({room(other) for other in others} - {room(name)})
    assert circles(rooms) == []


def test_the_search_for_circles_finds_them() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [["b", "c"]]


def test_requests_and_errors_import_no_room() -> None:
    assert {room(other) for name in ("errors", "requests") for other in GRAPH[f"hpcjobs.{name}"]} <= {
        "errors",
        "masking",
    }


@pytest.mark.parametrize("name", [name for name in MODULES if name not in HEAVY])
def test_what_begins_with_torch_is_imported_inside_functions(name: str) -> None:
    assert not own_imports(name, inside=False) & HEAVY


IMPORT_ALL = """
import importlib, json, os, signal, sys, threading

def state():
    handlers = [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    return [dict(os.environ), os.getcwd(), threading.active_count(), handlers, sys.path[:]]

before = state()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
assert state() == before, (before, state())
print(*sorted({"torch", "transformers", "accelerate", "datasets"} & sys.modules.keys()))
"""


def test_importing_every_module_does_nothing(tmp_path: Path) -> None:
    """No file, no output, no environment, no thread, no signal handler, no heavy library."""
    names = json.dumps([name for name in MODULES if not name.endswith("__main__") and name not in HEAVY])
    env = os.environ | {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, names],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("\n", "")
    assert list(tmp_path.iterdir()) == []


COMMAND = """
import sys
from hpcjobs.cli import main
code = main(sys.argv[1:])
heavy = sorted({"torch", "transformers", "accelerate", "datasets"} & sys.modules.keys())
print("heavy:", *heavy, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["submit", "--help"],
        ["submit", "eval", "--dry-run", "--set", "model.engine=dummy"],
        ["submit", "eval", "--dry-run", "--set", "model.engine=generate"],
        ["submit", "eval", "--executor", "local", "--dry-run"],
        ["submit", "eval"],
        ["submit", "script", "--", "-m", "json.tool"],
        ["status", "planned"],
        ["runs"],
    ],
    ids=" ".join,
)
def test_what_needs_no_model_imports_no_heavy_library(words: list[str], tmp_path: Path) -> None:
    from tests.fake_slurm import FakeSlurm

    fake = FakeSlurm(tmp_path / "slurm")
    env = os.environ | {"HPCJOBS_RUNS": str(tmp_path / "runs"), "PATH": f"{fake.bin}:{os.environ['PATH']}"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *command],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    if words[0] in ("status", "runs"):
        assert run("submit", "eval", "--name", "planned", "--plan-only").returncode == 0
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "heavy:"


def names_of_jobs(tree: ast.AST) -> Iterator[int]:
    """Lines on which a job's name is compared with a text: `job == "train"`, `plan.job in ("eval", "generate")`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(ast.unparse(side).rpartition(".")[2] == "job" for side in sides) and any(
                isinstance(part, ast.Constant) and isinstance(part.value, str)
                for side in sides
                for part in ast.walk(side)
            ):
                yield node.lineno


@pytest.mark.parametrize("name", MODULES)
def test_stages_decide_by_the_table_of_job_kinds(name: str) -> None:
    assert list(names_of_jobs(ast.parse(MODULES[name].read_text()))) == []


def test_the_search_for_names_of_jobs_finds_them() -> None:
    code = "job == 'train'\nplan.job in ('eval', 'generate')\njob == EVAL.name\n'x' != self.plan.job\nname == 'train'"
    assert list(names_of_jobs(ast.parse(code))) == [1, 2, 4]


RANK_WORDS = (
    "SLURM_",
    "SUBMITIT_",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_",
    "TORCHELASTIC_",
)


def reads_of_the_environment(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that are looked up in os.environ (or a mapping called env): env["X"], env.get("X"), "X" in env."""
    for node in ast.walk(tree):
        key: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and _is_env(node.value):
            key = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            owner = ast.unparse(node.func)
            if (node.func.attr in ("get", "pop") and _is_env(node.func.value)) or owner == "os.getenv":
                key = node.args[0]
        elif isinstance(node, ast.Compare) and any(_is_env(other) for other in node.comparators):
            key = node.left
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value, key.lineno


def _is_env(node: ast.expr) -> bool:
    return ast.unparse(node) in ("os.environ", "environ", "env")


def test_only_rank_reads_the_environment_of_ranks() -> None:
    allowed = {"hpcjobs.distributed.rank"}
    # gloo's interface is chosen once the group's sizes have been exported by Rank itself
    allowed |= {"hpcjobs.distributed.group"}
    # whether the shell is a job's: there SBATCH_* are not the user's
    allowed |= {"hpcjobs.config.shell"}
    for name, path in MODULES.items():
        found = [
            (key, line)
            for key, line in reads_of_the_environment(ast.parse(path.read_text()))
            if key.startswith(RANK_WORDS)
        ]
        assert not found or name in allowed, f"{name} reads {found}: ask hpcjobs.distributed.rank instead"


def test_the_search_for_reads_finds_them() -> None:
    code = "env['RANK']; os.environ.get('SLURM_X'); 'MASTER_ADDR' in env; os.getenv('WORLD_SIZE'); env['RANK'] = '1'"
    assert sorted(key for key, _ in reads_of_the_environment(ast.parse(code))) == [
        "MASTER_ADDR", "RANK", "SLURM_X", "WORLD_SIZE",
    ]  # fmt: skip
