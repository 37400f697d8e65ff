"""Each page, typed as it stands, does and prints what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, read_page
from tests.docs.session import Session, faults

HERE = [path for path in PAGES if "slurm" not in read_page(path).session]


@pytest.mark.model
@pytest.mark.parametrize("path", [path for path in HERE if "real" not in read_page(path).session], ids=lambda p: p.name)
def test_a_page_prints_what_it_shows(path: Path, tmp_path: Path) -> None:
    found = "\n\n".join(faults(read_page(path), Session(tmp_path / "me")))
    assert not found, found


@pytest.mark.model
@pytest.mark.real
@pytest.mark.parametrize("path", [path for path in HERE if "real" in read_page(path).session], ids=lambda p: p.name)
def test_a_page_of_the_real_model_prints_what_it_shows(path: Path, tmp_path: Path, real_dir: Path) -> None:
    found = "\n\n".join(faults(read_page(path), Session(tmp_path / "me", real=real_dir)))
    assert not found, found
