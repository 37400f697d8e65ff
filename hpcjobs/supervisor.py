"""`python -m hpcjobs.supervisor`, as earlier versions start it. To be removed in the release after 0.2."""

import sys

from hpcjobs.launch.supervisor import supervise

if __name__ == "__main__":
    supervise(sys.argv[1], *map(int, sys.argv[2:]))
