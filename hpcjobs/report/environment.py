"""jinja2 as all pages use it: nothing that a model, a user or a host wrote gets into them unescaped."""

from __future__ import annotations

from functools import cache

import jinja2
from markupsafe import Markup

from hpcjobs.report import text


def _shown(value: object) -> object:
    """Any plain text that a template puts out: escaped, with hidden characters shown."""
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def environment() -> jinja2.Environment:
    """The templates of this folder, strict, with the filters of `text`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpcjobs.report", "templates"), undefined=jinja2.StrictUndefined, autoescape=True,
        finalize=_shown, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"plain": text.plain, "count": text.count, "percent": text.percent, "plural": text.plural}
    return environment
