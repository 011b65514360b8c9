"""Quality against what it costs: one row per kind of task, against the bytes of a stored vector and against layers.

A point is the mean of the main measures of the kind's tasks; where it is one task, its 95 % interval is drawn.
Lengths are in inches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextvec.evaluate.figures import COLOURS, FAINT, STYLE, end_labels
from nextvec.evaluate.runner import Result
from nextvec.extras import require
from nextvec.files import atomic_write
from nextvec.types import InputError

__all__ = ["Point", "draw", "points"]

_WIDE, _HIGH, _TOP, _GAP = 10.0, 2.6, 0.45, 0.85
_BYTES, _LAYERS = "bytes of a vector", "layers"


@dataclass(frozen=True, slots=True)
class Point:
    """One size of one model on the tasks of one kind. value: the mean of their main measures; low, high: its interval
    where it is one task. layers: 0 for a model that has none, or all of its."""

    kind: str
    model: str
    dtype: str
    dim: int
    layers: int
    bytes: int
    value: float
    low: float | None
    high: float | None


def points(found: Sequence[Sequence[Result]]) -> list[Point]:
    """The points of the results of several models; what has no vectors (BM25) has none."""
    made: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in (result for results in found for result in results if result.record["bytes"] is not None):
        record = result.record
        key = (
            result.task.kind,
            record["model"],
            record["dtype"],
            record["dim"],
            record["layers"] or 0,
            record["bytes"],
        )
        made.setdefault(key, []).append(record["measures"][result.task.main])
    counts: dict[str, int] = {}
    for key, measures in made.items():
        counts[key[0]] = max(counts.get(key[0], 0), len(measures))
    points = []
    for key, measures in made.items():
        if len(measures) < counts[key[0]]:
            continue  # measured on a part of the tasks: its mean is another one
        alone = measures[0] if len(measures) == 1 else {}
        mean = sum(float(one["mean"]) for one in measures) / len(measures)
        points.append(Point(*key, value=mean, low=alone.get("low"), high=alone.get("high")))
    return points


def draw(found: Sequence[Sequence[Result]], path: Path) -> None:
    """Write the picture to ``path`` (.png or .svg). InputError for another ending and where there is nothing to draw,
    MissingExtraError without matplotlib."""
    require("matplotlib", why="the plot of an evaluation")
    import matplotlib
    from matplotlib.figure import Figure

    kind = path.suffix.lstrip(".")
    if kind not in ("png", "svg"):
        raise InputError(f"the plot's name is {path.name!r}; expected one that ends in .png or .svg")
    every = points(found)
    if not every:
        raise InputError("nothing to plot: no model with vectors was measured")
    kinds = list(dict.fromkeys(point.kind for point in every))
    deep = len({point.layers for point in every}) > 1
    tall = _TOP + len(kinds) * (_HIGH + _GAP)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDE, tall))
        for row, name in enumerate(kinds):
            own = [point for point in every if point.kind == name]
            tasks = {result.task.slug: result.task for results in found for result in results}.values()
            measured = [task for task in tasks if task.kind == name]
            title = (
                f"{name}: {measured[0].name}, {measured[0].main}"
                if len(measured) == 1
                else (f"{name}: mean of {len(measured)} tasks")
            )
            bottom = 1 - (_TOP + row * (_HIGH + _GAP) + _HIGH) / tall
            for column, axis in enumerate((_BYTES, _LAYERS) if deep else (_BYTES,)):
                width = 0.27 if deep else 0.72
                axes = figure.add_axes((0.06 + 0.5 * column, bottom, width, _HIGH / tall))
                _panel(axes, own, axis)
                axes.set_title(title if column == 0 else "", pad=8)
                axes.set_xlabel(axis, color=FAINT)
        with atomic_write(path) as stream:
            figure.savefig(stream, format=kind, dpi=150, facecolor="white")


def _panel(axes: Any, own: Sequence[Point], axis: str) -> None:
    """A line per model, and per what else differs but the axis."""
    lines: dict[str, list[Point]] = {}
    widest = {point.model: max(other.dim for other in own if other.model == point.model) for point in own}
    for point in own:
        if axis == _LAYERS and (point.dtype != "float32" or point.dim != widest[point.model]):
            continue  # the full vector tells what a layer is worth
        lines.setdefault(_named(point, own, axis), []).append(point)
    ends = []
    for colour, (label, line) in zip(_colours(len(lines)), lines.items(), strict=True):
        line.sort(key=lambda point: _x(point, axis, own))
        xs, values = [_x(point, axis, own) for point in line], [point.value for point in line]
        axes.plot(xs, values, "o-", color=colour, mec="white", mew=0.7, ms=5, lw=1.8, zorder=4)
        band = [(x, p.low, p.high) for x, p in zip(xs, line, strict=True) if p.low is not None]
        if len(band) > 1:
            axes.fill_between(*zip(*band, strict=True), color=colour, alpha=0.14, lw=0, zorder=2)
        elif band:
            axes.plot([band[0][0]] * 2, band[0][1:], color=colour, lw=1.4, zorder=3)
        ends.append((values[-1], label, colour))
    axes.margins(y=0.12)
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    xs = sorted({_x(point, axis, own) for line in lines.values() for point in line})
    if axis == _BYTES:
        axes.set_xscale("log", base=2)
        axes.minorticks_off()
    if len(xs) <= 9:
        axes.set_xticks(xs, [f"{x:,.0f}" for x in xs])
    end_labels(axes, ends)


def _x(point: Point, axis: str, own: Sequence[Point]) -> float:
    if axis == _BYTES:
        return float(point.bytes)
    # All layers are recorded as 0: one more than the most that was asked for, unless the model has none.
    return float(point.layers or 1 + max(other.layers for other in own if other.model == point.model))


def _named(point: Point, own: Sequence[Point], axis: str) -> str:
    same = [other for other in own if other.model == point.model]
    parts = [point.model]
    if axis == _BYTES and len({other.layers for other in same}) > 1:
        parts.append(f"{point.layers} layers" if point.layers else "all layers")
    if axis == _BYTES and len({other.dtype for other in same}) > 1:
        parts.append(point.dtype)
    return ", ".join(parts)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
