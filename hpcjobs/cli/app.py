"""The app and its entry point. A verb reads its flags, imports what it needs, and prints the result."""

from __future__ import annotations

import itertools
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
import typer.core

import hpcjobs
from hpcjobs.cli.hints import hint
from hpcjobs.cli.terminal import filtered
from hpcjobs.errors import HpcJobsError, UsageError


class _Verbs(typer.core.TyperGroup):
    """typer would end a verb that is interrupted without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort from None


app = typer.Typer(
    name="hpcjobs", cls=_Verbs, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Slurm batch jobs for models and data: complete, scored results even if ranks or nodes die.\n\n"
    "RUN is a run folder, a name under the runs root (HPCJOBS_RUNS, default runs/), or 'last'.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage or config, 3 finished but incomplete, 130 interrupted.",
)  # fmt: skip

_NAMES_ONE = {
    "--data": "for several files write --set 'data.name=[A, B]'",
    "--model": "a run has one model",
    "--config": "a run has one config file; --set changes single keys",
}

# What typer raises for wrong usage: click's class, or that of the copy of click in newer versions.
_WrongWords: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


@app.command(hidden=True)
def version() -> None:
    """Print the version."""
    typer.echo(hpcjobs.__version__)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = _take(words, "--debug")
    if words[:1] == ["--version"]:
        words = ["version"]
    with filtered(whole="--json" in words):
        return _run(words, debug)


def _run(words: list[str], debug: bool) -> int:
    try:
        _check_given_once(words)
        code = app(words, prog_name="hpcjobs", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit:  # typer's answer to a reader that leaves
        return _report(BrokenPipeError())
    except (HpcJobsError, _WrongWords, typer.Abort, KeyboardInterrupt, OSError) as error:
        if debug:
            traceback.print_exc()
        return _report(error, words)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if damage := _damage(words):
            return _report(HpcJobsError(damage))
        print(f"internal error: {type(error).__name__}: {error}\nnext: the same command with --debug", file=sys.stderr)
        return 1


def _damage(words: Sequence[str]) -> str | None:
    """What is damaged of the runs that the words name."""
    from hpcjobs.commands.damage import explanation

    return explanation([*(word for word in words[1:] if not word.startswith("-")), "last"])


def _take(words: list[str], flag: str) -> bool:
    """Remove `flag` from the words before `--`; returns whether it was there."""
    if flag not in _own(words):
        return False
    words.remove(flag)
    return True


def _own(words: Sequence[str]) -> Sequence[str]:
    """The words before `--`: those behind it are the program's."""
    return words[: words.index("--")] if "--" in words else words


def _check_given_once(words: Sequence[str]) -> None:
    """Raise a UsageError if an option that names what runs has two values: only the last would, without a word."""
    before = _own(words)
    for flag, advice in _NAMES_ONE.items():
        given = [after for word, after in itertools.pairwise(before) if word == flag]
        given += [word.partition("=")[2] for word in before if word.startswith(f"{flag}=")]
        if len(set(given)) > 1:
            raise UsageError(f"{flag} is given {len(given)} times, {' and '.join(given)}: {advice}")


def _report(error: BaseException, words: Sequence[str] = ()) -> int:
    """Print an error to stderr, with what was meant by `words` if they are wrong usage, and return its exit code."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    if isinstance(error, _WrongWords):
        error.show()
        if meant := hint(words):
            print(f"next: {meant}", file=sys.stderr)
        return UsageError.exit_code
    if isinstance(error, BrokenPipeError):  # `hpcjobs logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code if isinstance(error, HpcJobsError) else 1
