"""--sbatch and SBATCH_*: every option of sbatch works, or is refused with the key to set."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from hpcjobs.config.layers import dotted_layer
from hpcjobs.config.problems import validate
from hpcjobs.config.resolve import resolve
from hpcjobs.config.sbatch_options import LONG, OWN, SHORT
from hpcjobs.config.shape import shape_of
from hpcjobs.config.shell import shell_notes
from hpcjobs.errors import ConfigError
from hpcjobs.launch.sbatch import scripts
from hpcjobs.run_folder.paths import RunPaths
from tests.fake_slurm import Shell
from tests.runs import config_of


def refusal(key: str, value: object = "1") -> str:
    """What is said to an option of sbatch; empty if it is taken."""
    try:
        validate(dotted_layer({f"cluster.sbatch.{key}": value}, "--sbatch"))
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("key", sorted(LONG))
def test_each_option_is_taken_or_refused_with_what_to_do(key: str) -> None:
    said = refusal(key)
    assert bool(said) == (key in OWN)
    if said:
        assert f"sbatch option {key!r} is not for cluster.sbatch: " in said
        assert OWN[key] in said or OWN[key] == "nothing"
        assert refusal(key.replace("-", "_"))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("a", "'a' (array) is not for cluster.sbatch: set cluster.array"), ("arra", "'arra' (array)"),
        ("N", "set cluster.nodes"), ("G", "set cluster.gpus"), ("t", "set cluster.time"), ("tim", ""),
        ("ntasks-per-n", "(ntasks-per-node)"), ("M", "hpcjobs runs on one cluster"), ("Z", "sbatch has no option -Z"),
    ],
)  # fmt: skip
def test_letters_and_beginnings_are_what_sbatch_takes_them_for(key: str, said: str) -> None:
    assert said in refusal(key)
    assert bool(said) == bool(refusal(key))


def test_what_asks_for_gpus_or_for_memory_twice_is_refused() -> None:
    for value in ("gpu:2", "tmpdisk:9,gpu:a100:1", "mps:9"):
        assert "cluster.sbatch.gres asks for GPUs: set cluster.gpus" in refusal("gres", value)
    assert refusal("gres", "lscratch:100") == refusal("gres", "gpuless:1") == ""
    config = {"cluster.mem": "4G", "cluster.sbatch.mem-per-cpu": "1G"}
    with pytest.raises(ConfigError, match=r"cluster\.mem and cluster\.sbatch\.mem-per-cpu: sbatch takes one"):
        validate(dotted_layer(config, "c.yaml"))


def test_the_installed_sbatch_has_no_other_option(tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=x\nSlurmctldHost=localhost\nNodeName=localhost\nPartitionName=p Nodes=ALL\n")
    done = subprocess.run(
        ["sbatch", "--help"], env=os.environ | {"SLURM_CONF": str(conf)}, capture_output=True, text=True, check=True
    )
    found = re.findall(r"^ +(?:-([A-Za-z]),)? *--([a-z0-9-]+)", done.stdout, re.MULTILINE)
    assert len(found) > 70
    assert {long for _, long in found} - LONG == set()
    letters = {short: long for short, long in found if short}
    assert {short: SHORT.get(short) for short in letters} == letters


def test_gpus_are_asked_for_by_gres_where_the_site_wants_it(tmp_path: Path) -> None:
    cluster = {"gpus_per_node": 2, "gpu_flag": "gres", "sbatch": {"gres": "lscratch:9", "export": "NONE"}}
    config = config_of(tmp_path / "run.jsonl", {"cluster": cluster})
    text = scripts(config, shape_of(config.cluster, 1), RunPaths(tmp_path / "run"), with_merge=True)
    assert "#SBATCH --gres=gpu:2,lscratch:9\n" in text["work"]
    assert "gpus-per-node" not in text["work"]
    assert " --export=ALL " in text["work"]
    assert "gres" not in text["merge"]


SHELL = {
    "SBATCH_PARTITION": "urgent", "SBATCH_TIMELIMIT": "30", "SBATCH_NO_REQUEUE": "1", "SBATCH_EXCLUSIVE": "user",
    "SBATCH_GRES": "gpu:2", "SBATCH_ARRAY_INX": "1-4", "SBATCH_NICE": "5", "SBATCH_MEM_PER_CPU": "1G",
    "SBATCH_OUTPUT": "x.log", "SBATCH_OPTS": "-x", "SBATCH_QOS": "", "SBATCH_CPU_FREQ_REQ": "low",
}  # fmt: skip


def test_defaults_of_the_shell_count_where_the_config_is_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    config, places = resolve("eval", None, None, [])
    cluster = config.cluster
    assert (cluster.partition, cluster.time, cluster.requeue, cluster.exclusive) == ("urgent", "30", False, False)
    assert (cluster.sbatch, cluster.qos) == ({"nice": "5", "mem-per-cpu": "1G", "cpu-freq": "low"}, None)
    assert (places["cluster.partition"], places["cluster.sbatch.nice"]) == ("SBATCH_PARTITION", "SBATCH_NICE")
    own = tmp_path / "own.yaml"
    own.write_text("cluster: {partition: long, time: 99, mem: 4G}\n")
    cluster, taken = resolve("eval", own, None, [])[0].cluster, {"nice": "5", "cpu-freq": "low"}
    assert (cluster.partition, cluster.time, cluster.mem, cluster.sbatch) == ("long", 99, "4G", taken)
    notes = shell_notes(os.environ)
    assert notes == [
        "SBATCH_ARRAY_INX=1-4 of the shell is not used: set cluster.array",
        "SBATCH_EXCLUSIVE=user of the shell is not used: set cluster.exclusive",
        "SBATCH_GRES=gpu:2 of the shell is not used: set cluster.gpus",
        "SBATCH_OUTPUT=x.log of the shell is not used",
    ]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert resolve("eval", None, None, [])[0].cluster.partition is None, "in a job they are not the user's"


@pytest.mark.parametrize("name", ["SBATCH_CLUSTERS", "SLURM_CLUSTERS"])
def test_another_cluster_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "east")
    with pytest.raises(ConfigError, match=f"{name}=east in this shell sends jobs to another cluster"):
        resolve("eval", None, None, [])


def test_the_plan_shows_them_and_a_time_that_may_be_meant_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("SBATCH_PARTITION", "urgent")
    said = shell.run("submit", "eval", "--set", "model.engine=dummy", "--time", "1:30", "--dry-run")
    assert 'shell   SBATCH_PARTITION: cluster.partition = "urgent"\n' in said.out
    assert "note    cluster.time 1:30 is 1 min 30 s (for hours and minutes: 1:30:00), as Slurm reads it\n" in said.out
    assert "#SBATCH --partition=urgent\n" in said.out
