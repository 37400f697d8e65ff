"""How a stream of requests becomes completions."""

from hpcjobs.engines.base import Engine, Source

__all__ = ["Engine", "Source"]
