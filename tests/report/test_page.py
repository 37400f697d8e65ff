from __future__ import annotations

import dataclasses
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcjobs.commands.merge import merge_and_report
from hpcjobs.commands.submit import Flags, SubmitOptions, draft_of, start
from hpcjobs.report import write_report
from hpcjobs.report.activity import Activity, read_activities
from hpcjobs.report.axis import Axis
from hpcjobs.report.intervals import Intervals
from hpcjobs.report.row_selection import pick_rows, read_rows
from hpcjobs.report.scores import MOST_GROUPS, score_of
from hpcjobs.report.text import WHOLE, Cut, duration, percent, plain, visible
from hpcjobs.report.timeline import SHOWN_ROWS, draw
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.submission import Launch, record_launch

NASTY = [
    "<script>alert(1)</script>", "</style></title><img src=x onerror=alert(1)>", "\" onmouseover='alert(1)' x=\"",
    "nul\x00 bell\x07", "\u202egpj.exe\u202c", "{{ 7 * 7 }}{% raw %}", "]]>&amp;<!--", "long " * 3000,
]  # fmt: skip
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """A page's tags, text and attributes; fails where an element is not closed in its place."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    @property
    def text(self) -> str:
        return "\n".join(text for tag, texts in self.texts.items() if tag != "style" for text in texts)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No launcher's environment, no user's config: the run is this process's own."""
    for name in os.environ:
        if re.match(r"SLURM_|SUBMITIT_|TORCHELASTIC_|RANK$|WORLD_SIZE$|HPCJOBS_", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)


def order(folder: Path, job: str = "eval", sets: list[str] | None = None, **flags: Any) -> SubmitOptions:
    values = {"model": "tiny", "data": "canned_50_quick", "executor": "debug", "gpus": 0, **flags}
    return SubmitOptions(
        job=job,
        config=None,
        profile=None,
        sets=["model.engine=dummy", *(sets or [])],
        flags=Flags(**values),
        sbatch=[],
        argv=[],
        run_dir=folder,
    )


def run(folder: Path, job: str = "eval", sets: list[str] | None = None, **flags: Any) -> RunPaths:
    draft, _ = draft_of(order(folder, job, sets, **flags))
    start(draft)
    return draft.paths


