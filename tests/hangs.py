"""A rank that hangs: a user's metric that stands still for ever at a sample, as often as a test says."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

_numbers = itertools.count()
_SOURCE = """
import os
import time


class Hangs:
    needs_target = False

    def __init__(self):
        stand_still("loading")

    def score(self, completion, target, row):
        stand_still(row["question"].split()[1])
        return 1.0


def stand_still(where):
    for turn in range(10):
        try:
            os.rename(f"{HERE}/{where}.{turn}", f"{HERE}/{where}.{turn}.taken")
        except FileNotFoundError:
            continue
        while True:
            time.sleep(0.01)
"""


class Hangs:
    """The module, written to `folder`; its metric's name for a config in `metric`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, name = folder / "hangs", f"hangs_{next(_numbers)}"
        self._folder.mkdir()
        (self._folder / f"{name}.py").write_text(f"HERE = {str(self._folder)!r}\n{_SOURCE}")
        monkeypatch.syspath_prepend(str(self._folder))
        self.metric = f"{name}:Hangs"

    def at(self, where: int | str, times: int = 1) -> None:
        """Let the next `times` ranks that come to this sample, or to `loading`, stand still there."""
        for turn in range(times):
            (self._folder / f"{where}.{turn}").touch()

    def happened(self) -> int:
        """How many ranks have come to a stand so far."""
        return len(list(self._folder.glob("*.taken")))

    def no_more(self) -> None:
        """Whoever comes from now on passes."""
        for path in self._folder.glob("*.[0-9]"):
            path.unlink()
