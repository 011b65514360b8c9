"""Recall against queries per second: a panel for each kind of filter and bucket, a curve for each series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nextvec.evaluate.figures import COLOURS, FAINT, STYLE
from nextvec.extras import require
from nextvec.files import atomic_write
from nextvec.types import InputError

__all__ = ["draw"]

_WIDE, _HIGH, _LEFT, _TOP, _BOTTOM, _GAP = 2.3, 1.75, 0.95, 0.75, 0.85, 0.5  # inches
_MARKS = "osD^vPX*"


def draw(document: Mapping[str, Any], path: Path, *, correlation: str = "independent") -> None:
    """Draw the points of one correlation of ``summary.summarise``'s document to ``path`` (.png or .svg).

    One query a call. Dashed: the matches are known before the clock starts. InputError where there is nothing to draw
    or for another ending, MissingExtraError without matplotlib.
    """
    require("matplotlib", why="the plot of a benchmark")
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    kind = path.suffix.lstrip(".")
    if kind not in ("png", "svg"):
        raise InputError(f"the plot's name is {path.name!r}; expected one that ends in .png or .svg")
    points = [p for p in document["points"] if p["correlation"] == correlation and p["kind"] != "none"]
    kinds, buckets = list(dict.fromkeys(p["kind"] for p in points)), sorted({p["bucket"] for p in points})
    if not points:
        raise InputError(f"nothing to plot: no point with correlation {correlation!r}")
    styles = _styles(points)
    rates = [p["single"]["qps"] for p in points]
    limits = (min(rates) / 1.5, max(rates) * 1.5)
    wide = _LEFT + len(buckets) * (_WIDE + _GAP / 2)
    tall = _TOP + len(kinds) * (_HIGH + _GAP) + _BOTTOM
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(wide, tall))
        for row, name in enumerate(kinds):
            for column, bucket in enumerate(buckets):
                left = (_LEFT + column * (_WIDE + _GAP / 2)) / wide
                bottom = 1 - (_TOP + row * (_HIGH + _GAP) + _HIGH) / tall
                axes = figure.add_axes((left, bottom, _WIDE * 0.9 / wide, _HIGH / tall))
                _panel(axes, [p for p in points if p["kind"] == name and p["bucket"] == bucket], styles, limits)
                axes.set_title(f"{name}, {bucket:g} %")
                axes.yaxis.set_major_formatter("{x:,.0f}" if column == 0 else "")
                if column == 0:
                    axes.set_ylabel("queries per second", color=FAINT)
                if row == len(kinds) - 1:
                    axes.set_xlabel(f"recall at {document['k']}", color=FAINT)
        facts = document["facts"]
        title = f"{document['workload']}: {facts['rows']:,} vectors of {facts['dim']}, filters {correlation}"
        figure.text(_LEFT / wide, 1 - 0.3 / tall, title, fontsize=11, weight="bold")
        handles = [Line2D([], [], label=series, ms=4, **style) for series, style in styles.items()]
        figure.legend(handles=handles, loc="lower center", ncols=max(2, round(wide / 2.6)), frameon=False)
        with atomic_write(path) as stream:
            figure.savefig(stream, format=kind, dpi=120, facecolor="white")


def _styles(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """An engine has one colour and mark; its series with matches at hand is dashed, its marks are hollow."""
    engines = list(dict.fromkeys(p["engine"] for p in points))
    return {
        p["series"]: {
            "color": COLOURS[engines.index(p["engine"]) % len(COLOURS)],
            "marker": _MARKS[engines.index(p["engine"]) // len(COLOURS) * 4 % len(_MARKS)],
            "ls": "--" if p["ready"] else "-",
            "mfc": "white" if p["ready"] else COLOURS[engines.index(p["engine"]) % len(COLOURS)],
        }
        for p in points
    }


def _panel(
    axes: Any,
    points: Sequence[Mapping[str, Any]],
    styles: Mapping[str, Mapping[str, Any]],
    limits: tuple[float, float],
) -> None:
    if not points:
        axes.text(0.5, 0.5, "no such filter", transform=axes.transAxes, ha="center", color=FAINT)
    for series, style in styles.items():
        own = sorted((p for p in points if p["series"] == series), key=lambda p: (p["recall"], -p["single"]["qps"]))
        if own:
            rates = [p["single"]["qps"] for p in own]
            axes.plot([p["recall"] for p in own], rates, ms=4, lw=1.3, clip_on=False, **style)
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    axes.minorticks_off()
    axes.set_xlim(0, 1.02)
    axes.set_xticks([0, 0.5, 0.95], ["0", "0.5", "0.95"])
    axes.grid(True)
    axes.tick_params(length=0)
