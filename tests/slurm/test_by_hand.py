"""The sbatch templates, run as they are."""

from __future__ import annotations

import json
import re

import pytest

from tests.slurm.site import DUMMY, ROOT, Site

SBATCH = ROOT / "sbatch"


def _sbatch(site: Site, *words: str) -> str:
    """Submit by hand and wait for the end; the job's output."""
    job_id = site.run("sbatch", "--parsable", *words).stdout.strip()
    site.cluster.wait_job(job_id, "COMPLETED", "FAILED", timeout=180)
    output = (site.folder / f"hpcjobs-{job_id}.out").read_text()
    assert site.cluster.job_state(job_id) == "COMPLETED", output
    return output


def test_eval_by_hand_gives_the_same_bytes_as_submit(site: Site) -> None:
    site.hpcjobs("submit", "eval", "--nodes", "2", "--gpus", "8", "--name", "one", "--wait", *DUMMY)
    site.hpcjobs("submit", "eval", "--nodes", "2", "--gpus", "8", "--name", "two", "--plan-only", *DUMMY)
    _sbatch(site, str(SBATCH / "eval.sbatch"), "runs/two")
    _sbatch(site, str(SBATCH / "eval.sbatch"), "runs/three", *DUMMY)  # planned inside the job
    one, two, three = (site.paths(name).results.read_bytes() for name in ("one", "two", "three"))
    assert one == two == three
    assert site.metrics("one")["metrics"] == site.metrics("two")["metrics"]
    assert len(site.paths("two").journals()) == 8
    assert site.status("two")["state"] == "complete"


def test_merge_by_hand(site: Site) -> None:
    site.hpcjobs("submit", "eval", "--nodes", "1", "--gpus", "0", "--name", "m", "--wait", *DUMMY)
    before = site.paths("m").results.read_bytes()
    site.paths("m").results.unlink()
    assert "samples 50 of 50" in _sbatch(site, str(SBATCH / "merge.sbatch"), "runs/m")
    assert site.paths("m").results.read_bytes() == before


def test_script_by_hand(site: Site) -> None:
    (site.folder / "hello.py").write_text(
        "import os\nprint('hello from', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])\n"
    )
    said = _sbatch(site, str(SBATCH / "script.sbatch"), "runs/s", "--", "hello.py")
    assert sorted(re.findall(r"hello from (\d) of 4", said)) == ["0", "1", "2", "3"]


@pytest.mark.model
def test_accelerate_launch_on_every_node(site: Site) -> None:
    runner = ("-m", "hpcjobs.runner", "--use_accelerate", "--data_file", "unified", "--max_samples", "20")
    said = _sbatch(site, "--gpus-per-node=0", str(SBATCH / "accelerate_launch.sbatch"), *runner, "--output_dir", "out")
    assert "20 results, 0 errors" in said
    rows = [json.loads(line) for line in (site.folder / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(20))


def test_without_srun_a_worker_refuses_to_do_everybodys_work(site: Site) -> None:
    site.hpcjobs("submit", "eval", "--name", "w", "--plan-only", *DUMMY)
    words = ("--ntasks=4", "--output=refused.out", "--wrap", "python -m hpcjobs.worker runs/w")
    job_id = site.run("sbatch", "--parsable", *words).stdout.strip()
    site.cluster.wait_job(job_id, "FAILED")
    assert "4 tasks" in (site.folder / "refused.out").read_text()
    assert site.paths("w").journals() == []


@pytest.mark.model
def test_a_training_by_hand(site: Site) -> None:
    """Planned inside the job, on two nodes; the same command again has nothing left to do."""
    where = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", str(SBATCH / "train.sbatch"), "runs/t")
    how = ("--set", "train.max_steps=4", "--set", "cluster.ntasks_per_node=1", "--set", "run.deterministic=true")
    assert "steps   4 of 4" in _sbatch(site, *where, *how)
    assert site.metrics("t")["complete"]
    assert "goes on after step 4" in _sbatch(site, *where) + site.hpcjobs("logs", "t")
