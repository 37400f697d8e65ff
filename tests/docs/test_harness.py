"""The harness itself: what is wrong in a page is found, and nothing is passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.outputs import VARYING, matches, settled, unnoticed
from tests.docs.pages import PageError, read_page
from tests.docs.rewrite import rewrite
from tests.docs.session import Session, faults

PAGE = """\
<!-- session: real -->

`add.py`:

```python
import sys

print("sum", sum(map(int, sys.argv[1:])))
```

```console
$ python add.py 1 2 \\
>     39
sum 42
$ printf 'one\\n2 rows\\nthree\\n'; (exit 3)
...
2 rows
...
$ echo $?
3
$ pwd
/home/me/qa
```

```sh
# what it prints is not shown
mkdir -p out && python add.py 4 > out/sum.json
cd out
```

```console
$ cat sum.json
sum 4
$ cat nothing.txt 2> /dev/null || echo "error: no such file" && false
error: no such file
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.md"


def check(page: Path, text: str, home: str = "me") -> list[str]:
    page.write_text(text)
    return faults(read_page(page), Session(page.parent / home))


def test_a_page_that_is_right_has_no_fault(page: Path) -> None:
    assert check(page, PAGE) == []


@pytest.mark.parametrize(
    ("right", "wrong", "count"),
    [
        ("sum 42", "sum 43", 1),
        ("\n2 rows", "\n3 rows", 1),
        ("?\n3", "?\n4", 1),
        ("sum 4\n$", "sum 4\nsum 4\n$", 1),
        ("sum 42\n", "", 1),
        ("/home/me/qa\n", "/home/you/qa\n", 1),
        ('print("sum"', 'print("some"', 2),
    ],
)
def test_a_wrong_character_is_a_fault(page: Path, right: str, wrong: str, count: int) -> None:
    assert right in PAGE
    assert len(check(page, PAGE.replace(right, wrong, 1))) == count


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("`add.py`:", "A program:", "neither given nor made before: add.py"),
        ("$ cat sum.json", "$ cat some.json", "neither given nor made before: some.json"),
        ("$ echo $?\n3\n", "", "exit code 3"),
        ("$ pwd\n", "$ pwd; false\n", "exit code 1"),
        ("error: no such file\n```", "no such file\n```", "exit code 1"),
        ("cd out", "cd in", "exit code 1"),
    ],
)
def test_a_missing_file_and_a_failed_command_end_the_page(page: Path, right: str, wrong: str, message: str) -> None:
    with pytest.raises(PageError, match=message):
        check(page, PAGE.replace(right, wrong, 1))


@pytest.mark.parametrize("comment", ["<!-- notrun: why -->", "<!-- not run: -->", "<!-- session: slrum -->", "<!--x"])
def test_a_slip_in_a_marker_hides_nothing(page: Path, comment: str) -> None:
    with pytest.raises(PageError):
        check(page, PAGE.replace("```console", f"{comment}\n\n```console", 1))


def test_a_block_that_is_not_run_says_so(page: Path) -> None:
    text = PAGE.replace("```console", "<!-- not run: it would take a day -->\n```console", 1)
    text = text.replace("sum 42", "sum 43")
    assert check(page, text) == []
    assert [block.markers.get("not run") for block in read_page(page).blocks].count("it would take a day") == 1


def test_the_last_digit_is_free_only_where_the_page_says_so(page: Path) -> None:
    text = "```console\n$ echo loss 0.0197, 20 steps\nloss 0.0196, 20 steps\n```\n"
    marked = f"<!-- last digit: other CPUs -->\n{text}"
    assert len(check(page, text)) == 1
    assert check(page, marked, "a") == []
    assert len(check(page, marked.replace("0.0196,", "0.0195,"), "b")) == 1
    assert len(check(page, marked.replace("0.0196, 20", "0.0196, 21"), "c")) == 1


def test_every_figure_is_compared_but_those_of_the_list() -> None:
    line = "complete, 200/200 samples (100%), f1 0.1614  95% [0.1384, 0.1845]  n=200; p=0.00195"
    assert list(unnoticed([line], [line])) == []
    assert settled(line) == line
    varying = [
        "8 ranks, 0.381/s, 5m59s left",
        "2026-01-14 10:15:12",
        "runs/verify-20260114-101512-3f9a",
        "supervisor 123",
        "started slurm: work 3, merge 4",
        "job     3 (work): COMPLETED, node1 [squeue]",
        "[1_0_log.out] rank 0",
        "running, 63/200 samples (32%), 8 ranks live",
        "resume  136 of 200 samples",
        "samples 64 of 200, missing 136, errors 0; tokens 18426 in, 1293 out",
        "f1               0.1722  95% [0.1283, 0.2162]  n=64  INCOMPLETE",
    ]
    assert [line for line in varying if settled(line) == line] == []
    assert len({kind for kind, _, _ in VARYING}) == 7, "the list stays short: think again before it grows"


def test_a_figure_that_could_be_wrong_unnoticed_is_found() -> None:
    """Where lines are left out, another line may be taken for the wrong one."""
    assert list(unnoticed(["...", "rank 1", "..."], ["rank 1", "rank 6"])) == ["rank 6"]
    assert list(unnoticed(["...", "rank 1", "..."], ["rank 1", "rank 2"])) == []


@pytest.mark.parametrize(
    ("shown", "printed", "right"),
    [
        ("...", "", True),
        ("a ...", "a", True),
        ("a ... b", "a x y b", True),
        ("... a ...", "x a y", True),
        ("... a ... b", "a x b", True),
        ("... a ... a", "a", False),
        ("a ... b", "a x y", False),
        ("a b", "a x b", False),
        ("", "a", False),
        ("... b ... a ...", "a b", False),
    ],
)
def test_three_dots_stand_for_any_lines(shown: str, printed: str, right: bool) -> None:
    assert matches(shown.split(), printed.split()) is right


def test_what_is_printed_now_can_be_put_into_the_page(page: Path) -> None:
    """Another word and another figure; what is omitted, and what varies, stays as it was."""
    prints = "printf 'run a\\nmodel b\\njob 1, 0.3/s\\nscore 0.5\\n'"
    page.write_text(f"```console\n$ {prints}\n...\njob 2, 0.9/s\n...\n$ echo 4\n3\n$ true\n```\n")
    typed = list(Session(page.parent / "me").type_page(read_page(page)))
    rewrite(page, [one for one in typed if one.fault is not None])
    assert page.read_text().splitlines()[2:] == ["...", "job 1, 0.3/s", "...", "$ echo 4", "4", "$ true", "```"]
    assert faults(read_page(page), Session(page.parent / "you")) == []
