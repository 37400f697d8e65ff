"""submit script: what runs under accelerate launch or torchrun runs here unchanged."""

from __future__ import annotations

import json

import pytest

from tests.slurm.site import ROOT, Site

ALL_REDUCE = """
import os, socket, sys
with socket.socket() as taken:  # the port is reserved: who asks for any free one does not get it
    try:
        taken.bind(("", int(os.environ["MASTER_PORT"])))
        sys.exit("the published port was free")
    except OSError:
        pass
import torch, torch.distributed as dist
dist.init_process_group("gloo")
x = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(x)
print(f"rank {dist.get_rank()} of {dist.get_world_size()} sum {x.item()}\\n", end="", flush=True)  # one write
dist.destroy_process_group()  # without it torch's threads now and then abort a process that exits on a busy machine
"""
SHAPE = ("--nodes", "2", "--ntasks-per-node", "2", "--gpus", "0")


@pytest.mark.model
def test_a_ten_line_all_reduce(site: Site) -> None:
    (site.folder / "reduce.py").write_text(ALL_REDUCE)
    site.hpcjobs("submit", "script", *SHAPE, "--name", "s", "--wait", "--", "reduce.py")
    said = site.hpcjobs("logs", "s")
    for rank in range(4):
        assert f"rank {rank} of 4 sum 10.0" in said


@pytest.mark.model
def test_the_connector_in_a_users_own_program(site: Site) -> None:
    program = (ROOT / "tests" / "programs" / "split_gather.py").read_text()
    (site.folder / "mine.py").write_text(program)
    site.hpcjobs("submit", "script", *SHAPE, "--name", "c", "--wait", "--", "mine.py")
    assert '"in_order": true' in site.hpcjobs("logs", "c", "--rank", "0")


@pytest.mark.model
def test_accelerates_own_distributed_test(site: Site) -> None:
    program = (ROOT / "tests" / "programs" / "accelerate_test.py").read_text()
    (site.folder / "accelerate_test.py").write_text(program)
    site.hpcjobs("submit", "script", *SHAPE, "--name", "a", "--wait", "--", "-m", "accelerate_test")
    said = site.hpcjobs("logs", "a", "--rank", "0")
    assert "Num processes: 4" in said
    for part in ("DataLoader integration test", "Training integration test", "Breakpoint trigger test"):
        assert part in said


def test_a_program_that_fails_is_named_with_its_rank(site: Site) -> None:
    (site.folder / "fail.py").write_text("import os, sys\nsys.exit(7 if os.environ['RANK'] == '2' else 0)\n")
    said = site.hpcjobs("submit", "script", *SHAPE, "--name", "f", "--wait", "--", "fail.py", code=1)
    assert "exit code 7 on rank 2 (node2)" in said
    states = {rank["rank"]: rank["state"] for rank in site.status("f")["ranks"]}
    assert states[2] == "failed"


OWN_MASTER = """
import os, datetime, torch, torch.distributed as dist
rank, world = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", "12355"
dist.init_process_group("gloo", rank=rank, world_size=world, timeout=datetime.timedelta(seconds=40))
x = torch.ones(1) * rank
dist.all_reduce(x)
print("rank", rank, "of", world, "sum", x.item(), flush=True)
dist.destroy_process_group()
"""
BY_ADDRESS = """
import os, datetime, torch, torch.distributed as dist
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
how = {"init_method": "tcp://127.0.0.1:23456", "timeout": datetime.timedelta(seconds=40)}
dist.init_process_group("gloo", rank=rank, world_size=world, **how)
x = torch.ones(1) * rank
dist.all_reduce(x)
print("rank", rank, "of", world, "sum", x.item(), flush=True)
dist.destroy_process_group()
"""
BY_SUBMITIT = """
import os, submitit, torch, torch.distributed as dist, datetime
e = submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
os.environ["MASTER_ADDR"] = "127.0.0.1"  # the names of these nodes do not resolve, under srun either
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=40))
x = torch.ones(1) * e.rank
dist.all_reduce(x)
print("rank", e.rank, "of", e.world_size, "sum", x.item(), flush=True)
dist.destroy_process_group()
"""
TWO = ("--nodes", "1", "--ntasks-per-node", "2", "--gpus", "0")


