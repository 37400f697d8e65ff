"""submitit's helpers, for functions that hpcjobs.Executor runs: Checkpointable, DelayedSubmission, as_completed..."""

from __future__ import annotations

from submitit.helpers import Checkpointable as Checkpointable
from submitit.helpers import CommandFunction as CommandFunction
from submitit.helpers import DelayedSubmission as DelayedSubmission
from submitit.helpers import FunctionSequence as FunctionSequence
from submitit.helpers import RsyncSnapshot as RsyncSnapshot
from submitit.helpers import TorchDistributedEnvironment as TorchDistributedEnvironment
from submitit.helpers import as_completed as as_completed
from submitit.helpers import clean_env as clean_env
from submitit.helpers import environment_variables as environment_variables
from submitit.helpers import monitor_jobs as monitor_jobs
