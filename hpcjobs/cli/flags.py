"""Flags that several verbs share, with Slurm's names where Slurm has them."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, name, or 'last'.")]
Nodes = Annotated[int | None, typer.Option(min=1, help="Number of nodes.")]
Gpus = Annotated[int | None, typer.Option(min=0, help="GPUs in total, as Slurm's --gpus; 0 for a CPU job.")]
GpusPerNode = Annotated[int | None, typer.Option(min=0, help="GPUs a node.")]
Ntasks = Annotated[
    int | None, typer.Option("--ntasks-per-node", min=1, help="Ranks a node; on GPUs it follows from them.")
]
Cpus = Annotated[int | None, typer.Option("--cpus-per-task", min=1, help="Cores a rank.")]
Array = Annotated[int | None, typer.Option(min=1, help="A job array of N single-node workers, each as soon as it can.")]
Mem = Annotated[str | None, typer.Option(help="Memory a node, such as 64G.")]
Time = Annotated[str | None, typer.Option(help="Time limit: minutes, H:M:S or D-H:M:S.")]
Word = Annotated[str | None, typer.Option(help="As sbatch's.")]
Executor = Annotated[str | None, typer.Option(help="auto, slurm, local or debug.")]
Sbatch = Annotated[
    list[str] | None, typer.Option("--sbatch", metavar="KEY=VALUE", help="Any other sbatch option; repeatable.")
]
Comment = Annotated[str | None, typer.Option(help="sbatch's --comment.")]
WaitFlag = Annotated[bool, typer.Option("--wait", help="Wait until merged; end with the run's exit code.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before queueing.")]
