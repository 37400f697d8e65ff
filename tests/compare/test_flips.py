"""Flips are found by their scores alone, and written as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcjobs.compare.flips import Flip, find_flips, scores, write_flips
from hpcjobs.compare.pairs import Pairs
from hpcjobs.compare.results import Results
from hpcjobs.errors import DiskFullError

SCHEMA = pa.schema(
    [
        ("index", pa.int64()), ("id", pa.string()), ("completion", pa.string()),
        ("scores", pa.struct([("em", pa.float64()), ("ro.uge", pa.float64()), ("len", pa.float64())])),
        ("error", pa.struct([("type", pa.string()), ("message", pa.string())])),
    ]
)  # fmt: skip
Score = float | None


def results(path: Path, rows: list[tuple[Score, Score, Score]], text: str = "answer") -> Results:
    values = [
        {
            "index": index, "id": f"row-{index}", "completion": f"{text} {index}", "error": None,
            "scores": dict(zip(("em", "ro.uge", "len"), row, strict=True)),
        }
        for index, row in enumerate(rows)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(values, SCHEMA), path)
    return Results(path)


def pairs(folder: Path, a: list[tuple[Score, Score, Score]], b: list[tuple[Score, Score, Score]]) -> Pairs:
    return Pairs(results(folder / "a.parquet", a), results(folder / "b.parquet", b, "another"))


def test_lost_and_gained_by_metric_and_other_texts_alone_are_no_flip(tmp_path: Path) -> None:
    both = pairs(
        tmp_path,
        [(1, 1, 5), (1, 0, 5), (0, 0, 5), (0, 1, 5), (1, None, math.nan)],
        [(1, 1, 6), (0, 0, 6), (1, 0, 6), (1, 0, 6), (1, 1, 6)],
    )
    flips = list(find_flips(both, ["em", "ro.uge"]))
    assert [(flip.id, flip.lost, flip.gained) for flip in flips] == [
        ("row-1", ("em",), ()), ("row-2", (), ("em",)), ("row-3", ("ro.uge",), ("em",)),
    ]  # fmt: skip
    assert flips[0].a == {
        "index": 1, "completion": "answer 1", "scores": {"em": 1, "ro.uge": 0, "len": 5}, "error": None,
    }  # fmt: skip
    assert flips[0].b["completion"] == "another 1"
    assert [flip.id for flip in find_flips(both, ["ro.uge"])] == ["row-3"]


def test_scores_of_any_type_and_none(tmp_path: Path) -> None:
    kind = pa.struct([("yes", pa.bool_()), ("count", pa.int32())])
    table = pa.table({"scores": pa.array([{"yes": True, "count": 3}, None, {"yes": False, "count": None}], kind)})
    assert scores(table, "yes").tolist()[::2] == [1, 0]
    assert scores(table, "count")[0] == 3
    assert math.isnan(scores(table, "yes")[1])
    assert all(map(math.isnan, scores(table, "count")[1:]))


def test_a_line_is_strict_json(tmp_path: Path) -> None:
    flip = Flip(
        "é\n", ("em",), (), {"scores": {"em": 1.0, "len": math.nan}, "completion": "\x1b"},
        {"scores": None, "completion": "\ud800"},
    )  # fmt: skip
    assert flip.line().isascii()
    assert "\n" not in flip.line()
    value = json.loads(flip.line(), parse_constant=pytest.fail)
    assert (value["id"], value["a"]["scores"], value["b"]["scores"]) == ("é\n", {"em": 1.0, "len": None}, {})


def test_flips_go_to_their_file_or_leave_none(tmp_path: Path) -> None:
    both = pairs(tmp_path, [(1, 0, 0)] * 3, [(0, 0, 0)] * 3)
    out = tmp_path / "out.jsonl"
    out.write_text("old\n")
    assert write_flips(out, find_flips(both, ["em"])) == 3
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["row-0", "row-1", "row-2"]
    assert out.stat().st_mode & 0o777 == 0o600

    def breaks() -> Iterator[Flip]:
        yield from find_flips(both, ["em"])
        raise RuntimeError("in between")

    before = out.read_bytes()
    with pytest.raises(RuntimeError):
        write_flips(out, breaks())
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet", "out.jsonl"]
    assert write_flips(out, iter(())) == 0
    assert out.read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file is a link to a device that is always full."""
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    monkeypatch.setattr("hpcjobs.compare.flips.temporary_name", lambda path: link)
    both = pairs(tmp_path, [(1, 0, 0)] * 3, [(0, 0, 0)] * 3)
    with pytest.raises(DiskFullError, match=r"out\.jsonl cannot be written: No space left.*the same command again"):
        write_flips(tmp_path / "out.jsonl", find_flips(both, ["em"]))
    assert not (tmp_path / "out.jsonl").exists()
