"""The documents say what is there: keys, verbs, options, files and links."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hpcjobs.cli.app import app
from hpcjobs.config.layers import text_layer
from hpcjobs.config.problems import validate
from hpcjobs.config.sbatch_options import OWN
from hpcjobs.config.schema import Config
from hpcjobs.metrics import BUILT_IN, OVER_REPEATS
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.runner import parser
from tests.docs.pages import read_page

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCS = [page for page in PAGES if page.name != "CONTRIBUTING.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIG_PAGE = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
PARSER: Any = typer.main.get_command(app)
VERBS: dict[str, Any] = PARSER.commands
# The checkout, as pages call it.
CHECKOUT = "~/hpcjobs/"
# Options that the documents name and that are not ours: accelerate's, sbatch's and srun's, pip's.
FOREIGN = {"--multi_gpu", "--num_processes", "--cpu", "--no-kill", "--container-image", "--cpu-bind", "--dependency"}


def options(verb: str) -> set[str]:
    """The options of a verb, `--no-...` halves included."""
    found = {word for param in VERBS[verb].params for word in (*param.opts, *param.secondary_opts)}
    return found | {"--debug", "--help"}


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key that a user can write, dotted; the items of a list as `key[].field`."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        nested = model_in(field.annotation)
        if nested is not None and isinstance(field.annotation, type):
            yield from fields(nested, f"{key}.")
            continue
        yield key, field
        if nested is not None:
            yield from fields(nested, f"{key}[].")


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a key holds, itself or in a list or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = [found for arg in get_args(annotation) if (found := model_in(arg)) is not None]
    return models[0] if models else None


def choices(annotation: Any) -> list[str]:
    """The words of a Literal, also within a list or beside None."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for arg in get_args(annotation) for word in choices(arg)]


def rows(page: str) -> dict[str, list[str]]:
    """The table rows of a page whose first cell is code: that code -> the other cells."""
    found: dict[str, list[str]] = {}
    for line in page.splitlines():
        if line.startswith("| `"):
            first, *rest = [cell.strip() for cell in line.strip("|").split(" | ")]
            found[first.strip("` ")] = rest
    return found


