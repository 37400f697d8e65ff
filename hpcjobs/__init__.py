"""hpcjobs: Slurm jobs for models and data that finish complete and scored, even when ranks or nodes die."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["AccelerateConnector", "__version__"]

if TYPE_CHECKING:
    from hpcjobs.connector import AccelerateConnector
else:  # for a type checker, any name would exist

    def __getattr__(name: str) -> type:
        """`hpcjobs.AccelerateConnector`, imported when it is first asked for (PEP 562)."""
        if name != "AccelerateConnector":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from hpcjobs.connector import AccelerateConnector

        return AccelerateConnector


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
