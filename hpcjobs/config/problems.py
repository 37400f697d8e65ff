"""What is wrong with a config: each problem with its place, the valid keys, and what was meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from hpcjobs.config.layers import Layer
from hpcjobs.config.placing import at_place
from hpcjobs.config.schema import Config
from hpcjobs.config.sections import valid_keys
from hpcjobs.errors import ConfigError, did_you_mean

# pydantic's messages name Python types, but the user writes YAML.
_WORDS = {
    "model_type": "must be a section: write its keys below it",
    "dict_type": "holds keys and values, such as {key: value}",
    "tuple_type": "must be a list, such as [one, two]",
    "missing": "is missing",
    "string_type": "must be a text",
}


def validate(layer: Layer) -> Config:
    """The Config of merged layers. Raises a ConfigError with up to five problems, each with its place and the valid
    keys.
    """
    values = _tuples(layer.values)
    try:
        return Config.model_validate(values)
    except pydantic.ValidationError as error:
        # Unknown keys first: a missing key may be a misspelt one. One message per key: pydantic reports one problem
        # for each type that the value could have.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        by_key: dict[str, list[Any]] = {}
        for problem in problems:
            location = _location(problem["loc"], values, problem["type"] == "missing")
            by_key.setdefault(".".join(location), []).append(problem)
        messages = [_explain(found, key, layer.places) for key, found in by_key.items()]
        raise ConfigError("\n".join(messages[:5])) from None


def _location(parts: Sequence[Any], values: Any, missing: bool) -> list[str]:
    """The config key of a pydantic location, without what pydantic adds about types and keys; it may be `missing`."""
    location = []
    for part in parts:
        if not isinstance(values, Mapping | tuple) or (isinstance(values, tuple) and not isinstance(part, int)):
            break
        if isinstance(values, Mapping) and part not in values and not missing:  # one of several types of the value
            break
        location.append(str(part))
        if isinstance(values, tuple) and part >= len(values):  # an item that is missing
            break
        values = values.get(part) if isinstance(values, Mapping) else values[part]
    return location


def _tuples(value: object) -> Any:
    """YAML's lists as the tuples that a frozen config holds."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _explain(problems: Sequence[Any], key: str, places: Mapping[str, str]) -> str:
    """A message about all problems of one key."""
    location, words = key.split("."), [_words(problem, alone=len(problems) == 1) for problem in problems]
    problem, place = problems[0], _place(location, places)
    if problem["type"] == "extra_forbidden":
        valid = valid_keys(location[:-1])
        hint = f"{did_you_mean(location[-1], valid)}; valid here: {', '.join(valid)}"
        return f"{place}: unknown key '{key}'{hint}"
    if isinstance(problem["input"], Mapping) and problem["type"] == "value_error":
        # About several keys of a section: the place is that of the first key in the message that is set.
        named = [word for word in re.findall(r"\w+\.\w+", words[0]) if word in places]
        where = named[0] if named else key
        return at_place(places.get(where, place), where, words[0])
    more = (word.removeprefix("Input should be ").removeprefix("must be ") for word in words[1:])
    message = " or ".join(dict.fromkeys([words[0], *more]))
    shown = isinstance(problem["input"], str | int | float | None) and problem["loc"][-1] != "[key]"
    got = f" (got {problem['input']!r})" if shown and not key.startswith("cluster.env.") else ""  # may be a secret
    return at_place(place, key, f"{key}: {message}{got}"[:2000])


def _words(problem: Any, alone: bool) -> str:
    """What is wrong, for who writes YAML; `alone`: the value can be of one type only."""
    kind, value = problem["type"], problem["input"]
    if alone and kind == "string_type" and isinstance(value, Mapping):
        return "must be a text: one with braces or a colon in it needs quotes"
    return _WORDS.get(kind, str(problem["msg"]).removeprefix("Value error, "))


def _place(location: Sequence[str], places: Mapping[str, str]) -> str:
    """The place of a key; else of the nearest section around it, or of something in it."""
    around = [".".join(location[:length]) for length in range(len(location), 0, -1)]
    inside = [key for key in places if key.startswith(f"{around[0]}.")]
    return next((places[key] for key in [around[0], *inside, *around] if key in places), "config")
