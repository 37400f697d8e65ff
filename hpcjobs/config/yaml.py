"""YAML with the numbers and booleans of YAML 1.2, and output that YAML 1.1 readers read the same way."""

from __future__ import annotations

import re
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """A loader with the numbers and booleans of YAML 1.2.

    PyYAML follows YAML 1.1, which reads `time: 1:30:00` as 5400, `1e-4` as a string and `no` as False.
    """


Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _decimal(loader: Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # PyYAML's own would read 010 as octal


def _float(loader: Loader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


Loader.add_constructor("tag:yaml.org,2002:int", _decimal)
Loader.add_constructor("tag:yaml.org,2002:float", _float)


class _Dumper(yaml.SafeDumper):
    """Quotes texts that YAML 1.1 or 1.2 would read as something else, such as `1e4` and `yes`."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Escapes Unicode line breaks: outside double quotes a reader may replace them."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _BREAKS.search(text) else None)


_BREAKS = re.compile("[\r\x85\u2028\u2029]")
_Dumper.add_representer(str, _text)
_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *Loader.yaml_implicit_resolvers}
}


def parse_yaml(text: str) -> Any:
    """One YAML value, read as config files are."""
    return yaml.load(text, Loader=Loader)


def dump_yaml(value: object) -> str:
    """YAML text that `parse_yaml`, and any other YAML reader, reads back as `value`."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text
