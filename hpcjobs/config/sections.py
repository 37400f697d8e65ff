"""The sections of the config's schema, and their keys."""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Any

from pydantic import BaseModel

from hpcjobs.config.schema import Config


def valid_keys(path: Sequence[str]) -> list[str]:
    """The keys of the innermost section of a path such as `cluster`, `warn`; an item of a list is one."""
    model: type[BaseModel] = Config
    for part in path:
        model = _section_in(_annotation(model, part)) or model
    return list(model.model_fields)


def is_section(path: Sequence[str]) -> bool:
    """Whether a path of keys is a section: all other keys have values, of which some are mappings or lists."""
    model: type[BaseModel] = Config
    for part in path:
        found = _section_of(_annotation(model, part))
        if found is None:
            return False
        model = found
    return True


def _annotation(model: type[BaseModel], key: str) -> Any:
    return model.model_fields[key].annotation if key in model.model_fields else None


def _section_of(annotation: object) -> type[BaseModel] | None:
    """The section that a key is; a section or null is one, too."""
    kinds = annotation.__args__ if isinstance(annotation, UnionType) else (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _section_in(annotation: object) -> type[BaseModel] | None:
    """The section that a key is, or whose items it lists."""
    inner = (found for arg in getattr(annotation, "__args__", ()) if (found := _section_in(arg)))
    return _section_of(annotation) or next(inner, None)
