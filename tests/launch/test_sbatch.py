"""The exact scripts that Slurm gets."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from submitit.slurm.slurm import SlurmJobEnvironment

from hpcjobs.config import Config
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.config.shape import shape_of
from hpcjobs.launch.sbatch import scripts, work_executor
from hpcjobs.run_folder.paths import RunPaths
from tests.fake_slurm import FakeSlurm

NASTY = "two words 'single' \"double\" $(touch pwned) `touch pwned` $HOME ; touch pwned #x"

FULL = {
    "nodes": 2, "gpus": 8, "cpus_per_task": 4, "mem": "64G", "time": "2-12:30", "partition": "gpu", "account": "proj",
    "qos": "high", "constraint": "a100&ib", "reservation": "maint", "exclusive": True, "requeue": False,
    "modules": ["cuda/12.4", "gcc"], "env": {"NAME": "plain"}, "setup": ["source env.sh"],
    "sbatch": {"comment": "nightly", "nice": 5, "hold": True, "mail_type": "END", "contiguous": False},
    "srun_args": ["--cpu-bind=cores"],
}  # fmt: skip
WORK = """\
#!/bin/bash

# Parameters
#SBATCH --account=proj
#SBATCH --comment=nightly
#SBATCH --constraint='a100&ib'
#SBATCH --cpus-per-task=4
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --hold
#SBATCH --job-name=golden
#SBATCH --mail-type=END
#SBATCH --mem=64G
#SBATCH --nice=5
#SBATCH --no-kill
#SBATCH --no-requeue
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=RUN/logs/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --reservation=maint
#SBATCH --signal=USR2@90
#SBATCH --time=3630
"""
WORK_END = r"""# setup
export HPCJOBS_END_TIME="${SLURM_JOB_END_TIME:-$(date -d "$(SLURM_TIME_FORMAT=standard timeout 30 squeue --noheader \
--format=%e --job="$SLURM_JOB_ID")" +%s 2>/dev/null)}"
export HPCJOBS_KILL_WAIT="$(timeout 30 scontrol show config 2>/dev/null | sed -n \
's/^KillWait *= *\([0-9]*\).*/\1/p')"
module load cuda/12.4
module load gcc
export NAME=plain
source env.sh
cp RUN/logs/work-0.pkl RUN/logs/"${SLURM_JOB_ID}_submitted.pkl"

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output RUN/logs/%j_%t_log.out --no-kill --kill-on-bad-exit=0 --wait=0 --open-mode=append \
--cpus-per-task=4 --cpu-bind=cores PYTHON -u -m submitit.core._submit RUN/logs
""".replace("\\\n", "")
MERGE = """\
#!/bin/bash

# Parameters
#SBATCH --dependency=afterany:WORK_JOB_ID
#SBATCH --job-name=golden.merge
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=RUN/logs/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=60

# setup
cp RUN/logs/merge-0.pkl RUN/logs/"${SLURM_JOB_ID}_submitted.pkl"

