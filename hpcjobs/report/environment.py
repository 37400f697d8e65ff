"""The jinja2 environment of all pages: texts of models, users or hosts are always escaped."""

from __future__ import annotations

from functools import cache

import jinja2
from markupsafe import Markup

from hpcjobs.report import text


def _shown(value: object) -> object:
    """Texts that a template prints: escaped, with hidden characters made visible."""
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
