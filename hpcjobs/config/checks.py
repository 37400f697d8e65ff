"""Validators of single config values: names, times, words on an #SBATCH line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from hpcjobs import plugins
from hpcjobs.errors import UsageError, did_you_mean
from hpcjobs.masking import is_secret_name

BuiltInEngine = Literal["auto", "transformers", "loop", "generate", "dummy"]
ENGINES: tuple[str, ...] = get_args(BuiltInEngine)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def one_line(value: str) -> str:
    """`value`, if it may stand on an #SBATCH line.

    Raises a ValueError for control characters: a newline would start a new line of the script.
    """
    if _CONTROL.search(value):
        raise ValueError("has a control character (a newline would become a line of the script)")
    return value


def sbatch_word(value: str) -> str:
    """`value`, if sbatch reads it unchanged from an #SBATCH line.

    Raises a ValueError for control characters and for backslashes, which sbatch drops even inside quotes.
    """
    if "\\" in value:
        raise ValueError("has a backslash, which sbatch would drop from its #SBATCH line")
    return one_line(value)


def _name(value: str) -> str:
    try:
        return checked_name(value, "name")
    except UsageError as error:
        raise ValueError(str(error)) from None  # so that pydantic says where it stands


def engine_name(value: str) -> str:
    """`value`, if it is an engine of hpcjobs or of an installed package; else a ValueError."""
    if value in ENGINES or value in (others := plugins.registered(plugins.ENGINES)):
        return value
    *words, last = [repr(name) for name in ENGINES]
    more = f", of installed packages {', '.join(others)}" if others else ""
    known = f"there are {', '.join(words)} or {last}{more}"
    raise ValueError(f"is no engine{did_you_mean(value, [*ENGINES, *others])}: {known}")


def pattern(value: str) -> str:
    """`value`, if it is a regular expression of Python; else a ValueError."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression of Python: {error}") from None
    return value


def metric_name(value: object) -> object:
    """A metric's name; that of `{bleu: {tokenize: zh}}` is `bleu(tokenize=zh)`. Raises a ValueError for other maps."""
    if not isinstance(value, Mapping):
        return value
    if len(value) != 1 or not isinstance(options := next(iter(value.values())), Mapping):
        raise ValueError(
            f"task.metrics: {dict(value)!r} is not one metric with its options: {{bleu: {{tokenize: zh}}}}"
        )
    texts = {key: str(one).lower() if isinstance(one, bool) else str(one) for key, one in options.items()}
    for key, text in texts.items():
        if re.search(r"[(),=]", text):
            raise ValueError(f"task.metrics: {key}: {text!r} has one of ( ) , =, which no option needs")
    name, pairs = next(iter(value)), ", ".join(f"{key}={text}" for key, text in texts.items())
    return f"{name}({pairs})" if pairs else name


Line = Annotated[str, AfterValidator(one_line)]
SbatchWord = Annotated[str, AfterValidator(sbatch_word)]
Name = Annotated[str, AfterValidator(_name)]


def env_name(key: str) -> str:
    """`key`, if it is the name of an environment variable and does not look like a secret; else a ValueError."""
    if not _ENV_NAME.fullmatch(key):
        raise ValueError(f"{key!r} is not the name of an environment variable")
    if is_secret_name(key):
        raise ValueError(
            f"{key} looks like a secret, and scripts and config files are kept: export it in the shell "
            "that submits, sbatch hands the environment on"
        )
    return key


def slurm_time(value: str | int) -> str | int:
    """`value`, if it is a time as sbatch takes it; else a ValueError."""
    slurm_minutes(value)
    return value


def slurm_minutes(time: str | int) -> int:
    """Minutes, rounded up, of a time in one of sbatch's formats: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.

    Raises a ValueError for anything else. Source: sbatch(1), `--time`.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(time).strip(), re.ASCII)
    if not match:
        raise ValueError(f"time {time!r} is not Slurm's: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S")
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    total = math.ceil((int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds) / 60)
    if total < 1:
        raise ValueError(f"time {time!r} is no time at all")
    return total


def minutes_and_seconds(time: str | int) -> str:
    """What a time of the form M:S is, which is easily taken for hours and minutes; empty for other forms."""
    match = re.fullmatch(r"(\d+):(\d+)", str(time).strip(), re.ASCII)
    return f"{int(match[1])} min {int(match[2])} s (for hours and minutes: {match[1]}:{match[2]}:00)" if match else ""


def checked_name(name: str, what: str) -> str:
    """`name`, if it is safe as the name of files and jobs; else a UsageError that says which names are."""
    if not NAME.fullmatch(name) or ".." in name or len(name) > 128:
        raise UsageError(
            f"{what} {name!r} is not a valid name: letters, digits, '.', '_' and '-' only, "
            "first a letter or digit, no '..', at most 128 characters"
        )
    return name


def error_limit(limit: float) -> float:
    """`run.max_errors`: a share (float) or a number of samples (int). Raises a ValueError."""
    if isinstance(limit, int) and limit >= 0:
        return limit
    if isinstance(limit, float) and 0 <= limit <= 1:
        return limit
    raise ValueError("is a share from 0.0 to 1.0, or a whole number of samples that is 0 or more")


def csv_delimiter(value: str) -> str:
    """`value`, if it can stand between the columns of a CSV file; else a ValueError."""
    if len(value) != 1 or value in '"\r\n\0':
        raise ValueError("is one character, such as ';' or '\\t'; no quote and no end of a line")
    return value


def sweep_points(value: object) -> object:
    """`sweep`, if it is a file's name or names with lists of plain values; a ValueError says what is neither."""
    if not isinstance(value, Mapping):
        if value is None or (isinstance(value, str) and value):
            return value
        raise ValueError("is a list of values for each name, such as {lr: [0.1, 0.2]}, or the name of a file")
    for name, values in value.items():
        if not (isinstance(name, str) and name):
            raise ValueError(f"sweep: the name {name!r} is no text, and none that {{{{ }}}} can have")
        if not isinstance(values, tuple):
            raise ValueError(f"sweep.{name} is a list of values, such as sweep.{name}=[0.1, 0.2] (got {values!r})")
        if not all(isinstance(one, str | int | float | None) for one in values):
            raise ValueError(f"sweep.{name}: each value is a text, a number, true, false or null, no list")
    return value


# Those that end neither a rank nor its guard, which get them too.
_WARNINGS = ("USR1", "USR2", "TERM", "HUP", "INT")


def signal_name(name: str) -> str:
    """The name of a signal without SIG, as Slurm has it. Raises a ValueError if a program cannot be warned by it."""
    short = name.upper().removeprefix("SIG")
    if short not in _WARNINGS:
        raise ValueError(f"{name!r} is no signal to warn a program by: take {', '.join(_WARNINGS)}")
    return short
