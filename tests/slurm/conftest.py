"""One real Slurm cluster for all tests of this folder, idle again after each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing_programs, reap_abandoned, temporary_cluster
from tests.slurm.site import Site

FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes of 8 CPUs and 4 fake GPUs."""
    missing = missing_programs()
    if missing:
        reason = f"not installed: {', '.join(missing)}; tools/install_slurm.sh installs them"
        if os.environ.get("HPCJOBS_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    reap_abandoned()
    with temporary_cluster(nodes=2, gpus=4, cpus=8) as started:
        yield started


@pytest.fixture(autouse=True)
def _idle_again(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.recover()


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    """A user with an empty working folder."""
    return Site(cluster, tmp_path)
