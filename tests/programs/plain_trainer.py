"""A trainer without torch: `plain_trainer.py STEPS SECONDS`. It fits one weight to 3, writes its losses, and saves.

Each rank saves every five steps, and when it is warned by USR1; it goes on from what it has saved.
"""

import json
import os
import signal
import sys
import time

rank, steps, pause = os.environ["RANK"], int(sys.argv[1]), float(sys.argv[2])
saved = f"saved-{rank}.json"
warned: list[int] = []
signal.signal(signal.SIGUSR1, lambda number, frame: warned.append(number))
state = {"step": 0, "weight": 1.0}
if os.path.exists(saved):
    with open(saved) as file:
        state = json.load(file)
with open(f"started-{os.environ['HPCJOBS_ATTEMPT']}-{rank}.json", "w") as file:
    json.dump({"step": state["step"], "pid": os.getpid(), "node": os.environ.get("SLURMD_NODENAME")}, file)
while state["step"] < steps and not warned:
    gradient = (state["weight"] - 3.0) * (1 + state["step"] % 7) / 10
    state = {"step": state["step"] + 1, "weight": state["weight"] - 0.05 * gradient}
    with open(f"losses-{rank}.jsonl", "a") as file:
        file.write(json.dumps([state["step"], (state["weight"] - 3.0) ** 2]) + "\n")
    time.sleep(pause)
    if warned or state["step"] % 5 == 0 or state["step"] == steps:
        with open(f"{saved}.new", "w") as file:
            json.dump(state, file)
        os.replace(f"{saved}.new", saved)
