"""Say where a key was set in an error that names it: raised while planning, when values stand alone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

from hpcjobs.errors import UsageError

_KEY = re.compile(r"[a-z_]+(\.\w+)+(?=[:, ]|$)")
# What a message may begin with instead of a key.
_ABOUT = {"data file": "data.name", "data folder": "data.name", "data set": "data.name", "model folder": "model.name"}


@contextlib.contextmanager
def placing(places: Mapping[str, str], otherwise: str = "") -> Iterator[None]:
    """Errors raised in the block say the place of the key that they begin with, else `otherwise`.

    `places` gives the place (`file:line` or flag) of each dotted key.
    """
    try:
        yield
    except UsageError as error:
        message = placed(str(error), places, otherwise)
        if message == str(error):
            raise
        raise type(error)(message) from error


def placed(message: str, places: Mapping[str, str], otherwise: str = "") -> str:
    """The message behind its place, if the key that it begins with was set."""
    found = _KEY.match(message)
    key = found[0] if found else next((key for words, key in _ABOUT.items() if message.startswith(words)), "")
    place = _place(key, places) or otherwise
    return at_place(place, key, message) if place else message


def at_place(place: str, key: str, message: str) -> str:
    """`place: message`, without saying a key twice that its `--set` names."""
    if place == f"--set {key}" and message.startswith(key):
        return f"--set {message}"
    return f"{place}: {message}"


def _place(key: str, places: Mapping[str, str]) -> str | None:
    """The place of a key, or of the value around it, such as the list task.choices of task.choices.0."""
    parts = key.split(".")
    around = (".".join(parts[:length]) for length in range(len(parts), 1, -1))
    return next((places[key] for key in around if key in places), None)
