"""The rows of docs/faults.md on Slurm's job states, made from a run and from what Slurm says of its job."""

from __future__ import annotations

import re
from pathlib import Path

from hpcjobs.commands.going import check_over
from hpcjobs.commands.status import read_status
from hpcjobs.errors import UsageError
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch, record_launch

FAULTS = Path(__file__).parents[1] / "docs" / "faults.md"
_SCRIPT = "#SBATCH --mem=4G\n#SBATCH --time=60\n"


def launch_with(paths: RunPaths, **jobs: str) -> None:
    """Record that these jobs are the run's, which has been merged before it was complete."""
    keys, scripts = {"work": "k"}, {"work": _SCRIPT}
    launch = Launch(number=0, executor="slurm", jobs=jobs, keys=keys, shape="1 node", ranks=1, scripts=scripts)
    record_launch(paths, launch)
    merge(paths)


def row_of(state: str, paths: RunPaths, job: str) -> str:
    """The row: the state, what `status` says of such a job, and what `resume` does.

    Nodes, signals and exit codes are left out, which differ from job to job.
    """
    status = read_status(paths)
    notes = [text for text in status.notes if text.startswith(f"job {job} ")]
    try:
        check_over(paths, "RUN")
        does = "starts the rest"
    except UsageError as error:
        does = "refused" + (": still going" if "is still going" in str(error) else f": {error}")
    said = "; ".join([str(status.state), *notes]).replace(str(paths.root), "RUN").replace(job, "JOB")
    said = re.sub(r"\(([A-Z_]+), [^)]*\)", r"(\1)", said)
    return f"| {state} | {said} | {does} |"


def rows() -> dict[str, str]:
    """The table of docs/faults.md: state -> row."""
    section = FAULTS.read_text().partition("### Slurm's job states")[2].partition("\n#")[0]
    return {match[1]: match[0] for match in re.finditer(r"^\| ([A-Z_]+) \|.*$", section, re.MULTILINE)}