def data_file(folder: Path) -> Path:
    rows = [{"id": f"<b>{n}</b>", "question": text, "answer": NASTY[n - 1]} for n, text in enumerate(NASTY)]
    path = folder / "nasty.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rewrite(journal: Path, **changes: Any) -> None:
    """Change all records of a journal; a value may be a function of the record."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line |= {key: value(line) if callable(value) else value for key, value in changes.items()}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


def vitals(rank: int, start: float, ready: float | None, end: float | None, **more: Any) -> Vitals:
    values: dict[str, Any] = {"state": "done" if end else "working", "host": f"node{rank}", "world_size": 4}
    values |= {"started_at": start, "ready_at": ready, "ended_at": end, "beat_at": end or start + 50}
    return Vitals(rank=rank, attempt="7.0.0", identity=Identity.own().values(), **values | more)


def beat(paths: RunPaths, one: Vitals) -> None:
    path = paths.heartbeat(one.attempt, one.rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(one)))


def journal(paths: RunPaths, rank: int, spans: list[tuple[float, float]]) -> None:
    path = paths.journal("7.0.0", rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [
        Record(
            index=n,
            id=str(n),
            chunk=0,
            generation=0,
            completion="x",
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=10,
            rank=rank,
            attempt="7.0.0",
            seconds=b - a,
            started_at=a,
        )
        for n, (a, b) in enumerate(spans)
    ]
    path.write_bytes(b"".join(record.line() for record in records))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", "/nonexistent")
        patch.setenv("OMP_NUM_THREADS", "1")
        return run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def copy(whole: RunPaths, tmp_path: Path) -> RunPaths:
    return RunPaths(Path(shutil.copytree(whole.root, tmp_path / "copy")))


def test_the_page_needs_nothing_but_itself(whole: RunPaths) -> None:
    page = Page(whole.report)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "img", "base", "form"), tag
        assert not attributes.keys() & {"src", "srcset", "data", "action", "xlink:href"}, attributes
        assert (attributes.get("href") or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", page.source)
    policies = [attributes["content"] or "" for _, attributes in page.tags if "http-equiv" in attributes]
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def test_a_complete_run_says_so_and_shows_its_scores(whole: RunPaths) -> None:
    page = Page(whole.report)
    value = json.loads(whole.metrics.read_text())["metrics"]["contains"]["value"]
    assert "COMPLETE" in page.texts["p"]
    assert "INCOMPLETE" not in page.source
    assert f"{value:.4f}" in page.text
    assert page.texts["title"][0] == "whole"
    assert whole.report.stat().st_mode & 0o777 == 0o600


def test_tables_name_their_columns(whole: RunPaths) -> None:
    headers = [attributes for tag, attributes in Page(whole.report).tags if tag == "th"]
    assert headers
    assert all(attributes.get("scope") in ("col", "row") for attributes in headers)


def test_every_score_of_an_incomplete_run_is_marked(tmp_path: Path) -> None:
    paths = run(tmp_path / "part", sets=["task.metrics=[exact_match, contains, f1]"])
    path = paths.journals()[0]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:30]))
    paths.metrics.unlink()
    merge_and_report(paths)
    page = Page(paths.report)
    assert page.texts["title"][0] == "INCOMPLETE: part"
    assert "INCOMPLETE" in page.texts["p"]
    assert page.texts["strong"].count("INCOMPLETE: 20 of 50 missing") == 3
    assert f"hpcjobs resume {paths.root}" in page.texts["code"]
    assert "20 of 50 samples have no result" in page.text
    assert "20 rows without an accepted result" in page.text
    assert "has no record of it" in page.text
    assert "started again" not in page.text
    record_launch(paths, Launch(number=1, executor="local", jobs={"supervisor": "1"}, shape="1 node", ranks=1))
    assert "The run was started again after this merge" in Page(write_report(paths)).text


def test_many_missing_rows_are_counted_not_listed(tmp_path: Path) -> None:
    paths = run(tmp_path / "lost", data="unified", max_samples=60)
    paths.journals()[0].unlink()
    paths.metrics.unlink()
    merge_and_report(paths)
    page = Page(paths.report)
    assert "60 rows without an accepted result; the first 50 are shown" in page.text
    assert page.text.count("is gone") >= 50


def test_texts_of_models_and_data_are_escaped(tmp_path: Path) -> None:
    paths = run(tmp_path / "nasty", data=str(data_file(tmp_path)))
    path = paths.journals()[0]
    error = {"type": "<i>Bad</i>", "message": NASTY[0]}
    rewrite(path, completion=lambda r: NASTY[r["index"]], error=lambda r: error if r["index"] == 1 else None)
    rewrite(path, finish_reason="<u>")
    merge_and_report(paths)
    page = Page(paths.report)
    assert not {tag for tag, _ in page.tags} & {"script", "img", "i", "u"}
    assert "<script>alert(1)</script>" in page.text
    assert "<i>Bad</i>" in page.text
    assert NASTY[5] in page.text
    assert not re.search("[\x00\x07\u202e]", page.source)
    assert {"U+0000", "U+0007", "U+202E"} <= set(page.texts["span"])
    assert "all 15,000 characters" in page.text
    assert page.source.count("long " * 3000) == 0


def test_heartbeats_are_escaped_in_drawing_and_table(copy: RunPaths) -> None:
    beat(copy, vitals(1, 100.0, 101.0, 102.0, host='<script>"\u202e\ud800', first_error="\ud800<script>"))
    page = Page(write_report(copy))
    assert "script" not in {tag for tag, _ in page.tags}
    assert "U+202E" in page.text
    assert "\u202e" not in page.source


@pytest.mark.parametrize(("job", "sets", "samples", "said"), [
    ("eval", [], 0, "There were no rows."),
    ("generate", ["task.messages=[{role: user, content: '{{ question }}'}]"], 3, "completions without scoring"),
])  # fmt: skip
def test_runs_without_scores(tmp_path: Path, job: str, sets: list[str], samples: int, said: str) -> None:
    page = Page(run(tmp_path / "run", job, sets, max_samples=samples).report)
    assert said in page.text
    assert "INCOMPLETE" not in page.source
    assert ("FAILED" in page.source) == (not samples)


def test_a_turn_that_only_calls_a_tool_is_shown_by_its_call(tmp_path: Path) -> None:
    data, calls = tmp_path / "calls.jsonl", [{"type": "function", "function": {"name": "weather", "arguments": {}}}]
    user, call = {"role": "user", "content": "Rain?"}, {"role": "assistant", "tool_calls": calls}
    rows = [{"messages": [user, call]}, {"messages": [user, {"content": None, **call}]}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = run(tmp_path / "run", "generate", ["task.messages=null"], model="", data=str(data))
    assert Page(paths.report).text.count(json.dumps(calls)) >= 2


def test_a_run_without_results_says_so_and_what_to_do(tmp_path: Path) -> None:
    draft, _ = draft_of(order(tmp_path / "planned"))
    draft.write()
    page = Page(write_report(draft.paths))
    assert page.texts["title"][0] == "NO RESULTS YET: planned"
    assert f"hpcjobs status {draft.paths.root}" in page.texts["code"]
    beat(draft.paths, vitals(0, 100.0, 101.0, 110.0))
    journal(draft.paths, 0, [(102.0, 104.0)])
    page = Page(write_report(draft.paths))
    assert f"hpcjobs merge {draft.paths.root}" in page.texts["code"]
    assert "have 1 sample for 50 rows" in page.text


def test_files_that_are_gone_are_said(copy: RunPaths) -> None:
    paths = copy
    paths.results.unlink()
    paths.config.write_text("nonsense: 1\n")
    shutil.rmtree(paths.heartbeats)
    page = Page(write_report(paths))
    assert "results.parquet is gone" in page.text
    assert "config.yaml cannot be read" in page.text
    assert "no heartbeat" in page.text


def test_a_script_run_is_judged_by_its_ranks(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("")
    draft, _ = draft_of(dataclasses.replace(order(tmp_path / "script", "script"), argv=["program.py"]))
    start(draft)
    page = Page(write_report(draft.paths))
    assert "1 of 1 rank ended well." in page.text
    assert "COMPLETE" in page.texts["p"]


def test_a_ranks_time_is_load_work_and_idle(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    beat(paths, vitals(0, 1000.0, 1010.0, 1050.0))
    journal(paths, 0, [(1012.0, 1020.0), (1018.0, 1022.0), (1030.0, 1031.0), (1030.5, 1040.0), (5.0, 6.0)])
    (one,), notes = read_activities(paths, 5.0)
    assert one.parts("load").tolist() == [[1000, 1010]]
    assert one.parts("work").tolist() == [[1012, 1022], [1030, 1040]]
    assert one.parts("idle").tolist() == [[1010, 1012], [1022, 1030], [1040, 1050]]
    assert (one.load, one.busy, one.idle, one.samples, one.tokens) == (10, 20, 20, 5, 50)
    assert (one.state, notes) == ("done", [])


def test_the_bar_has_the_ranks_times(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    beat(paths, vitals(0, 1000.0, 1010.0, 1100.0))
    journal(paths, 0, [(1020.0, 1040.0), (1060.0, 1100.0)])
    timeline = draw(read_activities(paths, 5.0)[0])
    assert timeline is not None
    (bar,) = timeline.bars
    boxes = [(float(x), float(w)) for x, w in re.findall(r"M([\d.]+) [\d.]+h([\d.]+)", bar.paths["work"])]
    scale = (1000 - 150 - 24) / 100
    expected = np.array([(150 + 20 * scale, 20 * scale), (150 + 60 * scale, 40 * scale)])
    assert np.allclose(boxes, expected, atol=0.06)
    assert [tick.label for tick in timeline.ticks] == ["0 s", "15 s", "30 s", "45 s", "60 s", "75 s", "90 s"]
    assert "10 s loading" in bar.title.replace("10.0", "10")


def test_a_rank_that_never_ended_is_marked(copy: RunPaths) -> None:
    paths, now = copy, time.time()
    beat(paths, vitals(1, now - 300, now - 290, None, beat_at=now - 200, samples=3))
    beat(paths, vitals(2, now - 100, now - 90, None, beat_at=now, state="waiting"))
    found = {one.rank: one for one in read_activities(paths, 5.0)[0] if one.attempt == "7.0.0"}
    assert (found[1].state, found[1].lost, found[1].known) == ("silent", True, False)
    assert (found[2].state, found[2].lost, found[2].live) == ("waiting", False, True)
    assert found[1].parts("unknown").tolist() == [[now - 290, now - 200]]
    page = Page(write_report(paths))
    assert "✕ silent" in page.text
    assert "1 rank was lost on the way" in page.text


def test_who_drained_is_not_lost_and_who_was_killed_says_by_what(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    beat(paths, vitals(0, 0.0, 1.0, 50.0, state="drained", ended="drained: the time limit"))
    beat(paths, vitals(1, 0.0, 1.0, 50.0, state="dead", ended="ended by SIGKILL", signal="SIGKILL"))
    drained, killed = read_activities(paths, 5.0)[0]
    assert (drained.state, drained.lost, drained.live) == ("drained", False, False)
    assert (killed.state, killed.lost, killed.live) == ("dead", True, False)
    assert killed.ended == "ended by SIGKILL"


def test_a_broken_journal_costs_its_counts_not_the_page(copy: RunPaths) -> None:
    copy.journal("7.0.0", 9).write_bytes(b"{}\n")
    assert "broken record at offset 0" in Page(write_report(copy)).text


def test_many_ranks_show_the_idlest_and_all_together() -> None:
    ranks = [
        Activity(
            attempt="7.0.0",
            rank=rank,
            host=f"node{rank}",
            device="cuda:0",
            state=RankState.DEAD if rank == 77 else RankState.DONE,
            first_error=None,
            start=0.0,
            ready=10.0,
            end=100.0,
            samples=5,
            work=np.array([[10.0, 90.0 - rank / 10]]),
            busy=80.0 - rank / 10,
            journal="read",
        )
        for rank in range(300)
    ]
    timeline = draw(ranks)
    assert timeline is not None
    assert (len(timeline.bars), timeline.left_out, timeline.most) == (SHOWN_ROWS, 300 - SHOWN_ROWS, 300)
    assert [bar.label for bar in timeline.bars] == ["rank 77", *(f"rank {n}" for n in range(300 - SHOWN_ROWS + 1, 300))]
    assert timeline.bars[0].lost == "dead"
    assert set(timeline.areas) == {"load", "work", "idle"}


def test_intervals_are_the_union() -> None:
    random, union, covered = np.random.default_rng(0), Intervals(), np.zeros(1000, bool)
    for low, length in zip(random.integers(0, 900, 300).tolist(), random.integers(1, 9, 300).tolist(), strict=True):
        union.add(low, low + length)
        covered[low : low + length] = True
        assert union.total == covered.sum()
    assert all(union.array()[1:, 0] > union.array()[:-1, 1])


def test_intervals_stay_few_and_their_total_exact() -> None:
    union = Intervals(most=10)
    for number in range(5000):
        union.add(number + (100 if number > 2500 else 0), number + (100 if number > 2500 else 0) + 0.5)
    parts = union.array()
    assert len(parts) <= 20
    assert union.total == pytest.approx(2500)
    assert (parts[:, 0] == 2601).any()  # the wide gap is kept


def test_long_pauses_are_folded() -> None:
    axis = Axis(np.array([[0.0, 100.0], [90.0, 120.0], [86400.0, 86500.0]]), 0, 1000)
    places = axis.x(np.array([0.0, 120.0, 86400.0, 86500.0]))
    assert places.tolist() == pytest.approx([0, 964 * 120 / 220, 964 * 120 / 220 + 36, 1000])
    assert [fold.label for fold in axis.folds] == ["23 h 58 min in which nothing ran"]
    assert [tick.label for tick in axis.ticks][-2:] == ["+60 s", "+90 s"]
    assert "1 d 00 h" in [tick.label for tick in axis.ticks]


def test_rows_to_show_are_picked_without_reading_all(tmp_path: Path) -> None:
    paths = run(tmp_path / "picks", data="unified", max_samples=120)
    scores = {5: 0.25, 6: 0.0, 100: 0.0}
    error = {"type": "ValueError", "message": "no"}
    rewrite(
        paths.journals()[0], scores=lambda r: {"exact_match": 0.0, "contains": scores.get(r["index"], 1.0)},
        error=lambda r: error if r["index"] % 2 == 1 and r["index"] != 5 else None,
    )  # fmt: skip
    merge_and_report(paths)
    picks = pick_rows(paths.results)
    assert (picks.failed, picks.failed_in_all) == ([1, 3, *range(7, 103, 2)], 59)
    assert (picks.metric, picks.worst, picks.worst_in_all) == ("contains", [6, 100, 5], 2)
    assert (len(picks.spread), picks.spread[0], picks.spread[-1]) == (20, 0, 119)
    assert [(n, row["index"]) for n, row in read_rows(paths.results, [100, 6, 119])] == [(6, 6), (100, 100), (119, 119)]
    shown = "59 rows ended in an error, or have no score of a metric that failed; the first 50 are shown"
    assert shown in Page(paths.report).text


def test_heartbeat_of_a_worker_is_read_as_done(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.heartbeats.mkdir()
    with Heartbeat(paths.heartbeat("7.0.0", 0), vitals(0, time.time(), None, None), 5.0):
        pass
    (one,), _ = read_activities(paths, 5.0)
    assert (one.state, one.load) == ("done", one.seconds)


def test_hidden_characters_are_shown() -> None:
    assert visible("a<\u202e\u200d") == 'a&lt;<span class="hidden" title="RIGHT-TO-LEFT OVERRIDE">U+202E</span>\u200d'
    assert plain('"\x00') == "&#34;U+0000"


def test_long_texts_are_cut_and_counted() -> None:
    cut = Cut.of("x" * 10_000)
    assert cut.whole is not None
    assert (len(cut.whole), cut.length, cut.shown) == (WHOLE, 10_000, WHOLE)
    assert Cut.of("short").whole is None


def test_numbers_for_people() -> None:
    assert [percent(share) for share in (0, 0.0001, 0.5, 0.9999, 1)] == ["0%", "0.1%", "50%", "99.9%", "100%"]
    assert [duration(s) for s in (0.25, 12.34, 245)] == ["0.25 s", "12.3 s", "4 min 05 s"]
    assert [duration(s) for s in (7500, 270_000)] == ["2 h 05 min", "3 d 03 h"]


def test_groups_and_options_are_tables(copy: RunPaths) -> None:
    values = json.loads(copy.metrics.read_text())
    score = values["metrics"]["contains"]
    values["metrics"]["acc"] = score | {"by_option": {"A": {"value": 0.125, "n": 71}, "B": {"value": 1.0, "n": 3}}}
    some = {f"<i>{number}</i>": {"contains": score | {"n": number}} for number in range(MOST_GROUPS + 7)}
    values["groups"] = {"subject": some, "level": {"7": {"contains": score}}}
    copy.metrics.write_text(json.dumps(values))
    page = Page(write_report(copy))
    assert {"A (n=71)", "B (n=3)", "0.1250"} <= set(page.texts["th"]) | set(page.texts["td"])
    low, high = score["bootstrap_ci95"]
    assert f"{low:.4f} to {high:.4f}" in page.text
    assert f"subject: 107 values, the first {MOST_GROUPS} are shown" in " ".join(page.text.split())
    assert "level: 1 value" in page.text
    assert "<i>" not in page.source
    assert f"<i>{MOST_GROUPS - 1}</i>" in page.text
    assert f"<i>{MOST_GROUPS}</i>" not in page.text


def test_a_scores_bar_stays_on_its_scale() -> None:
    score = score_of("bleu", {"value": 31.5, "stderr": 1.0, "ci95": [29.5, 133.5], "n": 5})
    assert (score.scale, score.bar, score.whisker) == (100, 31.5, (29.5, 100))
    assert score_of("x", {"value": -1.0, "stderr": None, "ci95": None, "n": 1}).bar is None


def test_a_report_needs_no_torch() -> None:
    code = "import sys, hpcjobs.report.page; sys.exit(bool({'torch', 'transformers', 'datasets'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
