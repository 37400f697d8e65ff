"""verify on a real cluster: all world sizes are queued, run on the config's GPUs and nodes, and are compared."""

from __future__ import annotations

import json
import sys

from hpcjobs.run_folder.plan import Plan
from tests.slurm.site import DUMMY, ROOT, Site


def test_one_two_and_four_ranks_give_the_same_table(site: Site) -> None:
    words = ["--world-sizes", "1,2,4", "--run-dir", "v", "--nodes", "2", "--set", "cluster.gpus_per_node=2", *DUMMY]
    config = str(ROOT / "configs" / "eval.yaml")
    done = site.run(sys.executable, "-m", "hpcjobs", "verify", config, *words, "--json", code=None)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["identical"], said["byte_identical"], said["samples"]) == (True, True, 50)
    launches = {}
    for size, nodes in ((1, 1), (2, 2), (4, 2)):
        folder = site.folder / "v" / f"w{size}"
        shape = Plan.read(folder / "plan.json").shape
        assert (shape.nodes, shape.ranks, shape.gpus_per_node * shape.nodes) == (nodes, size, size)
        assert len(list((folder / "ranks").glob("*.jsonl"))) == size
        [launches[size]] = json.loads((folder / "submission.json").read_text())["launches"]
        [work] = site.cluster.sacct(launches[size]["jobs"]["work"])[:1]
        assert (work["State"], work["NNodes"]) == ("COMPLETED", str(nodes))
    merged = json.loads((site.folder / "v" / "w1" / "metrics.json").read_text())["provenance"]["merged_at"]
    assert launches[4]["submitted_at"] < merged, "the last one was queued before the first one was over"
