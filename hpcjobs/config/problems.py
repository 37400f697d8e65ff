"""What is wrong with a config: each problem with its place, the valid keys, and what was meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
from pydantic import BaseModel

from hpcjobs.config.layers import Layer
from hpcjobs.config.placing import at_place
from hpcjobs.config.schema import Config
from hpcjobs.errors import ConfigError, did_you_mean

# pydantic's messages name Python types, but the user writes YAML.
_WORDS = {
    "model_type": "is a section: write its keys below it",
    "dict_type": "holds keys and values, such as {key: value}",
    "tuple_type": "is a list, such as [one, two]",
    "missing": "is missing",
}


def validate(layer: Layer) -> Config:
    """The Config of merged layers. Raises a ConfigError with up to five problems, each with its place and the valid
    keys.
    """
    values = _tuples(layer.values)
    try:
        return Config.model_validate(values)
    except pydantic.ValidationError as error:
        # Unknown keys first: a missing key may be a misspelt one. One problem per key: pydantic reports one
        # for each type that the value could have.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        messages: dict[str, str] = {}
        for problem in problems:
            location = _location(problem["loc"], values)
            messages.setdefault(".".join(location), _explain(problem, location, layer.places))
        raise ConfigError("\n".join(list(messages.values())[:5])) from None


def _location(parts: Sequence[Any], values: Any) -> list[str]:
    """The config key of a pydantic location, without what pydantic adds about types and keys."""
    location = []
    for part in parts:
        if not isinstance(values, Mapping | tuple) or (isinstance(values, tuple) and not isinstance(part, int)):
            break
        location.append(str(part))
        values = values.get(part) if isinstance(values, Mapping) else values[part]
    return location


def _tuples(value: Any) -> Any:
    """YAML's lists as the tuples that a frozen config holds."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _explain(problem: Any, location: Sequence[str], places: Mapping[str, str]) -> str:
    key, message = ".".join(location), problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        valid = _valid_keys(location[:-1])
        hint = f"{did_you_mean(location[-1], valid)}; valid here: {', '.join(valid)}"
        return f"{_place(location, places)}: unknown key '{key}'{hint}"
    if isinstance(problem["input"], Mapping) and problem["type"] == "value_error":
        # About several keys of a section: the place is that of the first key in the message that is set.
        named = [word for word in re.findall(r"\w+\.\w+", message) if word in places]
        return f"{places[named[0]] if named else _place(location, places)}: {message}"
    shown = isinstance(problem["input"], str | int | float | None) and problem["loc"][-1] != "[key]"
    got = f" (got {problem['input']!r})" if shown and not key.startswith("cluster.env.") else ""  # may be a secret
    return at_place(_place(location, places), key, f"{key}: {_WORDS.get(problem['type'], message)}{got}"[:2000])


def _place(location: Sequence[str], places: Mapping[str, str]) -> str:
    """The place of a key; else of the nearest section around it, or of something in it."""
    around = [".".join(location[:length]) for length in range(len(location), 0, -1)]
    inside = [key for key in places if key.startswith(f"{around[0]}.")]
    return next((places[key] for key in [around[0], *inside, *around] if key in places), "config")


def _valid_keys(section: Sequence[str]) -> list[str]:
    model: Any = Config
    for part in section:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else model
        model = _section_of(annotation) or model
    return list(model.model_fields)


def _section_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in getattr(annotation, "__args__", ()) if (found := _section_of(arg))), None)
