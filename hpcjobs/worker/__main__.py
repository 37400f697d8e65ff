"""`python -m hpcjobs.worker RUN`."""

import sys

from hpcjobs.worker.run import main

if __name__ == "__main__":
    sys.exit(main())
