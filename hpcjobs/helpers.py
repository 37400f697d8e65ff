"""submitit's helpers, for functions that hpcjobs.Executor runs: Checkpointable, DelayedSubmission, as_completed..."""

from __future__ import annotations

import os

import submitit.helpers
from submitit.helpers import Checkpointable as Checkpointable
from submitit.helpers import CommandFunction as CommandFunction
from submitit.helpers import DelayedSubmission as DelayedSubmission
from submitit.helpers import FunctionSequence as FunctionSequence
from submitit.helpers import RsyncSnapshot as RsyncSnapshot
from submitit.helpers import as_completed as as_completed
from submitit.helpers import clean_env as clean_env
from submitit.helpers import environment_variables as environment_variables
from submitit.helpers import monitor_jobs as monitor_jobs

# Before the names of the variables under which hpcjobs keeps what it knows of the ranks of a call of several tasks.
KEPT = "HPCJOBS_"


class TorchDistributedEnvironment(submitit.helpers.TorchDistributedEnvironment):  # type: ignore[misc]
    """As submitit's, with an address that the other nodes reach and a port that is free where hpcjobs found one.

    submitit's takes the first host name, which other nodes may not be able to resolve, and a port by the job's id.
    """

    def __init__(self) -> None:
        super().__init__()
        if address := os.environ.get(f"{KEPT}MASTER_ADDR"):
            self.master_addr, self.master_port = address, int(os.environ[f"{KEPT}MASTER_PORT"])
