"""Each page that is about a cluster, typed on one: a new one a page, so that its first job is job 1."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, read_page
from tests.docs.session import Session, faults
from tests.slurm.cluster import missing_programs, temporary_cluster

ON_SLURM = [path for path in PAGES if "slurm" in read_page(path).session]
MARKS = [pytest.mark.slurm, pytest.mark.model]
CASES = [
    pytest.param(path, marks=[*MARKS, *([pytest.mark.real] if "real" in read_page(path).session else [])], id=path.name)
    for path in ON_SLURM
]


@pytest.mark.parametrize("path", CASES)
def test_a_page_prints_what_it_shows_on_a_cluster(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if missing := missing_programs():
        reason = f"not installed: {', '.join(missing)}; tools/install_slurm.sh installs them"
        (pytest.fail if os.environ.get("HPCJOBS_REQUIRE_SLURM") == "1" else pytest.skip)(reason)
    page = read_page(path)
    real = request.getfixturevalue("real_dir") if "real" in page.session else None
    with temporary_cluster() as cluster:
        found = "\n\n".join(faults(page, Session(tmp_path / "me", cluster.env, real)))
        assert not found, found
