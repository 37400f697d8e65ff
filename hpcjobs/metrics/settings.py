"""The options of a metric, which are part of its name: `bleu(tokenize=zh)`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

import pydantic
from pydantic import BaseModel, ConfigDict

from hpcjobs.errors import ConfigError, did_you_mean

_CONFIGURED = re.compile(r"(?P<metric>\w+)\((?P<options>[^()]*=[^()]*)\)")


class Settings(BaseModel):
    """Base of the options of a metric, under the names that its library gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that are set."""
        return self.model_dump(exclude_unset=True)


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """The metric and its options as texts: `("bleu", {"tokenize": "zh"})` for `bleu(tokenize=zh)`."""
    found = _CONFIGURED.fullmatch(name)
    if not found:
        return name, {}
    pairs = (part.partition("=") for part in found["options"].split(","))
    return found["metric"], {key.strip(): value.strip() for key, _, value in pairs}


def full_name(metric: str, options: Mapping[str, str]) -> str:
    """The metric's name in results, with its options."""
    return f"{metric}({', '.join(f'{key}={value}' for key, value in options.items())})" if options else metric


def checked_settings(metric: str, kind: type[Settings] | None, options: Mapping[str, str]) -> Settings:
    """The options of a metric. Raises a ConfigError that names the option and the valid ones."""
    if kind is None:
        raise ConfigError(f"task.metrics: {metric} has no options, and {full_name(metric, options)!r} gives it some")
    valid = list(kind.model_fields)
    for key in options:
        if key not in valid:
            hint = did_you_mean(key, valid)
            raise ConfigError(f"task.metrics: {metric} has no option {key!r}{hint}; it has {', '.join(valid)}")
    try:
        return kind.model_validate(options)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0])
        raise ConfigError(f"task.metrics: {metric}: {key}: {_said(kind, key, problem)}") from None


def _words(annotation: object) -> list[str]:
    """The words of a Literal, also beside None."""
    return [each for arg in get_args(annotation) for each in ([arg] if isinstance(arg, str) else _words(arg))]


def _said(kind: type[Settings], key: str, problem: Any) -> str:
    choices = _words(kind.model_fields[key].annotation)
    if not choices:
        return f"{problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r})"
    return f"{problem['input']!r} is none of {', '.join(choices)}{did_you_mean(str(problem['input']), choices)}"