@pytest.mark.model
@pytest.mark.parametrize("program", [OWN_MASTER, BY_ADDRESS, BY_SUBMITIT], ids=["own master", "tcp", "submitit"])
def test_programs_that_meet_by_themselves_meet_as_under_srun(site: Site, program: str) -> None:
    """Case 25."""
    (site.folder / "meet.py").write_text(program)
    site.hpcjobs("submit", "script", *TWO, "--name", "m", "--wait", "--", "meet.py")
    said = site.hpcjobs("logs", "m")
    for rank in range(2):
        assert f"rank {rank} of 2 sum 1.0" in said


PMI2 = """
import os, socket
with socket.socket(fileno=int(os.environ["PMI_FD"])) as slurm:  # what MPICH says first in MPI_Init
    slurm.sendall(b"cmd=init pmi_version=2 pmi_subversion=0\\n")
    print("told", slurm.recv(100).decode(), flush=True)
"""


def test_mpi_reaches_slurm_by_the_socket_that_srun_left_open(site: Site) -> None:
    (site.folder / "mpi.py").write_text(PMI2)
    how = ("--set", "cluster.srun_args=[--mpi=pmi2]", "--name", "p", "--wait", "--yes")
    site.hpcjobs("submit", "script", *SHAPE, *how, "--", "mpi.py")
    assert site.hpcjobs("logs", "p").count("told cmd=response_to_init rc=0") == 4


def test_signals_are_the_programs_own(site: Site) -> None:
    """Case 53: without a wish of its user's no signal before the time limit; one that comes ends no rank of ours."""
    (site.folder / "steps.py").write_text(STEPS)
    site.hpcjobs("submit", "script", *TWO, "--name", "u", "--time", "6", "--yes", "--", "steps.py", "300")
    script = next((site.folder / "runs/u/logs").glob("*_submission.sh")).read_text()
    assert "--signal" not in script
    site.until("both programs", lambda: len(list(site.folder.glob("ready-*"))) == 2)
    site.run("scancel", "--signal=USR1", site.jobs("u")["work"])
    site.until("the end", lambda: site.look("u").state.over and not site.look("u").going)
    assert {path.read_text() for path in site.folder.glob("got-*")} == {"SIGUSR1"}
    assert site.status("u")["state"] == "complete", "both saved and ended with 0"
    assert site.cluster.sacct(site.jobs("u")["work"])[0]["State"] == "COMPLETED"


STEPS = """
import os, signal, sys, time
rank, last = os.environ["RANK"], int(sys.argv[1])
file = f"saved-{rank}"
step = int(open(file).read()) if os.path.exists(file) else 0
print("begins at", step, flush=True)
def save(number, frame):
    open(f"got-{rank}", "w").write(signal.Signals(number).name)
    open(file, "w").write(str(step))
    sys.exit(0)
signal.signal(signal.SIGUSR1, save)
open(f"ready-{rank}", "w").close()
while step < last:
    step += 1
    time.sleep(0.1)
print("done", step, flush=True)
"""


def test_a_program_that_saves_before_its_time_limit_goes_on_in_the_next_job(site: Site) -> None:
    """Case 27: warned as its user wishes, `drained`, and started again by itself until it is done."""
    (site.folder / "steps.py").write_text(STEPS)
    how = ("--time", "1", "--sbatch", "signal=USR1@30", "--wait", "--yes")
    said = site.hpcjobs("submit", "script", *TWO, "--name", "t", *how, "--", "steps.py", "900")
    assert "complete" in said
    starts = json.loads((site.folder / "runs/t/submission.json").read_text())["launches"]
    assert [one["automatic"] for one in starts][:2] == [False, True]
    logs = site.hpcjobs("logs", "t")
    assert logs.count("done 900") == 2
    assert int((site.folder / "saved-0").read_text()) > 100
    assert f"begins at {(site.folder / 'saved-0').read_text()}" in logs


def test_torchrun_starts_the_ranks_of_its_nodes_and_they_meet(site: Site) -> None:
    """One task a node is chosen and said; torchrun takes nodes and address from PET_*."""
    (site.folder / "reduce.py").write_text("import torch, torch.distributed as dist\n" + ALL_REDUCE.split("dist\n")[1])
    where = ("--nodes", "2", "--gpus", "0", "--name", "r", "--wait", "--yes")
    said = site.hpcjobs("submit", "script", *where, "--", "torchrun", "--nproc-per-node", "2", "reduce.py")
    assert "torchrun starts the ranks of a node itself" in said
    logs = site.hpcjobs("logs", "r")
    for rank in range(4):
        assert f"rank {rank} of 4 sum 10.0" in logs
