"""The connector on every kind of connector_kinds, on every rank of whatever launcher: `python -m tests.connector_ranks
FOLDER` writes what each rank saw to FOLDER/<rank>.json.

What is right is computed from plain Python rows, and held against accelerate's `split_between_processes`,
`gather_object` and `gather_for_metrics`, and `shard` of `datasets`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from hpcjobs.connector import AccelerateConnector
from hpcjobs.errors import HpcJobsError, UsageError
from tests.connector_kinds import DICTS, ROWS, TEXTS, Good, Scored, bad_kinds, bad_results, good_kinds, good_results

Outcomes = dict[str, str]


def check_splits(connector: AccelerateConnector) -> Outcomes:
    """What became of each kind: `right`, or the error."""
    rank, world = connector.state.process_index, connector.state.num_processes
    found = {name: _outcome(partial(_split, connector, kind)) for name, kind in good_kinds().items()}
    for name, bad in bad_kinds(rank).items():
        found[name] = _outcome(partial(_split_wrong, connector, bad.data), bad.says)
    found["the whole of each rank"] = _outcome(lambda: _as_accelerate(connector, rank, world))
    return found


def _split_wrong(connector: AccelerateConnector, data: Callable[[], Any]) -> str:
    return f"split into {connector.split_dataset(data())}"[:80]


def _split(connector: AccelerateConnector, kind: Good) -> str:
    """Whether the part is the rank's rows in plain Python, and all parts in input order are the rows."""
    rank, world = connector.state.process_index, connector.state.num_processes
    data = kind.data()
    part = connector.split_dataset(data)
    rows = kind.plain(part)
    if rows != [row for place, row in enumerate(kind.rows) if place % world == rank]:
        return f"wrong part: {rows}"
    if type(data).__name__ in ("Dataset", "DataFrame", "Series", "Index", "Table", "RecordBatch", "ndarray", "Tensor"):
        assert type(part) is type(data) or type(part).__name__ == "Subset", type(part)
    if type(data).__name__ == "Dataset" and hasattr(data, "shard"):
        assert part.to_list() == data.shard(world, rank, contiguous=False).to_list()
    gathered = connector.gather_results(rows)
    expected = kind.rows if connector.is_main_process else []
    return "right" if gathered == expected else f"wrong results: {gathered}"


def _as_accelerate(connector: AccelerateConnector, rank: int, world: int) -> str:
    """Sizes are those of accelerate's own split, and results those of its own gathers."""
    import torch
    from accelerate.utils import gather_object

    for count in (0, 1, world, 7, 97):
        data = [f"item {n}" for n in range(count)]
        mine = connector.split_dataset(data)
        with connector.state.split_between_processes(data) as theirs:
            assert len(mine) == len(theirs), (count, len(mine), len(theirs))
        every = gather_object([(place, text.upper()) for place, text in enumerate(data) if place % world == rank])
        ours = connector.gather_results([text.upper() for text in mine])
        assert ours == ([text for _, text in sorted(every)] if rank == 0 else [])
    loader: Any = torch.utils.data.DataLoader(torch.arange(12), batch_size=2)  # type: ignore[arg-type]
    metric = [connector.accelerator.gather_for_metrics(batch * 3) for batch in connector.accelerator.prepare(loader)]
    ours = connector.gather_results(connector.split_dataset(torch.arange(12)) * 3)
    assert [int(one) for one in ours] == (sorted(torch.cat(metric).tolist()) if rank == 0 else [])
    return "right"


def check_gathers(connector: AccelerateConnector) -> Outcomes:
    """What became of each kind of results."""
    rank, world = connector.state.process_index, connector.state.num_processes
    mine = list(range(rank, ROWS, world))
    found: Outcomes = {}
    for name, (results, of) in good_results(mine).items():
        expected = [of(n) for n in range(ROWS)] if rank == 0 else []
        found[f"results: {name}"] = _outcome(partial(_gathered, connector, results, expected))
    for name, (results, says) in bad_results(rank, mine).items():
        found[f"results: {name}"] = _outcome(partial(_gathered, connector, results, []), says)
    found["results: one a rank"] = _outcome(lambda: _gathered(connector, [rank], [*range(world)] if rank == 0 else []))
    found["results: rows of a large tensor"] = _outcome(lambda: _views(connector, mine))
    return found


def _gathered(connector: AccelerateConnector, results: Any, expected: list[Any]) -> str:
    found = connector.gather_results(results)
    right = type(found) is list and len(found) == len(expected) and all(map(_equal, found, expected))
    return "right" if right else f"wrong: {found}"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Scored):
        return one.text == other.text and bool((one.logits == other.logits).all())
    return bool(one == other)


