"""verify's flow: which shapes, what is refused, what is queued before anything is waited for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.commands.submit import Flags, SubmitOptions
from hpcjobs.commands.verify import judge, parse_sizes, shape_flags
from hpcjobs.config import Config
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.config.resolve import read_config
from hpcjobs.errors import DiskFullError, UsageError
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.paths import RunPaths
from tests.disks import small_disk
from tests.fake_slurm import Shell
from tests.runs import plan_run, run_ranks

YAML = """
model: {engine: dummy}
data: {name: canned_50_quick}
task: {prompt: "{{ question }}", target: "{{ answer }}", metrics: [exact_match]}
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.write("c.yaml", YAML)
    return shell


def config_of(gpus_per_rank: int = 1, **cluster: Any) -> Config:
    return validate(Layer({"model": {"gpus_per_rank": gpus_per_rank}, "cluster": cluster}))


@pytest.mark.parametrize(("text", "sizes"), [("1,2,4", [1, 2, 4]), ("4, 1", [4, 1]), (" 16 ,3", [16, 3])])
def test_world_sizes_are_numbers_in_the_order_that_was_given(text: str, sizes: list[int]) -> None:
    assert parse_sizes(text) == sizes


WRONG = [
    "",
    " ",
    ",",
    "1,",
    "1,,2",
    "a",
    "1,b",
    "0",
    "0,1",
    "-1,2",
    "1.5,2",
    "1,2,1",
    "01,1",
    "²,1",
    "1;2",
    "1",
    "1_0,2",
]


@pytest.mark.parametrize("text", WRONG)
def test_other_world_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--world-sizes {text!r}") + ".*1,2,4"):
        parse_sizes(text)


@pytest.mark.parametrize(
    ("config", "size", "flags"),
    [
        (config_of(), 4, (1, 0, 4)),
        (config_of(nodes=2), 4, (2, 0, 2)),
        (config_of(nodes=2), 1, (1, 0, 1)),
        (config_of(nodes=2), 3, (1, 0, 3)),
        (config_of(nodes=4), 2, (1, 0, 2)),
        (config_of(gpus=0, ntasks_per_node=8), 2, (1, 0, 2)),
        (config_of(gpus=8, nodes=2), 4, (2, 4, 2)),
        (config_of(gpus_per_node=4), 2, (1, 2, 2)),
        (config_of(gpus_per_node=0), 2, (1, 0, 2)),
        (config_of(2, gpus=8, nodes=2), 2, (2, 4, 1)),
        (config_of(2, gpus_per_node=4, nodes=2), 1, (1, 2, 1)),
    ],
)
def test_shapes_keep_to_the_configs_gpus_and_nodes(config: Config, size: int, flags: tuple[int, int, int]) -> None:
    found = shape_flags(config, size)
    assert (found["nodes"], found["gpus"], found["ntasks_per_node"]) == flags


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope.yaml", "--world-sizes", "1,2"], "config file nope.yaml does not exist"),
        (["c.yaml", "--world-sizes", "1,x"], "'x' is no number of ranks"),
        (["c.yaml", "--world-sizes", "1,2", "--job", "evil"], "did you mean 'eval'"),
        (["c.yaml", "--world-sizes", "1,2", "--job", "script"], "it has: eval, generate"),
        (["c.yaml", "--world-sizes", "1,2", "--executor", "debug"], "use --executor local"),
        (["c.yaml", "--world-sizes", "1,2", "--set", "run.detreministic=true"], "did you mean 'deterministic'"),
        (["c.yaml", "--world-sizes", "1,2", "--run-dir", "taken"], "taken/w2 exists"),
        (["c.yaml", "--world-sizes", "1,2", "--data", "nope.jsonl"], "nope.jsonl"),
    ],
)
def test_wrong_usage_queues_and_writes_nothing(shell: Shell, words: list[str], said: str) -> None:
    (shell.home / "taken" / "w2").mkdir(parents=True)
    done = shell.run("verify", *words)
    assert (done.code, done.out) == (2, ""), done
    assert said in done.message
    assert shell.slurm.calls("sbatch") == []
    assert shell.left() == []
    assert list((shell.home / "taken").iterdir()) == [shell.home / "taken" / "w2"]


def test_a_verify_without_config_or_world_sizes_is_wrong_usage(shell: Shell) -> None:
    assert shell.run("verify").code == 2
    done = shell.run("verify", "c.yaml")
    assert done.code == 2
    assert "--world-sizes" in done.err


