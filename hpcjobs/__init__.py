"""hpcjobs: Slurm jobs for models and data that finish complete and scored, even when ranks or nodes die."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AccelerateConnector", "AutoExecutor", "Executor", "Job", "JobEnvironment", "Run", "__version__", "helpers", "runs",
    "submit",
]  # fmt: skip

if TYPE_CHECKING:
    from submitit import JobEnvironment

    from hpcjobs import helpers
    from hpcjobs.connector import AccelerateConnector
    from hpcjobs.functions.executor import Executor
    from hpcjobs.functions.executor import Executor as AutoExecutor
    from hpcjobs.functions.job import Job
    from hpcjobs.handle import Run, runs, submit
else:  # for a type checker, any name would exist
    _FROM = {
        "AccelerateConnector": "hpcjobs.connector:AccelerateConnector",
        "AutoExecutor": "hpcjobs.functions.executor:Executor",
        "Executor": "hpcjobs.functions.executor:Executor",
        "Job": "hpcjobs.functions.job:Job",
        "JobEnvironment": "submitit:JobEnvironment",
        "Run": "hpcjobs.handle:Run",
        "helpers": "hpcjobs.helpers:",
        "runs": "hpcjobs.handle:runs",
        "submit": "hpcjobs.handle:submit",
    }

    def __getattr__(name: str) -> Any:
        """What `import hpcjobs` offers, imported when it is first asked for (PEP 562)."""
        if name not in _FROM:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        module, _, attribute = _FROM[name].partition(":")
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
