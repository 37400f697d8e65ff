"""A process that has imported torch, transformers and accelerate once, and forks ranks: `python -m tests.rank_server`.

Each line of its standard input is a JSON object {id, run, env}; it forks a rank for it, and answers on standard output
with {id, pid} and, when the rank has ended, {id, code}. It ends with its input, and its ranks with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

PRELOAD = ("torch", "transformers", "accelerate", "safetensors.torch", "transformers.models.llama.modeling_llama")


def main() -> None:
    """Serve until standard input ends."""
    import importlib

    ours = ("hpcjobs.worker.guard", "hpcjobs.worker.run", "hpcjobs.worker.train", "hpcjobs.training.loop")
    for name in (*PRELOAD, *ours):
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    # A forked process makes torch's pool anew; of several threads that load a model at once, one may find none.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
    out, lock, live = os.fdopen(os.dup(1), "w"), threading.Lock(), dict[int, int]()

    def tell(value: dict[str, int]) -> None:
        with lock:
            out.write(json.dumps(value) + "\n")
            out.flush()

    def collect(number: int, pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        live.pop(pid)
        tell({"id": number, "code": os.waitstatus_to_exitcode(status)})

    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _rank(order["run"], order["env"])
        live[pid] = order["id"]
        tell({"id": order["id"], "pid": pid})
        threading.Thread(target=collect, args=(order["id"], pid), daemon=True).start()
    for pid in list(live):
        os.kill(pid, signal.SIGKILL)


def _rank(run: str, env: dict[str, str]) -> None:
    """A guarded rank in its own environment, which never returns."""
    from hpcjobs.worker.__main__ import guard_rank

    code = 1
    try:
        os.environ.clear()
        os.environ.update(env)
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(Path(run, "logs", "ranks.out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, target)
        guard_rank(run)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
