"""A claim's result as a picture: one panel per measure, one row per arm; lines with bands for curves.

Mean and 95 % interval in the arm's colour, single seeds as small dots, the paper's own figures hollow. Names stand
beside what they name. Lengths are in inches.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nextvec.claims.results import number
from nextvec.evaluate.figures import COLOURS, FAINT, INK, STYLE, end_labels, short
from nextvec.extras import require
from nextvec.files import atomic_write

__all__ = ["curve_points", "draw"]

WIDE, EDGE, COLUMNS = 10.0, 0.35, 2


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write the plot of ``result`` to ``path`` (.png or .svg). MissingExtraError without matplotlib."""
    require("matplotlib", why="the plot of a claim")
    import matplotlib
    from matplotlib.figure import Figure

    curves = [name for name in result["curves"] if any(curve_points(arm, name) for arm in result["arms"].values())]
    measures = _measures(result["arms"], curves)
    rows = [(_curve, names) for names in _chunks(curves)] + [(_dots, names) for names in _chunks(measures)]
    heights = {_curve: 2.7, _dots: 0.3 + 0.3 * len(result["arms"])}
    words = textwrap.wrap(result["statement"], 112)
    head, gap, foot = 0.95 + 0.18 * len(words), 0.75, 0.1
    tall = head + sum(heights[kind] + gap for kind, _ in rows) + foot
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, tall))
        _say(figure, result, words, tall)
        top = tall - head
        for kind, names in rows:
            top -= heights[kind]
            for column, name in enumerate(names):
                left, width = _place(kind, column, len(curves if kind is _curve else measures), result["arms"])
                box = (left / WIDE, top / tall, width / WIDE, heights[kind] / tall)
                axes = figure.add_axes(box)
                kind(axes, result["arms"], name, column == 0)
                axes.set_title(name, pad=8)
            top -= gap
        with atomic_write(path) as stream:
            figure.savefig(stream, format=path.suffix.lstrip(".") or "png", dpi=150, facecolor="white")


def curve_points(arm: Mapping[str, Any], curve: str) -> dict[str, dict[str, Any]]:
    """The measures ``curve@x`` of an arm (or the paper's figures alone) by the text of x."""
    names = [*arm["measures"], *arm["paper"]]
    return {name.rpartition("@")[2]: arm["measures"].get(name) for name in names if name.rpartition("@")[0] == curve}


def _measures(arms: Mapping[str, Any], curves: Sequence[str]) -> list[str]:
    names = dict.fromkeys(name for arm in arms.values() for name in (*arm["measures"], *arm["paper"]))
    return [name for name in names if name.rpartition("@")[0] not in curves]


def _chunks(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + COLUMNS] for start in range(0, len(names), COLUMNS)]


def _place(kind: Any, column: int, count: int, arms: Mapping[str, Any]) -> tuple[float, float]:
    """Left edge and width of a panel, ``count`` of its kind in all. Rows of dots share the names at the left; lines
    have theirs at the right."""
    names = 0.068 * min(max(map(len, arms)), 30) + 0.15
    if kind is _dots:
        before, after = 0.0, 0.75
        first = EDGE + names
    else:
        before, after, first = 0.3, names + 0.1, EDGE
    cell = (WIDE - first - 0.1) / (COLUMNS if count > 1 else 1)
    width = min(cell, 7.0) - before - after
    return first + column * cell + before, width


def _say(figure: Any, result: Mapping[str, Any], words: Sequence[str], tall: float) -> None:
    """Heading and foot."""
    left, count = EDGE / WIDE, len(result["seeds"])
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    title = f"{result['card']['name']}: {result['verdict']}"
    figure.text(left, 1 - 0.32 / tall, title, size=13, weight="bold", va="center")
    scale = f"{result['scale']} scale, {seeds}"
    figure.text(1 - left, 1 - 0.32 / tall, scale, color=FAINT, ha="right", va="center")
    for line, text in enumerate(words):
        figure.text(left, 1 - (0.6 + 0.18 * line) / tall, text, color=INK, va="center")
    paper = any(arm["paper"] for arm in result["arms"].values())
    marks = "●  mean with 95 % interval     •  one seed" if count > 1 else "●  one seed"
    marks += "     ◇  the paper's figure" if paper else ""
    figure.text(left, 0.22 / tall, marks, color=FAINT, size=8, va="center")


