"""CSV and TSV against `csv.DictReader`."""

from __future__ import annotations

import csv
import io
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcjobs.config import DataConfig
from hpcjobs.errors import DataError
from hpcjobs.run_folder.inputs import user_row
from hpcjobs.tasks import csv_rows
from hpcjobs.tasks.datasets import load_table

NAMES = count()
CELLS = st.text(alphabet=st.sampled_from(list("ab,\"\n\r\t;' é\u2028\U0001f60001\x0b\x1c")), max_size=6)
TABLES = st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=8))
RAGGED = st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=8)
RAW = st.text(alphabet=st.sampled_from(list('ab,"\n\r\t;')), max_size=30)


def written(rows: list[list[str]], delimiter: str, end: str) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    return text.getvalue()


@settings(deadline=None, max_examples=500)
@given(
    content=TABLES | RAGGED | RAW, delimiter=st.sampled_from([",", "\t"]), end=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(), rows=st.integers(1, 4),
)  # fmt: skip
def test_rows_are_what_dict_reader_gives_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: list[list[str]] | str, delimiter: str, end: str, bom: bool,
    rows: int,
) -> None:  # fmt: skip
    path = tmp_path_factory.getbasetemp() / f"{next(NAMES)}.{'csv' if delimiter == ',' else 'tsv'}"
    text = content if isinstance(content, str) else written(content, delimiter, end)
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        expected, names = list(reader), list(reader.fieldnames or [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_rows, "_ROWS", rows)
        ragged = any(None in row or None in row.values() for row in expected)
        if not names or ragged or len(set(names)) < len(names) or open_at_the_end(text, delimiter):
            with pytest.raises(DataError):
                load_table(DataConfig(name=str(path), delimiter=delimiter))
            return
        table = load_table(DataConfig(name=str(path), delimiter=delimiter))
    assert [{name: user_row(row)[name] for name in names} for row in table.to_pylist()] == expected


def open_at_the_end(text: str, delimiter: str) -> bool:
    """Whether the last quote is never closed: one more line is then no row of its own."""
    more = csv.reader([*io.StringIO(text, newline=""), delimiter], delimiter=delimiter)
    return list(more)[-1] != ["", ""]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_long_values_with_line_breaks_stay_whole(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"long.{ending}"
    rows = [["q", "a"], *([f'{n}\n"x",\t\r\n' * 250_000, str(n)] for n in range(3))]
    path.write_text(written(rows, "," if ending == "csv" else "\t", "\r\n"), newline="")
    before = csv.field_size_limit()
    table = load_table(DataConfig(name=str(path)))
    assert csv.field_size_limit() == before
    assert table.column("q").to_pylist() == [row[0] for row in rows[1:]]
    assert min(map(len, table.column("q").to_pylist())) > 2_000_000
