"""hpcjobs.Executor in Slurm's queue: what a submitit user's program does, with the import changed."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.slurm.site import Site

FIRST = """
import os, sys
import hpcjobs as submitit

def where(number):
    env = submitit.JobEnvironment()
    print("call", number, flush=True)
    return number, env.job_id, env.global_rank, env.num_tasks, env.num_nodes, os.environ.get("SLURM_CPUS_PER_TASK")

executor = submitit.AutoExecutor(folder="jobs")
assert executor.cluster == "slurm"
executor.update_parameters(timeout_min=3, name="one", cpus_per_task=2, slurm_comment="a note",
                           slurm_setup=["export NOTE=set"], slurm_additional_parameters={"nice": 1})
one = executor.submit(where, 0)
executor.update_parameters(slurm_array_parallelism=2, name="many")
many = executor.map_array(where, range(5))
executor.update_parameters(nodes=2, tasks_per_node=2, name="tasks", cpus_per_task=1)
tasks = executor.submit(where, 7)
print(one.job_id, many[3].job_id, tasks.job_id)
print(one.result())
for job in many:
    print(job.result())
for result in tasks.results():
    print(result)
print(repr(many[2].stdout()), one.state, tasks.num_tasks, submitit.Job("jobs", many[4].job_id).result()[0])
"""


def test_submit_map_array_and_several_tasks(site: Site) -> None:
    (site.folder / "client.py").write_text(FIRST)
    lines = site.run(sys.executable, "client.py").stdout.splitlines()
    one, three, tasks = lines[0].split()
    assert one.isdigit()
    assert tasks.isdigit()
    array = three.removesuffix("_3")
    assert lines[1] == str((0, one, 0, 1, 1, "2"))
    assert lines[2:7] == [str((number, f"{array}_{number}", 0, 1, 1, "2")) for number in range(5)]
    assert lines[7:11] == [str((7, tasks, rank, 4, 2, "1")) for rank in range(4)]
    assert lines[11] == "'call 2\\n' COMPLETED 4 4"
    run = next((site.folder / "jobs").glob("one-*"))
    script = next((run / "logs").glob(f"{one}_submission.sh")).read_text()
    for line in ("#SBATCH --nice=1", "#SBATCH --comment='a note'", "export NOTE=set", "#SBATCH --cpus-per-task=2"):
        assert line in script
    assert (run / "inputs" / "calls.pkl").stat().st_mode & 0o777 == 0o600


SECOND = """
import sys, time
import hpcjobs as submitit

class Counter(submitit.helpers.Checkpointable):
    def __init__(self):
        self.starts = 0
    def __call__(self, name):
        self.starts += 1
        open(f"{name}.{self.starts}", "w").close()
        while self.starts < 3:
            time.sleep(0.1)
        return name, self.starts

executor = submitit.AutoExecutor(folder="jobs", timeout_min=20)
executor.update_parameters(name="counter")
job = executor.submit(Counter(), "a")
executor.update_parameters(name="pair", tasks_per_node=2)
pair = executor.submit(Counter(), "b")
print(job.job_id, pair.job_id, flush=True)
if sys.argv[1:]:
    print(job.result(), pair.results())
"""


def test_a_checkpoint_goes_on_in_the_next_start(site: Site) -> None:
    """Warned as before a time limit, and requeued as by preemption, with no client there."""
    (site.folder / "client.py").write_text(SECOND)
    job, pair = site.run(sys.executable, "client.py").stdout.split()
    for number, how in enumerate([("scancel", "--signal=USR2"), ("scontrol", "requeue")], 1):
        for name in ("a", "b"):
            site.until(f"start {number} of {name}", (site.folder / f"{name}.{number}").exists)
        for name in ("counter", "pair"):
            site.run(*how, newest_job(site, name))
    found = results(site, job, pair)
    assert found == [["a", 3], [["b", 3], ["b", 3]]]


def newest_job(site: Site, name: str) -> str:
    """The job that runs the calls of a run now."""
    run = next((site.folder / "jobs").glob(f"{name}-*"))
    launches = json.loads((run / "submission.json").read_text())["launches"]
    work: str = launches[-1]["jobs"]["work"]
    return work


def results(site: Site, *jobs: str) -> Any:
    program = "import json, sys, hpcjobs; jobs = [hpcjobs.Job('jobs', one) for one in sys.argv[1:]]; "
    program += "jobs[1] = hpcjobs.Job('jobs', sys.argv[2], range(2)); "
    program += "print(json.dumps([jobs[0].result(), jobs[1].results()]))"
    return json.loads(site.run(sys.executable, "-c", program, *jobs).stdout)
