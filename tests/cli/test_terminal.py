"""No text of a run steers the terminal: ids, answers, errors, names and logs, through every verb, on a real pty."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import pytest

from hpcjobs.cli.terminal import LONGEST, Shown, visible
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import DEADLINE, plan_run, run_ranks

HOSTILE = [
    "\x1b[2J\x1b[H", "\x1b]0;owned\x07", "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "\x1b[31mred", "\x9b31m", "\x1bc",
    "\x1b[6n", "\x1bP+q544e\x1b\\", "\x07bell", "back\x08\x08\x08space", "\rover the line", "\x0bvt\x0cff", "nul\x00l",
    "del\x7f", "\x85next line", "\u2028line\u2029paragraph", "\u202egnp.exe", "\u2066iso\u2069", "\u200fmark\u200e",
    "zero\u200bwidth", "la\u200dtin", "\ufeffbom", "word\u2060joiner", "soft\u00adhyphen", "\U000e0041tag",
    "\x1b[?1049h", "\u061carabic mark", "\x1b[38;5;196m", "\x1b#8", "\x1b[1;1H\x1b[K", "x" * 20_000,
]  # fmt: skip
KEPT = [
    "naïve", "日本語", "العربية", "می\u200cخواهم", "क्\u200dष", "👩\u200d👩\u200d👧", "e\u0301", "→ ±½",
    "tab\tand\nline",
]  # fmt: skip


def test_what_people_write_stays_as_it_is() -> None:
    assert [visible(text) for text in KEPT] == KEPT


@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_each_is_shown_as_an_escape(text: str) -> None:
    shown = visible(text)
    assert shown != text
    assert shown.isprintable()
    if "\\" not in text:
        assert shown.encode("ascii").decode("unicode_escape") == text


def test_a_lone_surrogate_can_be_printed() -> None:
    assert visible("a\ud800b") == "a\\ud800b"


@pytest.mark.parametrize(("cut", "length"), [(True, LONGEST + len("... and 5 more\n")), (False, LONGEST + 6)])
def test_lines_without_end_are_cut_on_a_terminal(cut: bool, length: int) -> None:
    stream = io.StringIO()
    assert Shown(stream, cut).write("x" * (LONGEST + 5) + "\n") == LONGEST + 6
    assert len(stream.getvalue()) == length


def on_a_terminal(*words: str | Path) -> str:
    """What hpcjobs writes to a terminal."""
    ours, terminal = os.openpty()
    found: list[bytes] = []

    def read() -> None:
        while True:
            try:
                block = os.read(ours, 1 << 16)
            except OSError:
                return
            found.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    command = [sys.executable, "-m", "hpcjobs", *map(str, words)]
    env = clean_environment()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=env) as process:
        process.wait(DEADLINE)
    os.close(terminal)
    reader.join(DEADLINE)
    os.close(ours)
    return b"".join(found).decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A merged run whose ids, groups, answers and logs are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = folder / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"id": f"{n} {text}", "q": text, "group": text}) + "\n" for n, text in enumerate(HOSTILE))
    )
    task = {"prompt": "{{ q }}", "target": "{{ q }}", "metrics": ["exact_match"], "group_by": ["group"]}
    paths = plan_run(folder / "run", len(HOSTILE), data={"name": str(rows), "id_column": "id"}, task=task)
    run_ranks(paths, 1)
    log = next(paths.logs.glob("*.log"))
    with log.open("a", encoding="utf-8", errors="surrogatepass") as file:
        for text in HOSTILE:
            file.write(f"2026-11-26T10:00:00.000Z rank 0 ERROR {text.replace(chr(10), ' ')}\n")
    merge(paths)
    return paths


@pytest.mark.parametrize(
    "words",
    [
        ("status",), ("logs",), ("logs", "--errors"), ("merge",), ("score",), ("report",), ("resume",), ("compare",),
        ("cancel",), ("status", "--json"), ("merge", "--json"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_control_byte_reaches_the_terminal(run: RunPaths, words: tuple[str, ...]) -> None:
    twice = [run.root, run.root] if words[0] == "compare" else [run.root]
    said = on_a_terminal(words[0], *twice, *words[1:])
    assert said
    assert not hostile_in(said)
    if words[0] == "logs":
        assert "\\x1b[2J\\x1b[H" in said
        assert "\\u202egnp.exe" in said


@pytest.mark.parametrize("text", ["\x1b[2Jrun", "\u202erun"])
def test_nor_by_the_words_that_are_wrong(tmp_path: Path, text: str) -> None:
    for words in (("status", text), ("submit", "eval", "--set", f"{text}=1"), ("submit", "eval", "--config", text)):
        said = on_a_terminal(*words)
        assert "error" in said.lower() or "Error" in said
        assert not hostile_in(said)


def test_logs_can_be_had_raw(run: RunPaths) -> None:
    assert "\x1b[2J\x1b[H" in on_a_terminal("logs", run.root, "--raw")


def hostile_in(said: str) -> list[str]:
    """The characters that steer or hide; but for our own `\\r\\x1b[K`, and the terminal's `\\r\\n`."""
    said = said.replace("\r\x1b[K", "").replace("\r\n", "\n")
    return [char for char in said if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")]
