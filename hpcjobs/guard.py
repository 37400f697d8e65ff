"""The entry points that jobs queued by an earlier version import. To be removed in the release after 0.2."""

from hpcjobs.commands.finish import guard_merge
from hpcjobs.worker.__main__ import guard_rank

__all__ = ["guard_merge", "guard_rank"]
