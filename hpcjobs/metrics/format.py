"""Format the values of metrics.json for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hpcjobs.run_folder.metrics_file import Groups, Summary

MOST_SHOWN = 20
_LONGEST = 32


def score_lines(metrics: Mapping[str, Summary], remark: str = "") -> Iterator[str]:
    """One line per metric, with interval and count, then the accuracy by option, if any. `remark` follows each value.
    """
    width = max([16, *map(len, metrics)])
    for name, summary in metrics.items():
        if summary["value"] is None:
            yield f"{name:<{width}} -         n={summary['n']}{_left_out(summary)}{remark}"
            continue
        of = f"step {summary['step']}" if "step" in summary else f"n={summary['n']}"  # a training's loss is of a step
        yield f"{name:<{width}} {number_text(summary['value'])}{_interval(summary)}  {of}{_left_out(summary)}{remark}"
        if options := summary.get("by_option"):
            each = (f"{letter} {option['value']:.4f} (n={option['n']})" for letter, option in options.items())
            yield f"{'  right option':<{width}} {', '.join(each)}"


def _left_out(summary: Summary) -> str:
    """In how many clusters the samples are, and how many are left out because their score is no number."""
    clusters = f" in {summary['clusters']} clusters" if "clusters" in summary else ""
    return clusters + (f" ({summary['unscored']} no number)" if summary.get("unscored") else "")


def group_lines(groups: Groups) -> Iterator[str]:
    """A table per column: one line per value (the first 20), one column per metric."""
    for column, values in groups.items():
        if not values:  # no sample yet
            continue
        names = list(next(iter(values.values()), {}))  # each group has every metric
        shown = list(values.items())[:MOST_SHOWN]
        labels = [column, *(_short(value) for value, _ in shown)]
        width = max(map(len, labels))
        yield ""
        yield "  ".join([f"{labels[0]:<{width}}", f"{'n':>8}", *(f"{name:>24}" for name in names)]).rstrip()
        for label, (_, group) in zip(labels[1:], shown, strict=True):
            n = max((group[name]["n"] for name in names), default=0)
            cells = [f"{_cell(group[name]):>{max(24, len(name))}}" for name in names]
            yield "  ".join([f"{label:<{width}}", f"{n:>8}", *cells])
        if len(values) > len(shown):
            yield f"... and {len(values) - len(shown)} other values of {column}: metrics.json has all"


def _cell(summary: Summary) -> str:
    if summary["value"] is None:
        return "-"
    interval = summary["ci95"]
    return number_text(summary["value"]) + ("" if interval is None else f" [{_ends(interval, 3)}]")


def _interval(summary: Summary) -> str:
    interval = summary["ci95"]
    return "" if interval is None else f"  95% [{_ends(interval, 4)}]"


def _ends(interval: Sequence[float], digits: int) -> str:
    return ", ".join(number_text(end, digits) for end in interval)


def number_text(value: float, digits: int = 4) -> str:
    """A number with `digits` decimals; very large or small ones with as many significant digits."""
    plain = not value or 10.0 ** (1 - digits) <= abs(value) < 1e5
    return f"{value:.{digits}f}" if plain else f"{value:.{digits}g}"


def _short(value: str) -> str:
    """A value on one line, of at most 32 characters."""
    text = " ".join(value.split()) or '""'
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
