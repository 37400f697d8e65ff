"""Every fence of a page is a file, typed, checked as a config, or says why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import COMMENT, FENCE, PAGES, ROOT, TYPED, read_page
from tests.docs.session import inputs

# Commands that are typed, and those whose output is compared, in all pages together.
TYPED_AND_COMPARED = (118, 109)
# How many blocks of a page say `not run`; each has its reason in the page.
NOT_RUN = {
    "README.md": 2,
    "compare.md": 1,
    "faults.md": 1,
    "fine-tune.md": 2,
    "how_it_works.md": 2,
    "operate.md": 2,
    "scripts.md": 2,
}
# A block without a name is one of these, or says why it is not run: YAML is checked as a config by test_docs.py.
UNNAMED = ("yaml", "mermaid")


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_every_block_is_typed_written_or_checked(path: Path) -> None:
    blocks = read_page(path).blocks
    loose = [b.line for b in blocks if b.runs and b.name is None and b.language not in (*TYPED, *UNNAMED)]
    assert loose == [], f"{path.name}: lines of blocks that are neither a file nor typed, without <!-- not run: why -->"
    assert [b.line for b in blocks if b.language in TYPED and not b.commands] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_blocks_are_fences(path: Path) -> None:
    """A block by indentation would pass unseen; so would a fence within a list, which is indented as well."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    assert re.findall(r"^(?: {4}|\t).*", text, re.MULTILINE) == []
    assert re.findall(r"^ *(?:```|~~~).*", text, re.MULTILINE) == []


def test_so_much_is_typed_and_compared() -> None:
    typed = [command for path in PAGES for block in read_page(path).blocks if block.runs for command in block.commands]
    compared = [command for command in typed if command.output is not None]
    assert (len(typed), len(compared)) == TYPED_AND_COMPARED


def test_what_is_not_run_is_counted() -> None:
    found = {path.name: sum(not block.runs for block in read_page(path).blocks) for path in PAGES}
    assert {name: number for name, number in found.items() if number} == NOT_RUN


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_a_marker_stands_above_the_block_that_it_is_about(path: Path) -> None:
    page = read_page(path)
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if COMMENT.match(line)]
    assert len(comments) == bool(page.session) + sum(len(block.markers) for block in page.blocks)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_files_of_commands_that_are_not_run_are_given_too(path: Path) -> None:
    given: set[str] = set()
    for block in read_page(path).blocks:
        if block.name is not None:
            given.add(block.name)
        named = set() if block.runs else {word for command in block.commands for word in inputs(command.text)}
        lacking = {
            word for word in named if word not in given and not (ROOT / word.removeprefix("~/hpcjobs/")).exists()
        }
        assert lacking == set()
