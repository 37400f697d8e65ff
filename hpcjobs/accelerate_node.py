"""`python -m hpcjobs.accelerate_node`, as old copies of the sbatch template call it. Gone in the release after 0.2."""

import sys

from hpcjobs.distributed.accelerate_node import run

if __name__ == "__main__":
    sys.exit(run())
