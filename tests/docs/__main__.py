"""Type a page and print what its commands print: `python -m tests.docs docs/compare.md`.

`--write` puts it into the page, `--count` tells how much of all pages is checked.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

from tests.docs.pages import PAGES, PageError, read_page
from tests.docs.rewrite import rewrite
from tests.docs.session import Session, Typed
from tests.slurm.cluster import temporary_cluster


def type_page(path: Path, home: Path) -> list[Typed]:
    """Print the dialog as it is, with a mark where the page shows another one; gives these places."""
    page, wrong = read_page(path), []
    with contextlib.ExitStack() as stack:
        env = stack.enter_context(temporary_cluster()).env if "slurm" in page.session else None
        real = Path(os.environ.get("HPCJOBS_REAL") or "~/.cache/hpcjobs/real").expanduser()
        session = Session(home, env, real if "real" in page.session else None)
        for typed in session.type_page(page):
            print(f"$ {typed.command.text}", *typed.printed, sep="\n", flush=True)
            if typed.fault is not None:
                print(f"^^^ {page.name}:{typed.command.line} shows something else\n{typed.fault}\n", flush=True)
                wrong.append(typed)
    return wrong


def count() -> None:
    """Print how much of each page is checked."""
    for path in PAGES:
        blocks = read_page(path).blocks
        commands = [command for block in blocks if block.runs for command in block.commands]
        outputs = sum(command.output is not None for command in commands)
        left = sum(not block.runs for block in blocks)
        files = sum(block.name is not None for block in blocks)
        print(f"{path.name:28}{len(commands):4} commands{outputs:4} outputs{files:4} files{left:4} blocks not run")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.docs", description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--count", action="store_true", help="how much of each page is checked")
    parser.add_argument("--write", action="store_true", help="put what is printed into the page")
    args = parser.parse_args()
    if args.count:
        count()
    right = True
    for path in args.pages:
        with tempfile.TemporaryDirectory(prefix="hpcjobs-docs-") as folder:
            try:
                wrong = type_page(path, Path(folder))
                right = right and not wrong
                if args.write:
                    rewrite(path, wrong)
            except PageError as error:
                print(error)
                right = False
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
