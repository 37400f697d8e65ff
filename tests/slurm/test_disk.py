"""A run folder on a disk that fills up, with ranks on two nodes."""

from __future__ import annotations

import re
from pathlib import Path

from hpcjobs.run_folder.journal.journal import read_journal
from tests.disks import small_disk
from tests.slurm.cluster import Cluster
from tests.slurm.site import DUMMY, Site

SHAPE = ("--nodes", "2", "--ntasks-per-node", "1", "--gpus", "0", "--wait")


def test_a_run_that_outgrows_its_disk_is_resumed_when_that_has_grown(cluster: Cluster, ram: Path) -> None:
    site = Site(cluster, ram)  # a short path: an error is told in 400 characters
    whole = site.folder / "whole"
    site.hpcjobs("submit", "eval", "--run-dir", str(whole), *SHAPE, *DUMMY)
    with small_disk(site.folder / "runs", "size=250k") as disk:
        out = site.hpcjobs("submit", "eval", "--name", "full", *SHAPE, *DUMMY, code=1)
        paths = site.paths("full")
        pattern = rf"{paths.root}/(ranks|claims)/\S+ cannot be written: No space left on device: .* file system at "
        pattern += rf"{disk.path}; needed: about .* MB; free space there, then: hpcjobs resume {paths.root}"
        assert re.search(pattern, out), out
        assert not paths.metrics.exists() or site.metrics("full")["complete"] is False
        before = paths.journals()
        kept = {record.index for path in before for record in read_journal(path)}
        disk.remount("size=20m")
        site.hpcjobs("resume", "full", "--wait")
        assert paths.results.read_bytes() == (whole / "results.parquet").read_bytes()
        made = {record.index for path in paths.journals() if path not in before for record in read_journal(path)}
        assert (kept & made, len(kept | made)) == (set(), 50), "what was finished is not run again"