def _views(connector: AccelerateConnector, mine: list[int]) -> str:
    """Rows of a tensor are sent without the tensor."""
    import torch

    from hpcjobs.distributed.results import packed

    large = torch.zeros(ROWS, 25_000)
    rows = [large[n] for n in mine]
    size = len(packed(rows))
    assert size < 110_000 * len(mine), size
    return _gathered(connector, rows, [large[0]] * 0 if connector.state.process_index else [_Row()] * ROWS)


class _Row:
    def __eq__(self, other: object) -> bool:
        return getattr(other, "shape", None) == (25_000,)

    __hash__ = None  # type: ignore[assignment]


def check_prompts(connector: AccelerateConnector) -> Outcomes:
    """What is no list of prompts is refused before a model is loaded."""
    chat = [{"role": "user", "content": "Spell: wecu"}]
    wrong: Mapping[str, tuple[Any, str]] = {
        "a bare string": ("Spell: wecu", "this is one text: call complete(text)"),
        "one chat": (chat, "this is one chat: call complete(chat)"),
        "None": (None, "a NoneType is no list of prompts"),
        "a number": (7, "a int is no list of prompts"),
        "a dict of columns": ({"text": TEXTS}, "a dict is no list of prompts"),
        "a set": ({"a", "b"}, "a set is no list of prompts"),
        "rows": (DICTS, "prompt 0 is a dict: pass what is asked of a row"),
        "numbers": (["a", 7], "prompt 1 is a int"),
        "lists of texts": ([["a", "b"]], "prompt 0 is a list of texts"),
    }
    found = {
        f"prompts: {name}": _outcome(partial(_completed, connector, given), says)
        for name, (given, says) in wrong.items()
    }
    found["prompts: none"] = _outcome(lambda: "right" if connector.complete_batch([]) == [] else "wrong")
    return found


def check_training(connector: AccelerateConnector) -> Outcomes:
    """A part of the data is not split again by the loop over its batches; on one rank there is nothing to split."""
    import torch
    from torch.utils.data import DataLoader

    model = torch.nn.Linear(1, 1)
    mine: Any = connector.split_dataset(torch.arange(8.0).reshape(8, 1))

    def prepared(data: Any) -> str:
        optimizer = torch.optim.SGD(model.parameters())
        loader = connector.prepare_for_training(model, optimizer, DataLoader(data))[2]
        return "right" if len(loader) == 8 // connector.state.num_processes else f"{len(loader)} batches"

    alone = connector.state.num_processes == 1
    says = None if alone else "a DataLoader has a part of split_dataset"
    return {
        "training: the whole": _outcome(partial(prepared, torch.arange(8.0).reshape(8, 1))),
        "training: a part": _outcome(partial(prepared, mine), says),
    }


def _completed(connector: AccelerateConnector, prompts: Any) -> str:
    return f"gave {connector.complete_batch(prompts)}"


def _outcome(work: Callable[[], str], says: str | None = None) -> str:
    """`right`, `refused`, or what else happened."""
    try:
        return work()
    except UsageError as error:
        return "refused" if says and says in str(error) else f"UsageError: {error}"
    except (HpcJobsError, ValueError) as error:  # of a failing generator each rank has its own
        said = f"{type(error).__name__}: {error}"
        return "refused" if says and says in said and "is broken" in said else said
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def check_late_rank(connector: AccelerateConnector) -> Outcomes:
    """A rank may come later than any collective of the group waits."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _set_pg_timeout

    if connector.state.num_processes == 1:
        return {}
    _set_pg_timeout(timedelta(seconds=1), dist.group.WORLD)
    if not connector.is_main_process:
        time.sleep(2)
    return {"results: of a late rank": _outcome(lambda: _late(connector))}


def _late(connector: AccelerateConnector) -> str:
    found = connector.gather_results([connector.state.process_index])
    return "right" if found == ([0, 1] if connector.is_main_process else []) else f"wrong: {found}"


def check_lost_rank(connector: AccelerateConnector) -> Outcomes:
    """The last step: one rank has gone, and the other is told instead of waiting."""
    from hpcjobs.distributed.group import leave_group

    if connector.state.num_processes == 1:
        return {}
    if not connector.is_main_process:
        leave_group()
        return {"results: of a lost rank": "gone"}
    says = _outcome(lambda: f"gave {connector.gather_results([0])}")
    told = says.startswith("RendezvousError: gather_results: another rank has ended")
    return {"results: of a lost rank": "gone" if told else says}


def main(folder: str) -> None:
    """All checks, in the group of the launcher."""
    connector = AccelerateConnector("tiny", mixed_precision="no")
    rank, world = connector.state.process_index, connector.state.num_processes
    found: dict[str, Any] = {"world": world}
    checks = (check_splits, check_gathers, check_prompts, check_training, check_late_rank, check_lost_rank)
    for check in checks:
        found |= check(connector)
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