# command
export SUBMITIT_EXECUTOR=slurm
PYTHON -u -m submitit.core._submit RUN/logs
"""


def scripts_of(root: Path, **cluster: Any) -> dict[str, str]:
    config: Config = validate(Layer({"cluster": cluster}))
    return scripts(config, shape_of(config.cluster, 1), RunPaths(root), with_merge=True)


def sbatch_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#SBATCH")]


def plain(text: str, root: Path) -> str:
    return text.replace(str(root), "RUN").replace(sys.executable, "PYTHON")


def test_the_work_script_of_a_full_config(tmp_path: Path) -> None:
    root = tmp_path / "golden"
    text = plain(scripts_of(root, **FULL)["work"], root)
    assert sbatch_lines(text) == sbatch_lines(WORK)
    assert text.partition("\n# setup\n")[2].strip() == WORK_END.partition("# setup\n")[2].strip()
    assert not root.exists()


def test_a_short_jobs_warning_kills_nobody(tmp_path: Path) -> None:
    """Slurm may send it at the start, when Python has no handler for USR2 yet."""
    for minutes, signal in ((1, "CONT@1"), (4, "CONT@1"), (5, "USR2@90")):
        assert f"#SBATCH --signal={signal}" in sbatch_lines(scripts_of(tmp_path, time=minutes)["work"])


def test_the_merge_script_waits_for_whatever_becomes_of_the_ranks(tmp_path: Path) -> None:
    root = tmp_path / "golden"
    assert plain(scripts_of(root)["merge"], root).strip() == MERGE.strip()


def test_the_merge_job_asks_for_no_gpu_and_one_task(tmp_path: Path) -> None:
    words = "\n".join(sbatch_lines(scripts_of(tmp_path / "golden", **FULL)["merge"]))
    assert "gpu" not in words.replace("--partition=gpu", "")
    assert "--ntasks-per-node=1" in words
    assert "--account=proj" in words
    assert "--exclusive" not in words
    assert "--mem" not in words


@pytest.mark.parametrize("key", ["partition", "account", "qos", "constraint", "reservation", "mem"])
def test_a_value_is_one_word_on_its_line(tmp_path: Path, key: str) -> None:
    text = scripts_of(tmp_path / "golden", **{key: NASTY})["work"]
    [line] = [line for line in sbatch_lines(text) if line.startswith(f"#SBATCH --{key}=")]
    assert shlex.split(line, comments=False)[1:] == [f"--{key}={NASTY}"]


def test_a_value_of_sbatch_is_one_word_on_its_line(tmp_path: Path) -> None:
    for text in scripts_of(tmp_path / "golden", sbatch={"comment": NASTY}).values():
        [line] = [line for line in sbatch_lines(text) if "--comment" in line]
        assert shlex.split(line)[1:] == [f"--comment={NASTY}"]


def test_run_by_bash_no_value_is_executed(tmp_path: Path) -> None:
    """The script itself, by a real bash, with an srun that writes down what it gets."""
    root = tmp_path / "with space" / "golden"
    text = scripts_of(
        root, env={"NAME": NASTY}, sbatch={"comment": NASTY}, srun_args=[f"--label={NASTY}"], container=NASTY,
        partition=NASTY,
    )["work"]  # fmt: skip
    fake = FakeSlurm(tmp_path / "slurm")
    srun = fake.bin / "srun"
    srun.write_text(f"#!/bin/bash\nprintf '%s\\0' \"$@\" > {tmp_path}/argv\nprintf '%s' \"$NAME\" > {tmp_path}/name\n")
    srun.chmod(0o755)
    (tmp_path / "job.sh").write_text(text)
    env = os.environ | {"PATH": f"{fake.bin}:/usr/bin:/bin"}
    subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=env, check=True)
    words = (tmp_path / "argv").read_text().split("\0")
    assert f"--label={NASTY}" in words
    assert f"--container-image={NASTY}" in words
    assert words[-2] == str(root / "logs")
    assert (tmp_path / "name").read_text() == NASTY
    assert not (tmp_path / "pwned").exists()


def test_an_array_is_the_same_job_with_names_of_its_elements(tmp_path: Path) -> None:
    root = tmp_path / "golden"
    text, one = (plain(scripts_of(root, array=workers)["work"], root) for workers in (3, 1))
    assert "#SBATCH --array=0-2" in sbatch_lines(text)
    assert "#SBATCH --output=RUN/logs/%A_%a_0_log.out" in sbatch_lines(text)
    assert "--output RUN/logs/%A_%a_%t_log.out " in text
    assert 'cp RUN/logs/work-0.pkl RUN/logs/"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}_submitted.pkl"\n' in text
    assert "array" not in one.lower()
    assert '"${SLURM_JOB_ID}_submitted.pkl"\n' in one


@pytest.mark.parametrize(
    ("workers", "inside"),
    [
        (None, {"SLURM_JOB_ID": "8"}),
        (3, {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "2"}),
        (1, {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "0"}),
    ],
    ids=["a job", "an array", "what is left of a split array"],
)
def test_the_job_gives_its_pickle_the_name_that_submitit_looks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None, inside: dict[str, str]
) -> None:
    """By a real bash with the job's name in the script; submitit's own class says what name it will look for."""
    config: Config = validate(Layer({"cluster": {}}))
    paths = RunPaths(tmp_path / "with space")
    paths.logs.mkdir(parents=True)
    executor = work_executor(config, shape_of(config.cluster, 1), paths)
    executor = executor.as_array(workers) if workers else executor
    executor.name = "work2-3"
    (paths.logs / "work2-3.pkl").write_bytes(b"the work")
    (tmp_path / "job.sh").write_text(executor.script)
    fake = FakeSlurm(tmp_path / "slurm")
    (fake.bin / "srun").symlink_to("/bin/true")
    for name, value in (inside | {"SLURM_PROCID": "0", "SUBMITIT_FOLDER": str(paths.logs)}).items():
        monkeypatch.setenv(name, value)
    env = os.environ | {"PATH": f"{fake.bin}:/usr/bin:/bin"}
    subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=env, check=True)
    looked_for = SlurmJobEnvironment().paths.submitted_pickle
    assert Path(looked_for).read_bytes() == b"the work"


@pytest.mark.parametrize(
    ("end_time", "squeue", "scontrol", "said"),
    [
        ("1700000000", "", "KillWait                = 60 sec\n", "1700000000 60"),
        ("", "2026-01-31T12:00:00\n", "KillWait = 30 sec\nMaxArraySize = 4\n", "1769860800 30"),
        ("", "N/A\n", "", " "),
    ],
    ids=["told by Slurm", "asked for", "nobody knows"],
)
def test_the_job_asks_once_when_it_ends(tmp_path: Path, end_time: str, squeue: str, scontrol: str, said: str) -> None:
    text, fake = scripts_of(tmp_path / "golden")["work"], FakeSlurm(tmp_path / "slurm")
    for name, answer in (("squeue", squeue), ("scontrol", scontrol)):
        fake.answer(name, answer)
    srun = fake.bin / "srun"
    srun.write_text('#!/bin/bash\necho -n "$HPCJOBS_END_TIME $HPCJOBS_KILL_WAIT" > said\n')
    srun.chmod(0o755)
    (tmp_path / "job.sh").write_text(text)
    env = os.environ | {"PATH": f"{fake.bin}:/usr/bin:/bin", "SLURM_JOB_ID": "8", "TZ": "UTC"}
    subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=env | {"SLURM_JOB_END_TIME": end_time}, check=True)
    assert (tmp_path / "said").read_text() == said


REAL = next((path for path in ("/usr/bin/sbatch", "/usr/local/bin/sbatch") if os.path.exists(path)), None)


@pytest.mark.skipif(REAL is None, reason="no sbatch on this machine")
def test_slurm_itself_reads_the_lines_as_they_were_meant(tmp_path: Path) -> None:
    """The real sbatch, without a cluster: it says what it has understood before it looks for a controller."""
    assert REAL is not None
    nasty = NASTY.replace("\\", "")  # Slurm takes a backslash for its own, even between quotes
    (tmp_path / "job.sh").write_text(scripts_of(tmp_path / "golden", **FULL | {"sbatch": {"comment": nasty}})["work"])
    (tmp_path / "slurm.conf").write_text(
        "ClusterName=none\nSlurmctldHost=localhost\nSlurmctldPort=1\nSelectType=select/cons_tres\nGresTypes=gpu\n"
        "MessageTimeout=1\nSlurmctldTimeout=1\n"
    )
    command = [REAL, "--test-only", "-vv", "job.sh"]
    env = os.environ | {"SLURM_CONF": str(tmp_path / "slurm.conf")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
    options = dict(re.findall(r"^sbatch: (\S+)\s+: (.*)$", done.stderr, re.MULTILINE))
    expected = {
        "comment": nasty, "constraint": "a100&ib", "gpus-per-node": "4", "nodes": "2", "ntasks-per-node": "4",
        "cpus-per-task": "4", "mem": "64G", "time": "2-12:30:00", "partition": "gpu", "account": "proj", "qos": "high",
        "reservation": "maint", "job-name": "golden",
    }  # fmt: skip
    assert {name: options.get(name) for name in expected} == expected
