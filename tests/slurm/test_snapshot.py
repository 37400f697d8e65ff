"""What is edited while a job waits in the queue changes nothing of it: code, config, data and model are as planned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines.test_hub import COMMIT, NAME, OTHER, write_cache
from tests.slurm.site import DUMMY, Site

METRIC = """
from worth import WORTH


class Mine:
    name = "mine"
    needs_target = False

    def score(self, completion, target, row):
        return WORTH
"""
PROGRAM = """
import os
from pathlib import Path

from worth import WORTH

print("rank", os.environ["RANK"], "worth", WORTH, Path("data.txt").read_text().strip(), flush=True)
"""
BROKEN = "raise RuntimeError('edited while it was queued')\n"
CONFIG = """
model: {engine: dummy}
data: {name: rows.jsonl}
task: {prompt: "{{ question }}", metrics: ["mine:Mine"]}
"""


def write_files(folder: Path, text: str | None = None) -> None:
    """The user's files; `text` in place of each of them, as an edit leaves it."""
    rows = "".join(json.dumps({"question": f"q{number}"}) + "\n" for number in range(20))
    files = {
        "mine.py": METRIC, "worth.py": "WORTH = 0.25\n", "prog.py": PROGRAM, "eval.yaml": CONFIG, "rows.jsonl": rows,
        "pack/__init__.py": "", "pack/prog.py": PROGRAM,
    }  # fmt: skip
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if text is None else text)


def edit_while_held(site: Site, name: str) -> None:
    """Edit every file while the job of run `name` is held, then let it go."""
    job = site.jobs(name)["work"]
    assert site.cluster.job_state(job) == "PENDING"
    write_files(site.folder, BROKEN)
    site.run("scontrol", "release", job)


def test_an_eval_is_scored_by_the_metric_that_was_planned(site: Site) -> None:
    write_files(site.folder)
    shape = ("--nodes", "2", "--ntasks-per-node", "2", "--gpus", "0", "--sbatch", "hold")
    site.hpcjobs("submit", "eval", "--config", "eval.yaml", "--name", "e", *shape, *DUMMY)
    edit_while_held(site, "e")
    site.until("the end", lambda: site.look("e").state == "complete", timeout=120)
    assert site.metrics("e")["metrics"]["mine"]["value"] == 0.25
    assert [row["input"]["question"] for row in site.rows("e")] == [f"q{number}" for number in range(20)]


def test_a_program_and_a_module_run_as_they_were_planned(site: Site) -> None:
    for name, words in (("s", ["prog.py"]), ("m", ["-m", "pack.prog"])):
        write_files(site.folder)
        (site.folder / "data.txt").write_text("before")
        shape = ("--nodes", "2", "--ntasks-per-node", "1", "--gpus", "0", "--sbatch", "hold")
        site.hpcjobs("submit", "script", "--name", name, *shape, "--", *words)
        edit_while_held(site, name)
        (site.folder / "data.txt").write_text("data of the working folder, as it is when it is read")
        site.cluster.wait_job(site.jobs(name)["work"], "COMPLETED", "FAILED")
        said = site.hpcjobs("logs", name)
        for rank in range(2):
            assert f"rank {rank} worth 0.25 data of the working folder" in said


@pytest.mark.model
def test_a_hub_model_is_the_commit_that_was_planned(site: Site) -> None:
    cache = site.folder / "hf" / "hub"
    write_cache(cache)
    words = ("--model", NAME, "--max-samples", "8", "--gpus", "0", "--sbatch", "hold", "--name", "h")
    env = ("--set", f"cluster.env.HF_HOME={cache.parent}")
    site.hpcjobs("submit", "eval", *words, *env)
    broken = write_cache(cache, OTHER)  # the branch moves on, to something that cannot be loaded
    (broken / "config.json").write_text("{}")
    site.run("scontrol", "release", site.jobs("h")["work"])
    site.until("the end", lambda: site.look("h").state == "complete", timeout=120)
    assert site.metrics("h")["provenance"]["model"]["commit"] == COMMIT


def test_a_hub_model_that_cannot_be_had_is_never_queued(site: Site) -> None:
    said = site.hpcjobs("submit", "eval", "--model", NAME, "--name", "x", code=2)
    assert f"hf download {NAME}" in said
    assert not site.paths("x").root.exists()
    assert site.run("squeue", "--noheader").stdout == ""
