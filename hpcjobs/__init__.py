"""hpcjobs: Slurm jobs for models and data that finish complete and scored, even when ranks or nodes die."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["AccelerateConnector", "Run", "__version__", "runs", "submit"]

if TYPE_CHECKING:
    from hpcjobs.connector import AccelerateConnector
    from hpcjobs.handle import Run, runs, submit
else:  # for a type checker, any name would exist
    _FOUND_IN = {"AccelerateConnector": "connector", "Run": "handle", "runs": "handle", "submit": "handle"}

    def __getattr__(name: str) -> object:
        """The public names, imported when they are first asked for (PEP 562)."""
        if name not in _FOUND_IN:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"hpcjobs.{_FOUND_IN[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
