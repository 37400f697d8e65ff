"""A supervisor on another machine, or on this one before it was started anew, is not taken to work for ever."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from hpcjobs.commands.local_supervisor import may_work
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.submission import Launch

OWN = Identity.own()
BOOT, _, NAMESPACE = OWN.machine.partition("/")
FAR = {"machine": "0000/pid:[1]", "pid": 7, "started": "9"}


def launch(supervisor: Any, host: str = "far") -> Launch:
    return Launch(number=0, executor="local", jobs={}, shape="", ranks=2, supervisor=supervisor, host=host)


def rank(ended_at: float | None, host: str = "far", attempt: str = "local0t1") -> Any:
    return SimpleNamespace(vitals=SimpleNamespace(attempt=attempt, host=host, ended_at=ended_at))


def merged(at: float) -> Any:
    return SimpleNamespace(provenance=SimpleNamespace(merged_at=at))


@pytest.mark.parametrize(
    ("one", "ranks", "merges", "metrics", "works"),
    [
        (launch({}), [], True, None, False),
        (launch(OWN.values()), [rank(5.0), rank(6.0)], True, merged(9.0), True),
        (launch({**OWN.values(), "started": "1"}), [], True, None, False),
        (launch(FAR), [], True, None, True),
        (launch(FAR), [rank(5.0)], True, merged(9.0), True),
        (launch(FAR), [rank(5.0), rank(None)], True, merged(9.0), True),
        (launch(FAR), [rank(5.0), rank(6.0)], True, None, True),
        (launch(FAR), [rank(5.0), rank(6.0)], True, merged(5.5), True),
        (launch(FAR), [rank(5.0), rank(6.0)], True, merged(6.5), False),
        (launch(FAR), [rank(5.0), rank(6.0)], False, None, False),
        (launch(FAR), [rank(5.0), rank(6.0, attempt="local1t1")], False, None, True),
        (launch(FAR, socket.gethostname()), [], True, None, False),
        (launch(FAR, ""), [rank(None, socket.gethostname())], True, None, False),
        (launch({**FAR, "machine": f"{BOOT}/pid:[1]"}, socket.gethostname()), [], True, None, True),
    ],
)  # fmt: skip
def test_whether_it_works(one: Launch, ranks: Any, merges: bool, metrics: Any, works: bool) -> None:
    assert may_work(one, ranks, merges, metrics) is works
