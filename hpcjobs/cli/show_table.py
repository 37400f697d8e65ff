"""Show a table of runs as text, Markdown, CSV, LaTeX, HTML or JSON."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Sequence

import typer

from hpcjobs.commands.table import Table, TableRow
from hpcjobs.errors import UsageError, did_you_mean
from hpcjobs.metrics.format import number_text
from hpcjobs.run_folder.metrics_file import Summary

_LEFT = ("run", "model", "data", "state", "samples")
# LaTeX's own characters, each as LaTeX prints it.
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}  # fmt: skip


def show_table(table: Table, wanted: str, as_json: bool) -> None:
    """Print the table in a format (`FORMATS`). Raises a UsageError for another."""
    if wanted not in FORMATS:
        raise UsageError(f"--format {wanted!r}{did_you_mean(wanted, FORMATS)}; there are {', '.join(FORMATS)}")
    if as_json:
        typer.echo(json.dumps([_values(row) for row in table.rows], indent=2))
        return
    typer.echo(FORMATS[wanted](table).rstrip("\n"))
    for row in table.rows:
        if row.why:
            typer.echo(f"note    {row.run}: {row.why}", err=True)


def _values(row: TableRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in TableRow.__dataclass_fields__}


def _cells(table: Table) -> list[list[str]]:
    """The heading, and the cells of each row: values with their standard errors."""
    names = table.metrics
    rows = [
        [row.run, row.model, row.data, row.state, _done(row), *(_score(row.metrics.get(name)) for name in names)]
        for row in table.rows
    ]
    return [[*_LEFT, *names], *rows]


def _done(row: TableRow) -> str:
    return f"{row.done}/{row.rows}" if row.done != row.rows else f"{row.rows}"


def _score(one: Summary | None) -> str:
    if one is None or one["value"] is None:
        return ""
    return number_text(one["value"]) + (f" ± {number_text(one['stderr'])}" if one["stderr"] is not None else "")


def _plain(table: Table) -> str:
    cells = [[" ".join(cell.split()) for cell in row] for row in _cells(table)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def _markdown(table: Table) -> str:
    def line(row: Sequence[str]) -> str:
        return (
            "| " + " | ".join(" ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|") for cell in row) + " |"
        )

    head, *rows = _cells(table)
    rule = "|" + "---|" * len(_LEFT) + "---:|" * (len(head) - len(_LEFT))
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def _csv(table: Table) -> str:
    """All digits; standard error, interval and n in columns of their own."""
    text, names = io.StringIO(), table.metrics
    writer = csv.writer(text, lineterminator="\n")
    parts = ("", "_stderr", "_ci95_low", "_ci95_high", "_n")
    head = ["run", "job", "model", "data", "state", "rows", "done"]
    writer.writerow([*head, *(name + part for name in names for part in parts), "why"])
    for row in table.rows:
        values = [getattr(row, name) for name in head]
        writer.writerow([*values, *(one for name in names for one in _numbers(row.metrics.get(name))), row.why])
    return text.getvalue()


def _numbers(one: Summary | None) -> tuple[object, ...]:
    if one is None:
        return ("",) * 5
    low, high = one["ci95"] or ("", "")
    return (
        "" if one["value"] is None else one["value"],
        "" if one["stderr"] is None else one["stderr"],
        low,
        high,
        one["n"],
    )


def _latex(table: Table) -> str:
    def line(row: Sequence[str]) -> str:
        cells = ["".join(_LATEX.get(char, char) for char in " ".join(cell.split())) for cell in row]
        return " & ".join(cells).replace("±", r"$\pm$") + r" \\"

    head, *rows = _cells(table)
    columns = "l" * len(_LEFT) + "r" * (len(head) - len(_LEFT))
    body = [line(head), r"\hline", *(line(row) for row in rows)]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"])


def _html(table: Table) -> str:
    def line(row: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    head, *rows = _cells(table)
    return "\n".join(
        [
            "<table>",
            f"<thead>{line(head, 'th')}</thead>",
            "<tbody>",
            *(line(row, "td") for row in rows),
            "</tbody>",
            "</table>",
        ]
    )


FORMATS: dict[str, Callable[[Table], str]] = {
    "rich": _plain, "md": _markdown, "csv": _csv, "latex": _latex, "html": _html,
}  # fmt: skip
