"""`python -m hpcjobs.then_eval`, as earlier versions start it. To be removed in the release after 0.2."""

import sys

from hpcjobs.commands.then_eval import main

if __name__ == "__main__":
    main(sys.argv[1])
