"""`python -m hpcjobs.accelerate_node`, the name that older copies of the sbatch template call. To be removed in the
release after 0.2.
"""

import sys

from hpcjobs.distributed.accelerate_node import run

if __name__ == "__main__":
    sys.exit(run())
