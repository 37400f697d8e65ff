"""pyproject.toml declares what hpcjobs imports and nothing else, and CI installs what it declares."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_architecture import MODULES, imports

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# Distributions whose module has another name.
MODULE = {"mlflow-skinny": "mlflow", "pyyaml": "yaml"}
# Declared, and imported by a library on our behalf.
NOT_IMPORTED = {
    "tensorboard": "torch.utils.tensorboard and accelerate's tracker import it",
}


def plain(name: str) -> str:
    """A name of a distribution as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def floors(requirements: list[str]) -> dict[str, str]:
    """The distributions that are required, by plain name, and their lower bounds."""
    pairs = [each.split(",")[0].split(">=") for each in requirements if not each.startswith("hpcjobs[")]
    return {plain(name): floor for name, floor in pairs}


USED = [each for name, extra in EXTRAS.items() if name not in ("test", "reference") for each in extra]
DECLARED = floors([*PROJECT["dependencies"], *USED])
TOOLS, REFERENCES = floors(EXTRAS["test"]), floors(EXTRAS["reference"])
PINNED = {
    plain(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
}
IMPORTED = {
    module.partition(".")[0]
    for path in MODULES.values()
    for module in imports(ast.parse(path.read_text(encoding="utf-8")))
} - {*sys.stdlib_module_names, "hpcjobs", "_typeshed"}  # the last one is type checkers' own


def module(distribution: str) -> str:
    return MODULE.get(distribution, distribution.replace("-", "_"))


def test_every_import_is_declared() -> None:
    assert {module(name) for name in DECLARED} >= IMPORTED


def test_everything_declared_is_imported_or_says_why() -> None:
    assert {name for name in DECLARED if module(name) not in IMPORTED} == set(NOT_IMPORTED)


def test_what_is_pinned_satisfies_what_is_declared() -> None:
    low = {
        name for name, floor in {**DECLARED, **TOOLS, **REFERENCES}.items() if numbers(PINNED[name]) < numbers(floor)
    }
    assert low == set()


def test_the_tests_tools_have_their_pins_as_floors() -> None:
    assert {name: PINNED[name] for name in TOOLS | REFERENCES} == TOOLS | REFERENCES


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def test_lowest_prints_each_floor_once_but_those_of_references() -> None:
    done = subprocess.run([sys.executable, "tools/lowest.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split("==") for line in done.stdout.splitlines()]
    assert {plain(name): version for name, version in lines} == {**DECLARED, **TOOLS}
    assert len(lines) == len(DECLARED) + len(TOOLS)


def test_ci_tests_on_them() -> None:
    assert re.search(r"^make lowest$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^lowest: \$\(LOWEST_STAMP\)$", makefile, re.MULTILINE)
    assert "tools/lowest.py > $(LOWEST_VENV)/floors.txt" in makefile


@pytest.mark.parametrize("path", ["pyproject.toml", "Makefile", "README.md"])
def test_one_oldest_python(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    found = set(re.findall(r"(?:Python |requires-python = \">=|python_version = \")(3\.\d+)", text))
    assert found == {PROJECT["requires-python"].removeprefix(">=")}
