"""submit script: what runs under accelerate launch or torchrun runs here unchanged."""

from __future__ import annotations

import pytest

from tests.slurm.site import ROOT, Site

ALL_REDUCE = """
import os, socket, sys
with socket.socket() as taken:  # the port is somebody's already: nobody can get in between
    try:
        taken.bind(("", int(os.environ["MASTER_PORT"])))
        sys.exit("the published port was free")
    except OSError:
        pass
import torch, torch.distributed as dist
dist.init_process_group("gloo")
x = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(x)
print("rank", dist.get_rank(), "of", dist.get_world_size(), "sum", x.item(), flush=True)
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
    assert states == {0: "done", 1: "done", 2: "failed", 3: "done"}