def _dots(axes: Any, arms: Mapping[str, Any], name: str, named: bool) -> None:
    """One measure: an arm per row, its mean written at the right."""
    rows = range(len(arms) - 1, -1, -1)
    low, high = _limits(arms.values(), [name])
    axes.set_xlim(low, high)
    axes.set_ylim(-0.6, len(arms) - 0.4)
    axes.set_yticks(list(rows), [short(arm) for arm in arms] if named else [""] * len(arms), color=INK, size=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.locator_params(axis="x", nbins=5)
    for row, colour, arm in zip(rows, _colours(arms), arms.values(), strict=True):
        if name in arm["paper"]:
            axes.plot([arm["paper"][name]], [row], "D", mfc="white", mec=colour, mew=1.4, ms=6, zorder=4)
        values = arm["measures"].get(name)
        if values is None:
            continue
        if values["low"] is not None:
            ends = max(values["low"], low), min(values["high"], high)
            axes.plot(ends, [row, row], color=colour, lw=2, solid_capstyle="butt", zorder=2)
            for end, edge, mark in ((values["low"], low, "<"), (values["high"], high, ">")):
                if ends[0] > end or ends[1] < end:  # the interval goes on beyond the picture
                    axes.plot([edge], [row], mark, color=colour, ms=5, clip_on=False, zorder=3)
            seeds = [run["measures"][name] for run in arm["runs"] if name in run["measures"]]
            axes.plot(seeds, [row - 0.26] * len(seeds), ".", color=colour, ms=4, alpha=0.6, mew=0, zorder=2)
        axes.plot([values["mean"]], [row], "o", color=colour, mec="white", mew=0.8, ms=7, zorder=3)
        axes.text(1.03, row, number(values["mean"]), transform=axes.get_yaxis_transform(), va="center", color=colour)


def _limits(arms: Iterable[Mapping[str, Any]], names: Sequence[str]) -> tuple[float, float]:
    """Where an axis begins and ends: intervals are shown up to one span of the points beyond them, since two seeds
    have intervals beside which everything else would be one point."""
    points, ends = [], []
    for arm in arms:
        for name in names:
            points += [run["measures"][name] for run in arm["runs"] if name in run["measures"]]
            points += [arm["paper"][name]] if name in arm["paper"] else []
            values = arm["measures"].get(name, {"low": None, "high": None})
            ends += [values[end] for end in ("low", "high") if values[end] is not None]
    low, high = min(points), max(points)
    span = high - low or abs(high) * 0.1 or 1.0
    left, right = max(min([low, *ends]), low - span), min(max([high, *ends]), high + span)
    pad = 0.05 * ((right - left) or span)
    return left - pad, right + pad


def _curve(axes: Any, arms: Mapping[str, Any], name: str, named: bool) -> None:
    """One curve: a line per arm with its band, the arm's name at the line's end."""
    texts = list(dict.fromkeys(x for arm in arms.values() for x in curve_points(arm, name)))
    places = _positions(texts)
    ends: list[tuple[float, str, str]] = []
    for colour, (label, arm) in zip(_colours(arms), arms.items(), strict=True):
        points = sorted((places[x], values) for x, values in curve_points(arm, name).items() if values is not None)
        paper = sorted((places[x], arm["paper"][f"{name}@{x}"]) for x in texts if f"{name}@{x}" in arm["paper"])
        if paper:
            axes.plot(*zip(*paper, strict=True), "D:", color=colour, mfc="white", mew=1.2, ms=5, lw=1, zorder=3)
        if points:
            xs, means = [x for x, _ in points], [values["mean"] for _, values in points]
            axes.plot(xs, means, "o-", color=colour, mec="white", mew=0.7, ms=5, lw=1.8, zorder=4)
            band = [(x, values["low"], values["high"]) for x, values in points if values["low"] is not None]
            if band:
                axes.fill_between(*zip(*band, strict=True), color=colour, alpha=0.14, lw=0, zorder=2)
        if line := [(x, values["mean"]) for x, values in points] or paper:
            ends.append((line[-1][1], label, colour))
    axes.set_ylim(*_limits(arms.values(), [f"{name}@{x}" for x in texts]))
    _ticks(axes, places)
    end_labels(axes, ends)


def _positions(texts: Sequence[str]) -> dict[str, float]:
    """x as numbers where all are, else 0, 1, 2, ... in the order given."""
    try:
        return {text: float(text) for text in texts}
    except ValueError:
        return {text: float(i) for i, text in enumerate(texts)}


def _ticks(axes: Any, places: Mapping[str, float]) -> None:
    xs = sorted(places.values())
    if xs[0] > 0 and xs[-1] / xs[0] >= 32:
        axes.set_xscale("log", base=2)
        axes.minorticks_off()
    if len(places) <= 12:
        axes.set_xticks(list(places.values()), list(places))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y")
    axes.locator_params(axis="y", nbins=6)


def _colours(arms: Mapping[str, Any]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(arms))]
