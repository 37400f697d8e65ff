"""`python -m hpcjobs`."""

import sys

from hpcjobs.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
