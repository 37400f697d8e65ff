"""The states of a rank: those in its heartbeat, and those that others infer."""

from __future__ import annotations

from enum import StrEnum


class RankState(StrEnum):
    """The state of a rank; the values are the words on disk and in JSON output.

    An unknown word, from a newer version, becomes a state of that name and is shown as it is.
    """

    # What a rank says of itself while it runs.
    STARTING = "starting"  # it joins the others and reads the plan
    LOADING = "loading"  # the model is being loaded
    WORKING = "working"  # samples or steps are being run
    WAITING = "waiting"  # nothing is free; chunks that others hold may come back
    SAVING = "saving"  # a checkpoint or a model is being written
    VALIDATING = "validating"  # the validation loss is being measured
    DRAINING = "draining"  # its time is up: it finishes what it can, and begins nothing new
    # How it has ended: the first three it says itself, the fourth its guard does.
    DONE = "done"  # nothing was left to do
    DRAINED = "drained"  # it was asked to end, or its time was up, and it has left in order
    FAILED = "failed"  # an error has ended it
    DEAD = "dead"  # its process was ended from outside: by a signal, by the kernel, with its node
    # What only others can say of it (`liveness.py`).
    OVER = "over"  # it has said no end, and belongs to a start that is over
    SILENT = "silent"  # no heartbeat for longer than `run.lease_timeout`
    NO_HEARTBEAT = "no heartbeat"  # there is a journal of it and no heartbeat

    @classmethod
    def _missing_(cls, value: object) -> RankState | None:
        if not isinstance(value, str):
            return None
        other = str.__new__(cls, value)
        other._name_ = other._value_ = value
        return other


# A rank in one of these has ended, by its own word or its guard's.
ENDED = frozenset({RankState.DONE, RankState.DRAINED, RankState.FAILED, RankState.DEAD})
