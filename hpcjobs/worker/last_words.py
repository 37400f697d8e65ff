"""What a program said last on stderr: the cause of its end, which an exit code does not tell."""

from __future__ import annotations

import os
import re
import stat

from hpcjobs.masking import masked

_TAIL, _LINE = 1 << 16, 300
# `ValueError: text`, with the prefix that torch puts before it; `p.py: error: text`, of programs that parse options,
# but not Slurm's lines in the same file.
_ERROR = re.compile(
    r"^(?:\[rank\d+\]: ?)?"
    r"((?:[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)|(?!srun:|slurmstepd)\S+: error): .+"
    r"|\S+: (?:.+: )?(?:command not found|No such file or directory|Permission denied|No module named .+))$",
    re.MULTILINE,
)  # fmt: skip


class LastWords:
    """The stderr of this process from now on, where that is a file, as under srun and the local executor."""

    def __init__(self) -> None:
        self._start = _size()

    def read(self) -> str:
        """The last line that names an error, else the last line where that is of stderr; empty where there is none.

        Slurm writes both streams to one file: a last line of what a program has computed is no cause.
        """
        try:
            if (size := _size()) is None or self._start is None:
                return ""
            with open("/proc/self/fd/2", "rb") as file:
                file.seek(max(self._start, size - _TAIL))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        errors = _ERROR.findall(text)
        lines = errors or ([] if _shared() else [line for line in text.splitlines() if line.strip()])
        return masked(lines[-1].strip())[:_LINE] if lines else ""


def _size() -> int | None:
    try:
        found = os.fstat(2)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _shared() -> bool:
    """Whether stdout goes to the same file."""
    try:
        return os.path.samestat(os.fstat(1), os.fstat(2))
    except OSError:
        return True