def without_blocks(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command line that a page shows, in fences or indented, comments aside."""
    lines = [command.text.replace("\\\n", " ") for command in read_page(page).commands]
    indented = re.findall(r"^    +(?:\$ )?(.*)", without_blocks(page.read_text(encoding="utf-8")), re.MULTILINE)
    for line in [*lines, *indented]:
        if re.match(r"(hpcjobs|python|accelerate|sbatch|make) ", line):
            yield shlex.split(line, comments=True)


COMMANDS = [(page.name, words) for page in PAGES for words in commands(page)]
KEYS = dict(fields(Config))


@pytest.mark.parametrize("key", KEYS)
def test_every_config_key_is_documented_with_its_default_and_choices(key: str) -> None:
    table, field = rows(CONFIG_PAGE), KEYS[key]
    assert key in table, f"docs/config.md has no row for {key}"
    kind, default = table[key][:2]
    assert [word for word in choices(field.annotation) if f"`{word}`" not in kind] == []
    if field.is_required():
        assert default == "required"
        return
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    assert yaml.safe_load(default.strip("`")) == value, f"{key}: the default is {json.dumps(value)}"


def test_the_config_page_names_no_key_that_is_not_there() -> None:
    sections = "|".join(Config.model_fields)
    named = set(re.findall(rf"`((?:{sections})\.[a-z_.\[\]]+)`", CONFIG_PAGE))
    known = {*KEYS, "task.generation"}
    assert {key for key in named if key not in known and not key.startswith("cluster.sbatch.")} == set()


def test_the_refused_sbatch_options_and_the_metrics_are_those_of_the_code() -> None:
    section = CONFIG_PAGE.partition("Refused there")[2].partition("\n## ")[0]
    refused = {word for line in section.splitlines() for word in re.findall(r"`([a-z-]+)`", line.partition(" | ")[0])}
    assert refused == set(OWN)
    table = CONFIG_PAGE.partition("\n## Metrics")[2].partition("\n## ")[0]
    firsts = [line.partition(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    named = {name for first in firsts for name in re.findall(r"`([^`]+)`", first)}
    assert named == {*BUILT_IN, *OVER_REPEATS}


@pytest.mark.parametrize(
    ("page", "example"),
    [
        pytest.param(path.name, block.text, id=f"{path.name}:{block.line}")
        for path in PAGES
        for block in read_page(path).blocks
        if block.language == "yaml"
    ],
)
def test_yaml_examples_are_valid_configs(page: str, example: str) -> None:
    validate(text_layer(example, page))


def test_the_readme_and_the_config_page_have_examples() -> None:
    pages = [read_page(ROOT / name) for name in ("README.md", "docs/config.md")]
    assert [page.name for page in pages if not any(block.language == "yaml" for block in page.blocks)] == []


def test_the_first_example_is_the_shipped_eval_config() -> None:
    example = re.findall(r"^```yaml\n(.*?)^```$", CONFIG_PAGE, re.MULTILINE | re.DOTALL)[0]
    shipped = (ROOT / "configs" / "eval.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(example) == yaml.safe_load(shipped)


def test_python_examples_parse() -> None:
    for page in PAGES:
        for example in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.DOTALL):
            compile(example, page.name, "exec")


@pytest.mark.parametrize(("page", "words"), [pytest.param(*c, id=f"{c[0]}: {' '.join(c[1])[:60]}") for c in COMMANDS])
def test_every_command_that_is_shown_exists(page: str, words: list[str]) -> None:
    program, *rest = words
    if program == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        assert rest[0] in targets
    elif program == "hpcjobs":
        own = rest[: rest.index("--")] if "--" in rest else rest
        assert own[0] in VERBS, f"{page}: no verb {own[0]}"
        given = {word.partition("=")[0] for word in own if word.startswith("-")}
        assert given <= options(own[0]), f"{page}: {' '.join(words)}"
    elif "hpcjobs.runner" in rest:
        known = {word for action in parser()._actions for word in action.option_strings}
        assert {word for word in rest[rest.index("hpcjobs.runner") :] if word.startswith("--")} <= known
    elif program == "sbatch":
        template = next(word for word in rest if word.endswith(".sbatch"))
        assert (ROOT / template.removeprefix(CHECKOUT)).is_file()
    elif program == "python" and rest[0].removeprefix(CHECKOUT).startswith("tools/"):
        assert (ROOT / rest[0].removeprefix(CHECKOUT)).is_file()


def test_every_verb_stands_in_the_readme() -> None:
    table = {word.split()[1] for word in rows(README) if word.startswith("hpcjobs ")}
    assert table == {name for name, verb in VERBS.items() if not verb.hidden}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    ours = set().union(*(options(verb) for verb in VERBS))
    ours |= {word for action in parser()._actions for word in action.option_strings}
    for program in (*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tools").glob("*.py")):
        ours |= set(re.findall(r'add_argument\("(--[a-z][\w-]*)', program.read_text(encoding="utf-8")))
    named = set(re.findall(r"`(--[a-z][\w-]*)", without_blocks(page.read_text(encoding="utf-8"))))
    assert named - ours - FOREIGN == set()


def test_submits_options_stand_in_the_table_of_evaluate() -> None:
    page = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    table = page.partition("\n## Options of `submit`")[2].partition("\n## ")[0]
    named = {word for first in rows(table) for word in re.findall(r"--[a-z][\w-]*", first)}
    assert named == {word for word in options("submit") if word.startswith("--") and word != "--help"}


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 250


def test_files_that_the_documents_name_exist() -> None:
    for page in PAGES:
        text = without_blocks(page.read_text(encoding="utf-8"))
        for name in re.findall(r"`((?:tests|tools|sbatch|configs|hpcjobs|docs)/[\w./]*\w\.\w+)`", text):
            given = f"`{name}`:\n" in text  # the page gives it: its content is the block below
            assert (ROOT / name).is_file() or given or "NAME" in name, f"{page.name} names {name}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    assert [page.name for page in PAGES[2:] if f"(docs/{page.name})" not in README] == []


def test_the_fault_table_names_tests_that_exist() -> None:
    named = re.findall(r"`((?:\w+/)*)(\w+)::(test_\w+)`", (ROOT / "docs" / "faults.md").read_text())
    assert len(named) > 30
    for folder, module, name in named:
        file = ROOT / "tests" / folder / f"test_{module}.py"
        assert f"def {name}(" in file.read_text(), f"{file} has no {name}"


def test_every_state_of_a_rank_is_explained() -> None:
    table = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8").partition("| state | means |")[2]
    firsts = [line.partition(" | ")[0] for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    named = {word for first in firsts for word in re.findall(r"`([^`]+)`", first)}
    assert named == {state.value for state in RankState}
