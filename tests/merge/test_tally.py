from __future__ import annotations

import pyarrow as pa

from hpcjobs.merge.failures import Failures
from hpcjobs.merge.tally import Tally
from hpcjobs.requests import SampleError
from hpcjobs.run_folder.journal.table import journal_schema, table_of
from tests.runs import record_of


def test_rows_are_counted_batch_by_batch() -> None:
    schema, tally = journal_schema(pa.schema([])), Tally()
    failed = record_of(1, 0, finish_reason="error", error=SampleError("ValueError", "no"), completion_tokens=0)
    tally.count(table_of([record_of(0, 0), failed, record_of(2, 0, finish_reason="length")], schema))
    tally.count(table_of([record_of(3, 0)], schema))
    tally.count(schema.empty_table())
    assert (tally.accepted, tally.failures.errors, tally.prompt_tokens, tally.completion_tokens) == (4, 1, 8, 3)
    assert dict(tally.finish_reasons) == {"stop": 2, "error": 1, "length": 1}


def test_what_is_to_be_said() -> None:
    assert Tally(accepted=5, duplicates=3).warnings() == []
    failures, lost = Failures(errors=2), {"b-0.jsonl", "a-0.jsonl"}
    tally = Tally(failures=failures, foreign=3, lost_journals=lost, unnamed_journals=["a-7.jsonl"])
    assert tally.warnings() == [
        "journal a-0.jsonl is gone",
        "journal b-0.jsonl is gone",
        "journal a-7.jsonl is not used: no settled claim names it",
        "3 foreign records were not used",
        "2 samples ended in an error and count 0 in every metric",
    ]
