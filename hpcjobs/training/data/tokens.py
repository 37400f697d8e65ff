"""Token files: written once, by rank 0, and memory-mapped by all ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hpcjobs.errors import DataError, RendezvousError
from hpcjobs.requests import Row
from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import read_json, replace_whole, sha256_of, temporary_name, write_json
from hpcjobs.run_folder.inputs import Inputs
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.data.encode import Tokens

log = logging.getLogger(__name__)
Ints = npt.NDArray[np.int64]
_SCHEMA = pa.schema(
    {"index": pa.int64(), "id": pa.string(), "tokens": pa.list_(pa.int32()), "learned": pa.list_(pa.bool_())}
)
_ROWS_A_BATCH = 1024
_POLL_SECONDS = 0.2
# For how many of the rows that are left out, and of those that are cut, it is kept which they are.
_REASONS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """The numbers of samples, tokens and trained tokens of a token file; rows left out, and why the first ones were;
    rows that were cut because they are too long, and the first ones with their lengths; chats of which an earlier
    answer has other tokens than the prompts of later ones hold (`Tokens.apart`).
    """

    samples: int
    tokens: int
    learned: int
    left_out: int
    reasons: list[str] = field(default_factory=list)
    cut: int = 0
    cut_rows: list[str] = field(default_factory=list)
    apart: int = 0


def write_tokens(
    inputs: Inputs, encode: Callable[[Row], Tokens], path: Path, wanted: Callable[[int], bool]
) -> TokenCount:
    """Encode the rows of `inputs` whose index is `wanted` into `path`. Rows that cannot be encoded are left out and
    counted, and so are rows that were cut.

    Raises a DataError if none can be.
    """
    samples = tokens = learned = left_out = cut = apart = 0
    reasons: list[str] = []
    cut_rows: list[str] = []
    temporary = temporary_name(path)
    with disk_errors(path):
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
            for rows in _batches(inputs, wanted):
                made: list[Row] = []
                for row in rows:
                    try:
                        found = encode(row)
                    except Exception as error:  # a template may raise anything
                        left_out += 1
                        if len(reasons) < _REASONS_SHOWN:
                            reasons.append(f"row {row['index']} (id {row['id']}): {error}"[:300])
                        continue
                    apart += found.apart
                    if found.cut:
                        cut += 1
                        if len(cut_rows) < _REASONS_SHOWN:
                            whole = len(found.ids) + found.cut
                            cut_rows.append(f"row {row['index']} (id {row['id']}): {whole} tokens")
                    made.append({"index": row["index"], "id": row["id"], "tokens": found.ids, "learned": found.learned})
                    samples, tokens, learned = samples + 1, tokens + len(found.ids), learned + sum(found.learned)
                writer.write_batch(pa.RecordBatch.from_pylist(made, schema=_SCHEMA))
    if not samples:
        temporary.unlink()
        raise DataError(f"none of {len(inputs)} rows can be learned from: {'; '.join(reasons) or 'there are none'}")
    replace_whole(temporary, path)
    return TokenCount(
        samples=samples, tokens=tokens, learned=learned, left_out=left_out, reasons=reasons, cut=cut, cut_rows=cut_rows,
        apart=apart,
    )  # fmt: skip


def _batches(inputs: Inputs, wanted: Callable[[int], bool]) -> Iterator[list[Row]]:
    for start in range(0, len(inputs), _ROWS_A_BATCH):
        rows = python_rows(inputs.rows(start, min(len(inputs), start + _ROWS_A_BATCH)))
        yield [row for row in rows if wanted(row["index"])]


class TokenFile:
    """A memory-mapped token file: `lengths` (tokens) and `targets` (trained tokens) of all samples, and the ids of one.
    """

    def __init__(self, path: Path) -> None:
        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._parts = [chunk for chunk in self._table.column("tokens").chunks if len(chunk)]
        self._marks = [chunk for chunk in self._table.column("learned").chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self.rows: Ints = self._table.column("index").to_numpy().astype(np.int64)
        self.lengths: Ints = np.concatenate([np.diff(part.offsets.to_numpy()).astype(np.int64) for part in self._parts])
        self.targets: Ints = np.concatenate([_learned(mark) for mark in self._marks])

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """(ids, trained) of one sample."""
        part = int(np.searchsorted(self._starts, number, side="right")) - 1
        place = number - int(self._starts[part])
        ids, marks = self._parts[part][place].values, self._marks[part][place].values
        return ids.to_numpy(), marks.to_numpy(zero_copy_only=False)


def _learned(marks: pa.ListArray) -> Ints:
    """The number of True values in each list of a chunk."""
    flat = marks.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = marks.offsets.to_numpy() - marks.offsets[0].as_py()
    sums = np.concatenate([[0], np.cumsum(flat)])
    counted: Ints = sums[offsets[1:]] - sums[offsets[:-1]]
    return counted


@dataclass(frozen=True, kw_only=True)
class TokenFacts:
    """The content of tokens.json: counts, steps, `units` per epoch, and the most tokens of a sample.

    `files` are the SHA-256 of the token files by name, and `attempt` is whose rank 0 has compared them last: the other
    ranks of that attempt may read them.
    """

    train: TokenCount
    validation: TokenCount | None
    steps: int
    units: int
    longest: int
    files: dict[str, str] = field(default_factory=dict)
    attempt: str = ""

    @classmethod
    def known(cls, paths: RunPaths) -> TokenFacts | None:
        """The facts of a run; None before rank 0 has written them, or if the file is damaged."""
        try:
            return cls.read(paths.token_facts)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @classmethod
    def read(cls, path: Path) -> TokenFacts:
        """Read tokens.json."""
        values = read_json(path)
        validation = values["validation"]
        counts = {"train": TokenCount(**values["train"]), "validation": validation and TokenCount(**validation)}
        return cls(**values | counts)

    def warnings(self) -> list[str]:
        """What happened to rows that are not learned as they stand."""
        found = list[str]()
        for of, count in (("", self.train), ("validation ", self.validation)):
            if count and count.left_out:
                what = f"{count.left_out} {of}rows were left out, with nothing to learn"
                found.append(f"{what}: {_shown(count.reasons, count.left_out)}")
            if count and count.cut:
                what = f"{count.cut} {of}rows are longer than {self.longest} tokens (train.max_length)"
                found.append(f"{what} and were truncated: {_shown(count.cut_rows, count.cut)}")
            if count and count.apart:
                found.append(
                    f"{count.apart} {of}chats have an earlier answer that later prompts hold in other tokens, as a "
                    "token reaches over its border: later answers are learned behind the tokens that it was made of"
                )
        return found

    def write(self, path: Path) -> None:
        """Write tokens.json."""
        write_json(path, asdict(self))


def _shown(rows: Sequence[str], count: int) -> str:
    """The first rows, and how many there are beside them."""
    return "; ".join([*rows, *([f"and {count - len(rows)} more"] if rows and count > len(rows) else [])])


def whole_tokens(paths: RunPaths, attempt: str) -> TokenFacts | None:
    """For rank 0: the facts of the token files that an earlier start made, now proved whole for this `attempt`.

    None if there are none, or if they are not what was written: they are derived from the rows, and made again.
    """
    if not paths.token_facts.exists():
        return None
    facts = TokenFacts.known(paths)
    if facts is None or (wrong := _wrong(paths, facts)):
        log.warning("%s: the tokens are made again", wrong if facts else f"{paths.token_facts} cannot be read")
        return None
    facts = replace(facts, attempt=attempt)
    facts.write(paths.token_facts)
    return facts


def _wrong(paths: RunPaths, facts: TokenFacts) -> str | None:
    """Which token file is not what was written."""
    try:
        if facts.files:
            changed = [name for name, digest in facts.files.items() if sha256_of(paths.inputs / name) != digest]
        else:  # of an earlier version
            changed = [] if len(TokenFile(paths.tokens)) == facts.train.samples else [paths.tokens.name]
    except (OSError, ValueError) as error:
        return f"a token file cannot be read: {error}"
    return f"{paths.inputs / changed[0]} is not what was written" if changed else None


def wait_for_tokens(paths: RunPaths, attempt: str, timeout: float) -> TokenFacts:
    """Wait until rank 0 of this `attempt` has made or proved the tokens; returns the facts.

    Raises a RendezvousError after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while (facts := TokenFacts.known(paths)) is None or facts.attempt != attempt:
        if time.monotonic() > deadline:
            raise RendezvousError(f"rank 0 has not made the tokens within {timeout:g} s: {paths.token_facts}")
        time.sleep(_POLL_SECONDS)
    return facts