def test_all_runs_are_queued_before_the_first_is_waited_for(shell: Shell) -> None:
    """The jobs of this Slurm end at once: each run has failed, and the command says so."""
    jobs = range(100, 106)
    shell.slurm.show_late(jobs=99)
    shell.slurm.answer("sacct", "".join(f"{job}|FAILED|n1|1:0\n" for job in jobs))
    flags = ("--nodes", "2", "--partition", "p", "--time", "7", "--set", "cluster.gpus_per_node=4")
    done = shell.run("verify", "c.yaml", "--world-sizes", "1,2,4", "--run-dir", "v", *flags)
    assert done.code == 1, done
    configs = [config_at(shell, size) for size in (1, 2, 4)]
    shapes = [(config.cluster.nodes, config.cluster.gpus) for config in configs]
    assert shapes == [(1, 1), (2, 2), (2, 4)]
    assert {(c.cluster.partition, c.cluster.time) for c in configs} == {("p", "7")}
    assert len([job for job in jobs if (shell.slurm.here / "scripts" / str(job)).exists()]) == 6
    assert "w4" in done.out
    assert "nothing to compare" in done.out


def test_a_world_size_is_one_job_though_the_config_has_an_array(shell: Shell) -> None:
    shell.slurm.refuse("no", after=2)
    shell.run("verify", "c.yaml", "--world-sizes", "4,2", "--run-dir", "v", "--set", "cluster.array=8")
    plan = json.loads((shell.home / "v" / "w4" / "plan.json").read_text())
    assert (config_at(shell, 4).cluster.array, plan["shape"]["ranks_per_node"]) == (None, 4)


def config_at(shell: Shell, size: int) -> Config:
    return read_config(RunPaths(shell.home / "v" / f"w{size}").config)


def test_where_the_queue_refuses_one_the_others_are_cancelled(shell: Shell) -> None:
    shell.slurm.answer("squeue", "100|PENDING|Priority|\n101|PENDING|Dependency|\n")
    shell.slurm.refuse("sbatch: error: QOSMaxSubmitJobPerUserLimit", after=2)
    done = shell.run("verify", "c.yaml", "--world-sizes", "1,2,4", "--run-dir", "v")
    assert done.code == 1, done
    assert "world size 2: " in done.err
    assert "QOSMaxSubmitJobPerUserLimit" in done.err
    assert f"the runs before it were cancelled: {shell.home}/v/w1" in done.err
    assert shell.slurm.calls("scancel")
    assert sorted(path.name for path in (shell.home / "v").iterdir()) == ["w1"]


def test_where_the_queue_refuses_the_first_nothing_is_left(shell: Shell) -> None:
    shell.slurm.refuse("sbatch: error: invalid partition")
    done = shell.run("verify", "c.yaml", "--world-sizes", "1,2")
    assert done.code == 1
    assert shell.left() == []


def test_the_made_up_folder_stands_under_the_runs_root(shell: Shell) -> None:
    shell.slurm.refuse("no", after=2)
    shell.run("verify", "c.yaml", "--world-sizes", "1,2")
    [name] = shell.left()
    assert re.fullmatch(r"verify-\d{8}-\d{6}-[0-9a-f]{4}", name)
    assert json.loads((shell.runs / name / "w1" / "plan.json").read_text())["run"] == "w1"


def test_where_the_disk_is_full_the_flips_are_told_missing_and_nothing_half_written_stays(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        folder, runs = disk.path / "v", dict[int, RunPaths]()
        for size, prompt in ((1, "{{ question }}"), (2, "{{ question }}!")):
            runs[size] = plan_run(folder / f"w{size}", 25, task={"prompt": prompt})
            run_ranks(runs[size], size)
            assert merge(runs[size]).complete
        order, before = (
            SubmitOptions(
                job="eval", config=None, profile=None, sets=[], flags=Flags(), sbatch=[], argv=[], run_dir=folder
            ),
            sorted(folder.iterdir()),
        )
        disk.fill()
        with pytest.raises(DiskFullError) as caught:
            judge(runs, order, 3)
        assert f"{folder}/flips.jsonl cannot be written: No space left on device" in str(caught.value)
        assert str(caught.value).endswith("free space there, then: the same command with another --run-dir")
        assert sorted(folder.iterdir()) == before
        disk.clear()
        verdict = judge(runs, order, 3)
        lines = verdict.flips.read_text().splitlines()
        assert (verdict.differ, len(verdict.first_flips), len(lines)) == (25, 3, 25)
