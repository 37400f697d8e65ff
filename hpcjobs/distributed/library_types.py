"""Types of libraries that need not be imported to know that a value is none of theirs."""

from __future__ import annotations

import sys


def is_a(value: object, module: str, *names: str) -> bool:
    """Whether a value is of one of a module's classes; False where nobody has imported the module."""
    library = sys.modules.get(module)
    kinds = tuple(kind for name in names if isinstance(kind := getattr(library, name, None), type))
    return bool(kinds) and isinstance(value, kinds)


def type_name(value: object) -> str:
    """The type of a value for messages: `str`, `pandas.DataFrame`."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
