"""Whether a rank finds what was planned: inputs, model and versions of packages."""

from __future__ import annotations

import logging

from hpcjobs.distributed.work import Work
from hpcjobs.engines.fingerprint import changed_error, changed_weights
from hpcjobs.run_folder.planned import allow, changed_inputs, changed_versions

log = logging.getLogger(__name__)


def check_as_planned(work: Work) -> None:
    """Raise a ChangedError that names what has changed since the run was planned, or since its first start.

    With `run.allow_changed` it is recorded instead. One rank a node reads the inputs, which are shared.
    """
    config = work.config
    changed = changed_weights(config.model, work.plan.model)
    if work.rank.local_rank == 0:
        changed += changed_inputs(work.paths)
    changed += changed_versions(work.paths)
    if not changed:
        return
    if not config.run.allow_changed:
        raise changed_error(changed, work.paths.root)
    for line in changed:
        log.warning("not as planned, and allowed: %s", line)
    if work.rank.is_main:
        allow(work.paths, work.rank.attempt, changed)
