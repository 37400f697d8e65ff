"""Intermediate models, each with an eval that is queued while training goes on."""

from __future__ import annotations

import logging
import subprocess
from typing import TYPE_CHECKING

from hpcjobs.launch.entry import begin_evals
from hpcjobs.run_folder.files import make_folder
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.submission import read_launches
from hpcjobs.training.checkpoints.state import random_state, set_random_state
from hpcjobs.training.export import write_model

if TYPE_CHECKING:
    from hpcjobs.distributed.work import Work
    from hpcjobs.training.setup import Prepared

log = logging.getLogger(__name__)
# How long the end of a training waits for an eval to be queued; after that the merge job starts it.
_PATIENCE = 60.0


class Milestones:
    """Intermediate models, every `train.then_eval_every` steps but the last: all ranks call `due`, rank 0 `missing`,
    and all `reach`.
    """

    def __init__(self, work: Work, prepared: Prepared, steps: int) -> None:
        self._work, self._prepared, self._steps = work, prepared, steps
        self._queueing: subprocess.Popen[bytes] | None = None

    def due(self, step: int) -> bool:
        """Whether there should be a model after `step`; the last step has the final one."""
        every = self._work.config.train.then_eval_every
        return bool(every) and step % (every or 1) == 0 and step < self._steps

    def missing(self, step: int) -> bool:
        """Whether an earlier start has not written it yet."""
        return not self._work.paths.step_model(step).exists()

    def reach(self, step: int) -> None:
        """Write the current model as that of `step`; under Slurm, rank 0 queues its eval."""
        work, state = self._work, self._work.heartbeat.vitals.state
        work.heartbeat.enter(RankState.SAVING)
        if work.rank.is_main:
            make_folder(work.paths.models)
        random = random_state()
        write_model(work, self._prepared, work.paths.step_model(step))
        set_random_state(random)  # a start that finds the model there writes none, and must go on alike
        work.heartbeat.enter(state)
        if work.rank.is_main and any(one.executor == "slurm" for one in read_launches(work.paths)[-1:]):
            self._queue()

    def close(self) -> None:
        """Wait for an eval that is being queued, up to a limit."""
        if self._queueing is not None:
            try:
                self._queueing.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._queueing.kill()
                log.warning("an eval was not queued within %.0f s: the merge job does it", _PATIENCE)
            self._queueing = None

    def _queue(self) -> None:
        """Queue evals in a process of their own: it takes a second or two, and must not affect the training."""
        self.close()
        self._queueing = begin_evals(self._work.paths, apart=False)
