from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.ledger.chunks import (
    MOST_CHUNKS,
    TAPER,
    ChunkList,
    default_chunk_size,
    plan_chunks,
    read_sizes,
    write_chunks,
)
from tests.runs import config_of, plan_run, rows_of

WORK = st.lists(st.integers(0, 9), max_size=400) | st.integers(0, 3000).map(lambda n: [n * 7919 % 101] * n)


@given(work=WORK, chunk_size=st.integers(1, 64))
def test_the_layout_is_exact_longest_first_and_tapers(work: list[int], chunk_size: int) -> None:
    chunks = plan_chunks(work, chunk_size)
    order = [index for chunk in chunks for index in chunk]
    sizes = [len(chunk) for chunk in chunks]
    assert sorted(order) == list(range(len(work)))
    assert all(1 <= size <= chunk_size for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    expected = [work[index] for index in order]
    assert expected == sorted(work, reverse=True)
    assert all(a < b for a, b in itertools.pairwise(order) if work[a] == work[b])
    singles = sum(size == 1 for size in sizes)
    assert singles >= min(len(work), 2 * TAPER - 2)


def test_no_more_chunks_than_a_folder_should_hold() -> None:
    rows = 1_000_000
    chunks = plan_chunks([0] * rows, default_chunk_size(rows))
    assert len(chunks) <= 2 * MOST_CHUNKS
    assert len(plan_chunks([0] * 10 * rows, default_chunk_size(10 * rows))) <= 3 * MOST_CHUNKS
    assert default_chunk_size(0) == default_chunk_size(1) == default_chunk_size(8 * MOST_CHUNKS) == 8
    assert default_chunk_size(8 * MOST_CHUNKS + 1) == 9


def test_the_layout_never_depends_on_the_ranks(tmp_path: Path) -> None:
    layouts = set()
    for ranks in (1, 2, 3, 8):
        paths = plan_run(tmp_path / f"run-{ranks}", 97, cluster={"executor": "local", "ntasks_per_node": ranks})
        layouts.add(paths.chunks(0).read_bytes())
    assert len(layouts) == 1


def test_longer_prompts_come_first(tmp_path: Path) -> None:
    paths = plan_run(tmp_path / "run", 97)
    first, last = ChunkList.read(paths.chunks(0))[0], ChunkList.read(paths.chunks(0))[-1]
    lengths = [len(row["question"]) for row in rows_of(97)]
    assert lengths[first[0]] == max(lengths)
    assert lengths[last[0]] == min(lengths)


def test_the_chunk_size_of_the_config_holds(tmp_path: Path) -> None:
    data = plan_run(tmp_path / "run", 320).root.with_suffix(".jsonl")
    draft = make_plan("eval", config_of(data, {"run": {"chunk_size": 4}}), tmp_path / "other")
    assert max(map(len, draft.chunks)) == draft.plan.chunk_size == 4


@pytest.mark.parametrize("chunks", [[], [[0]], [[5, 3], [1], [0]]])
def test_a_list_comes_back_and_is_created_once(tmp_path: Path, chunks: list[list[int]]) -> None:
    path = tmp_path / "chunks.parquet"
    assert write_chunks(path, chunks)
    assert not write_chunks(path, [[9]])
    found = ChunkList.read(path)
    assert [found[number] for number in range(len(found))] == chunks
    assert found.sizes() == read_sizes(path) == [len(chunk) for chunk in chunks]


def test_a_list_of_many_row_groups_comes_back(tmp_path: Path) -> None:
    """Also where some of its numbers do not fit into 32 bits."""
    chunks = [[number, 2**31 + number] if number % 700 == 0 else [number] for number in range(2000)]
    write_chunks(tmp_path / "chunks.parquet", chunks)
    found = ChunkList.read(tmp_path / "chunks.parquet")
    assert [found[number] for number in range(len(found))] == chunks
    with pytest.raises(IndexError):
        found[2000]


def test_the_chunk_list_of_an_earlier_version_has_sizes_too(tmp_path: Path) -> None:
    path = tmp_path / "chunks.parquet"
    pq.write_table(pa.table({"indexes": pa.array([[2, 0], [1]], pa.list_(pa.int64()))}), path)
    assert read_sizes(path) == [2, 1]
    assert ChunkList.read(path)[0] == [2, 0]
