"""hpcjobs is updated while jobs wait in the queue: a job that an earlier version queued ends as it should."""

from __future__ import annotations

import sys

import pytest

from tests.slurm.site import DUMMY, Site

# The pickles of 0.1 (before the files moved into packages) name functions of hpcjobs.guard.
AS_BEFORE = """
import pathlib, sys
from submitit.core import utils
from hpcjobs.guard import guard_merge, guard_rank

logs, root = pathlib.Path(sys.argv[1]), sys.argv[2]
for entry, name, args in ((guard_rank, "work-0", (root,)), (guard_merge, "merge-0", (root, 0))):
    entry.__module__ = "hpcjobs.guard"
    delayed = utils.DelayedSubmission(entry, *args)
    delayed.set_timeout(60, 3)
    delayed.dump(logs / f"{name}.pkl")
"""


def test_a_job_queued_by_an_earlier_version_ends_as_it_should(site: Site) -> None:
    shape = ("--nodes", "2", "--ntasks-per-node", "2", "--gpus", "0", "--sbatch", "hold")
    site.hpcjobs("submit", "eval", "--name", "old", "--max-samples", "30", *shape, *DUMMY)
    paths = site.paths("old")
    site.run(sys.executable, "-c", AS_BEFORE, str(paths.logs), str(paths.root))
    for name, entry in (("work-0", b"guard_rank"), ("merge-0", b"guard_merge")):
        pickle = (paths.logs / f"{name}.pkl").read_bytes()
        assert b"hpcjobs.guard" in pickle
        assert entry in pickle
        assert b"hpcjobs.launch" not in pickle
    site.run("scontrol", "release", site.jobs("old")["work"])
    site.until("the end", lambda: site.look("old").state == "complete", timeout=120)
    assert len(site.rows("old")) == 30
    merge = site.jobs("old")["merge"]
    site.cluster.wait_job(merge, "COMPLETED", "FAILED")
    assert site.cluster.job_state(merge) == "COMPLETED"


@pytest.mark.parametrize("module", ["hpcjobs.supervisor", "hpcjobs.then_eval", "hpcjobs.accelerate_node"])
def test_the_modules_that_an_earlier_version_starts_are_there(site: Site, module: str) -> None:
    """Each runs into its own words about missing arguments, not into a module that is gone."""
    done = site.run(sys.executable, "-m", module, code=None)
    assert "No module named" not in done.stderr
    assert "usage:" in done.stderr or "IndexError" in done.stderr
