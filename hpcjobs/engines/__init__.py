"""Engines: turn a stream of requests into completions."""

from hpcjobs.engines.base import Engine, Source

__all__ = ["Engine", "Source"]
