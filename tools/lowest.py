"""Print the lowest versions that pyproject.toml allows, as requirements for pip: `name==version` lines.

`make lowest` installs them. Lines of extras are among them; an extra's own name (`hpcjobs[train]`) is not.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# What the tests compare with: it needs newer libraries than hpcjobs itself.
LEFT_OUT = "reference"
PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
# name>=floor, and an upper bound or exclusions where a break is known.
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)>=(?P<floor>\d[\w.]*)(,(<|!=)\d[\w.]*)*")


def requirements(project: dict[str, Any]) -> list[str]:
    """The requirements of a `[project]` table and its extras but `LEFT_OUT`, each once."""
    extras: dict[str, list[str]] = project.get("optional-dependencies", {})
    every = [*project["dependencies"], *(each for name, extra in extras.items() if name != LEFT_OUT for each in extra)]
    return list(dict.fromkeys(each for each in every if not each.startswith(f"{project['name']}[")))


def floors(wanted: Iterable[str]) -> list[str]:
    """`name>=1.2` as `name==1.2`.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    return [f"{match['name']}=={match['floor']}" for match in map(_parsed, wanted)]


def _parsed(requirement: str) -> re.Match[str]:
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        raise ValueError(f"{requirement!r} in {PYPROJECT.name} is not name>=version")
    return match


def main() -> int:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    print("\n".join(floors(requirements(project))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
