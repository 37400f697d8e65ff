"""`python -m hpcjobs`."""

import sys

from hpcjobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
