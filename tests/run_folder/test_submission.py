"""What is remembered of the starts of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from hpcjobs.launch.jobs import known_launches
from hpcjobs.run_folder.files import read_json, write_json
from hpcjobs.run_folder.launch_files import LaunchFiles
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import _OWN as OWN
from hpcjobs.run_folder.submission import Launch, next_number, read_launches, record_launch, take_launch, together
from tests.fake_slurm import FakeSlurm


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}:/usr/bin:/bin")
    return fake


def start(number: int, joined: bool = False, executor: str = "slurm", **jobs: str) -> Launch:
    return Launch(number=number, executor=executor, jobs=jobs, shape="1 node", ranks=1, joined=joined)


def test_starts_come_back_as_they_were_and_nobody_rewrites_them(paths: RunPaths) -> None:
    assert read_launches(paths) == []
    first, second = start(0, work="7", merge="8"), start(1, joined=True, join="9")
    for launch in (first, second):
        record_launch(paths, launch)
    assert read_launches(paths) == [first, second]
    assert not take_launch(paths, start(1, work="10")), "the number is taken"
    assert read_launches(paths) == [first, second]
    assert next_number(paths) == 2
    assert [one["number"] for one in read_json(paths.submission)["launches"]] == [0, 1]


def test_a_start_that_was_refused_does_not_count_and_no_other_gets_its_number(paths: RunPaths) -> None:
    launches = [start(number) for number in range(3)]
    for launch in launches:
        record_launch(paths, launch)
    LaunchFiles(paths).mark(1, "void", "refused")
    assert read_launches(paths) == [launches[0], launches[2]]
    LaunchFiles(paths).mark(2, "void", "refused")
    assert (read_launches(paths), next_number(paths)) == ([launches[0]], 3)


def test_a_run_of_an_earlier_version_has_submission_json_alone(paths: RunPaths) -> None:
    """Its launches are read, and go on being so when a new one is recorded beside them."""
    old, new = [start(0, work="7"), start(1, joined=True, join="8")], start(2, work="9")
    values = [{name: value for name, value in asdict(one).items() if name not in OWN} for one in old]
    write_json(paths.submission, {"launches": values})
    assert (read_launches(paths), next_number(paths)) == (old, 2)
    record_launch(paths, new)
    assert read_launches(paths) == [*old, new]
    assert [one["number"] for one in read_json(paths.submission)["launches"]] == [0, 1, 2]


def test_two_jobs_with_one_key_are_both_known(paths: RunPaths) -> None:
    """sbatch was called twice, as its first reply was lost, and both jobs have started."""
    record_launch(paths, start(0, work="99", merge="101"))
    LaunchFiles(paths).note_job(0, "work", "100")
    [launch] = read_launches(paths)
    assert launch.jobs == {"work": "99", "work_100": "100", "merge": "101"}
    assert launch.work_jobs == ["99", "100"]


@pytest.mark.parametrize(
    ("joined", "numbers"),
    [
        ([], []), ([False], [0]), ([False, True], [0, 1]), ([False, True, True], [0, 1, 2]),
        ([False, True, False], [2]), ([False, False, True], [1, 2]), ([True], [0]),
    ],
)  # fmt: skip
def test_those_of_one_round_go_together(joined: list[bool], numbers: list[int]) -> None:
    launches = [start(number, by_join) for number, by_join in enumerate(joined)]
    assert [launch.number for launch in together(launches)] == numbers


def test_the_jobs_with_ranks_are_all_but_the_merge() -> None:
    assert start(0, work="7", work2="8", merge="9").work_jobs == ["7", "8"]
    assert start(1, joined=True, join="7", merge="8").work_jobs == ["7"]


@pytest.mark.parametrize(
    ("attempt", "owned"),
    [
        ("7.0.0", True), ("7.3.1", True), ("7_12.0.0", True), ("8_0.1.0", True), ("77.0.0", False), ("9.0.0", False),
        ("70_1.0.0", False), ("local0t5", False), ("a", False),
    ],
)  # fmt: skip
def test_an_attempt_belongs_to_the_start_whose_job_it_is(attempt: str, owned: bool) -> None:
    assert start(0, work="7", work2="8", merge="9").owns(attempt) is owned


def test_a_local_attempt_has_its_starts_number() -> None:
    assert start(1, executor="local").owns("local1t55")
    assert not start(1, executor="local").owns("local10t55")
    assert not start(1, executor="local").owns("local0t55")
    assert start(0, executor="debug").owns("p5t77")


def test_a_start_with_one_more_job_is_another_value() -> None:
    before = start(0, work="100")
    after = before.with_job("merge", "101")
    assert (before.jobs, after.jobs) == ({"work": "100"}, {"work": "100", "merge": "101"})
    assert after.submitted_at == before.submitted_at


def test_jobs_whose_ids_were_never_heard_are_found_by_their_keys(paths: RunPaths, fake: FakeSlurm) -> None:
    record_launch(
        paths,
        Launch(
            number=0,
            executor="slurm",
            jobs={"work": "100"},
            shape="1 node",
            ranks=1,
            keys={"work": "aa", "merge": "bb"},
        ),
    )
    record_launch(
        paths, Launch(number=1, executor="slurm", jobs={}, shape="1 node", ranks=1, keys={"work": "cc", "merge": "dd"})
    )
    (fake.here / "queue").write_text(
        "101|RUNNING||n1|/r/.submission-bb.sh\n102|PENDING|||/r/.submission-cc.sh\n"
        "103|COMPLETED||n1|/other/.submission-ee.sh\n"
    )
    first, second = known_launches(paths)
    assert (first.jobs, second.jobs) == ({"work": "100", "merge": "101"}, {"work": "102"})
    assert read_launches(paths)[1].jobs == {}, "looking changes nothing"


def test_they_stay_unknown_while_slurm_does_not_answer_or_is_not_here(paths: RunPaths, fake: FakeSlurm) -> None:
    record_launch(paths, Launch(number=0, executor="slurm", jobs={}, shape="1 node", ranks=1, keys={"work": "aa"}))
    fake.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller\n")
    assert known_launches(paths)[0].jobs == {}
    (fake.bin / "squeue").unlink()
    assert known_launches(paths)[0].jobs == {}


def test_where_every_job_is_known_slurm_is_not_asked(paths: RunPaths, fake: FakeSlurm) -> None:
    record_launch(
        paths, Launch(number=0, executor="slurm", jobs={"work": "100"}, shape="1 node", ranks=1, keys={"work": "aa"})
    )
    record_launch(paths, Launch(number=1, executor="local", jobs={"supervisor": "5"}, shape="1 node", ranks=1))
    known_launches(paths)
    assert fake.calls("squeue") == []
