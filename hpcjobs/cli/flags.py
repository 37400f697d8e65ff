"""Flags that several verbs share, with Slurm's names where Slurm has them."""

from __future__ import annotations

from typing import Annotated

import typer

from hpcjobs.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, name, or 'last'.")]
Nodes = Annotated[
    str | None, typer.Option(metavar="N|MIN-MAX", help="Nodes; with --restarts those above MIN are spares.")
]
Restarts = Annotated[
    int | None, typer.Option(min=0, help="Start a program again so often where a rank of it fails, on the same nodes.")
]
Gpus = Annotated[int | None, typer.Option(min=0, help="GPUs in total, as Slurm's --gpus; 0 for a CPU job.")]
GpusPerNode = Annotated[int | None, typer.Option(min=0, help="GPUs per node.")]
Ntasks = Annotated[
    int | None, typer.Option("--ntasks-per-node", min=1, help="Ranks per node; on GPUs it follows from their number.")
]
Cpus = Annotated[int | None, typer.Option("--cpus-per-task", min=1, help="Cores per rank.")]
Sweep = Annotated[str | None, typer.Option(help="A file of points; {{ names }} in the program's words stand for them.")]
Array = Annotated[int | None, typer.Option(min=1, help="N single-node workers, or copies of a program, as an array.")]
Mem = Annotated[str | None, typer.Option(help="Memory per node, such as 64G.")]
Time = Annotated[str | None, typer.Option(help="Time limit: minutes, H:M:S or D-H:M:S.")]
Word = Annotated[str | None, typer.Option(help="As for sbatch.")]
Executor = Annotated[str | None, typer.Option(help="auto, slurm, local or debug.")]
Sbatch = Annotated[
    list[str] | None, typer.Option("--sbatch", metavar="KEY=VALUE", help="Any other sbatch option; repeatable.")
]
Comment = Annotated[str | None, typer.Option(help="As for sbatch.")]
WaitFlag = Annotated[bool, typer.Option("--wait", help="Wait until the run is merged; exit with its exit code.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before queueing.")]


def nodes_and_spares(text: str | None) -> tuple[int | None, int | None]:
    """What --nodes asks for: `3` is three nodes, `3-4` three and a spare. Raises a UsageError."""
    if text is None:
        return None, None
    least, dash, most = text.partition("-")
    numbers = [int(word) if word.isdecimal() else 0 for word in ((least, most) if dash else (least,))]
    if numbers[0] < 1 or numbers[-1] < numbers[0]:
        raise UsageError(f"--nodes {text}: a number of nodes, such as 3, or from how many to how many, such as 3-4")
    return numbers[0], numbers[1] - numbers[0] if dash else None
