"""What ranks say to each other before a joint step. tests/test_connector_kinds.py has real ranks."""

from __future__ import annotations

import pytest

from hpcjobs.distributed.together import Said, check_same_data
from hpcjobs.errors import UsageError


def test_the_same_data_on_all_ranks() -> None:
    check_same_data([Said(step="split_dataset", rows=5, samples={0: "a", 1: "b"})] * 3)
    check_same_data([Said(step="split_dataset")] * 2)  # streams


def test_other_data_names_the_rank_and_the_row() -> None:
    with pytest.raises(UsageError, match=r"rows \(rank 0 5, rank 1 a stream, rank 2 4\): every rank passes the whole"):
        check_same_data([Said(step="split_dataset", rows=rows) for rows in (5, None, 4)])
    with pytest.raises(UsageError, match="row 1 of rank 2 is not that of rank 0"):
        check_same_data([Said(step="split_dataset", rows=2, samples={0: "a", 1: other}) for other in "bbc"])
