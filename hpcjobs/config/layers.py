"""Config layers: YAML files, `--set` and flags. Each value keeps the place it came from."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hpcjobs.config.sections import is_section
from hpcjobs.config.yaml import Loader, parse_yaml
from hpcjobs.errors import ConfigError

# Only one of each pair may be set: a higher layer that sets one removes the other from lower layers.
EITHER_OR = (
    ("task.prompt", "task.messages"), ("cluster.gpus", "cluster.gpus_per_node"), ("train.epochs", "train.max_steps"),
    ("cluster.mem", "cluster.sbatch.mem-per-cpu"), ("cluster.mem", "cluster.sbatch.mem-per-gpu"),
    ("cluster.sbatch.mem-per-cpu", "cluster.sbatch.mem-per-gpu"),
)  # fmt: skip
# A file, or a mapping of lists.
EITHER_WAY = ("sweep",)


@dataclass(frozen=True)
class Layer:
    """One source of config: nested values, and the place (`file:line` or flag) of each dotted key."""

    values: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)


def file_layer(path: Path) -> Layer:
    """The layer in a YAML file. Raises a ConfigError that names file and line."""
    try:
        return text_layer(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from None


def text_layer(text: str, source: str) -> Layer:
    """The layer in YAML text. `source` names the text in messages. Raises a ConfigError."""
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return Layer({})
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{source}:{root.start_mark.line + 1}: a config is a mapping of sections")
        places: dict[str, str] = {}
        _find_places(root, "", source, places)
        return Layer(loader.construct_document(root), places)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        hint = "" if mark is None else _hint(text.splitlines()[mark.line : mark.line + 1])
        raise ConfigError(f"{source}{line}: not YAML: {_why(error)}{hint}") from None


def _why(error: yaml.YAMLError) -> str:
    """The parser's message on one line."""
    return str(getattr(error, "problem", None) or error)


def _hint(lines: Iterable[str]) -> str:
    """What to do about the most common mistake, a template without quotes."""
    template = any(re.search(r"\{[{%]", line) for line in lines)
    return '; a text that starts with {{ needs quotes around it: "{{ column }}"' if template else ""


def _find_places(node: yaml.Node, prefix: str, source: str, places: dict[str, str]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _find_places(item, f"{prefix}{number}.", source, places)
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        place = f"{source}:{key_node.start_mark.line + 1}"
        if key in places:
            raise ConfigError(f"{place}: key '{key}' stands twice (first at {places[key]})")
        places[key] = place
        _find_places(value_node, f"{key}.", source, places)


def dotted_layer(values: Mapping[str, object], place: str | Mapping[str, str]) -> Layer:
    """The layer of flags, given as dotted key -> value. `place` is where they come from: one place for all, or one per
    key.
    """
    layer = Layer({})
    for key, value in values.items():
        where = place if isinstance(place, str) else place[key]
        target = layer.values
        *sections, last = key.split(".")
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{where}: '{key}' goes through a value that is no section")
        target[last] = value
        layer.places[key] = where
    return layer


def set_layer(assignments: Iterable[str]) -> Layer:
    """The layer of `--set a.b=c` arguments; values are YAML. Raises a ConfigError."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)+", key):
            raise ConfigError(f"--set {assignment!r}: write it as section.key=value, such as model.name=tiny")
        try:
            values[key] = parse_yaml(text)
        except yaml.YAMLError as error:
            why = f"{_why(error)}{_with_quotes(key, text)}"
            raise ConfigError(f"--set {assignment!r}: the value is not YAML: {why}") from None
    return dotted_layer(values, {key: f"--set {key}" for key in values})


def _with_quotes(key: str, text: str) -> str:
    """What to type instead of a text that is no YAML; empty for one that has quotes, and for a list."""
    if text.startswith(("'", '"', "[")):
        return ""
    quoted = f'"{text}"' if not set(text) & {'"', "\\"} else "'{}'".format(text.replace("'", "''"))
    return f"; a text needs quotes: --set {shlex.quote(f'{key}={quoted}')}"


def merge_layers(layers: Iterable[Layer]) -> Layer:
    """One layer from several: later ones win. Sections are merged, all other values replaced."""
    merged = Layer({})
    for layer in layers:
        for one, other in EITHER_OR:
            for ours, theirs in ((one, other), (other, one)):
                if _get(layer.values, ours) is not None and _get(layer.values, theirs) is None:
                    _drop(merged, theirs)
        _check_one_way(merged, layer)
        _overlay(merged, merged.values, layer.values, ())
        for key in layer.places:
            for stale in [old for old in merged.places if old.startswith(f"{key}.")]:
                if _get(merged.values, stale) is None:
                    del merged.places[stale]
        merged.places.update(layer.places)
    return merged


def _check_one_way(lower: Layer, upper: Layer) -> None:
    """Raise a ConfigError where one layer gives a key a value, and the other keys below it: one of them would be lost.
    """
    for key in EITHER_WAY:
        low, high = _get(lower.values, key), _get(upper.values, key)
        if low is None or high is None or isinstance(low, Mapping) == isinstance(high, Mapping):
            continue
        file, value, keys = (low, lower, upper) if isinstance(high, Mapping) else (high, upper, lower)
        raise ConfigError(
            f"{_place(value, key)}: {key} is the file {file!r}, and {_place(keys, key)} sets keys below it: leave one "
            "of them out"
        )


def _place(layer: Layer, key: str) -> str:
    """Where a layer sets a key, or the first one below it."""
    return layer.places.get(key) or next(layer.places[one] for one in layer.places if one.startswith(f"{key}."))


def _overlay(merged: Layer, base: dict[str, object], over: Mapping[str, object], at: tuple[str, ...]) -> None:
    """Put the values `over` those in `base`, which stand `at` these keys of `merged`."""
    for key, value in over.items():
        before = base.get(key)
        if isinstance(value, Mapping) and isinstance(before, dict):
            _overlay(merged, before, value, (*at, key))
            continue
        if isinstance(value, Mapping) and before is not None:
            if is_section((*at, key)):  # and was set to a value: validation shall say so
                continue
            merged.places.pop(".".join((*at, key)), None)
        base[key] = copy.deepcopy(value)


def _get(values: Mapping[str, object], dotted: str) -> Any:
    for part in dotted.split("."):
        if not isinstance(values, Mapping):
            return None
        values = values.get(part)  # type: ignore[assignment]
    return values


def _drop(layer: Layer, dotted: str) -> None:
    section, _, key = dotted.rpartition(".")
    if isinstance(values := _get(layer.values, section), dict):
        values.pop(key, None)
        layer.places.pop(dotted, None)
