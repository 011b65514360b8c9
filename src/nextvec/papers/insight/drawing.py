"""The map of topics as shapes: cells by how many papers lie there, in the colour of the topic most of them have, and
labels that do not touch. Few papers are drawn as dots.

Everything is attributes and classes: the page's policy allows no styles in the markup. ``site.css`` says what the
classes look like, in light and in dark.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextvec.papers.insight.topics import Topic, Topics

__all__ = ["HEIGHT", "WIDTH", "Drawing", "Label", "Region", "draw"]

WIDTH, HEIGHT = 1_000, 640
COLOURS = 8
_MARGIN = 34
_DOTS = 1_500  # papers that are still drawn one by one
_COLUMNS = 58
_LEVELS = 4
_SIZES = {"wide": 15.0, "narrow": 34.0}
"""Height of the letters, in units of the map, on a wide and on a narrow screen (where the map is drawn smaller)."""
_LETTER = 0.6  # width of a letter over its height, at the outside


@dataclass(frozen=True, slots=True)
class Label:
    """``x``, ``y``: the middle of the text. ``minor``: it has room only when the map is enlarged."""

    topic: Topic
    x: float
    y: float
    minor: bool


@dataclass(frozen=True, slots=True)
class Region:
    """The cells of a topic: ``paths`` by level, 1 (few papers) to 4."""

    topic: Topic
    colour: int
    paths: dict[int, str]
    dots: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """``labels`` by screen (wide, narrow)."""

    regions: list[Region]
    labels: dict[str, list[Label]]
    colours: list[int]


def draw(topics: Topics) -> Drawing:
    """The map of ``topics``."""
    points = np.empty_like(topics.places, dtype=np.float64)
    points[:, 0] = _MARGIN + topics.places[:, 0] * (WIDTH - 2 * _MARGIN)
    points[:, 1] = _MARGIN + topics.places[:, 1] * (HEIGHT - 2 * _MARGIN)
    middles = np.stack([_middle(points[topics.of == topic.number]) for topic in topics.topics])
    colours = _colours(middles)
    dots = len(points) <= _DOTS
    cells = _dots(points, topics.of) if dots else _cells(points, topics.of)
    regions = [
        Region(topic, colours[topic.number], cells[topic.number], dots)
        for topic in topics.topics
        if topic.number in cells
    ]
    labels = {name: _labels(topics.topics, middles, size) for name, size in _SIZES.items()}
    return Drawing(regions, labels, colours)


def _middle(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where a topic's name belongs: the median of its papers, and not outside for a topic without any."""
    if not len(points):
        return np.array([WIDTH / 2, HEIGHT / 2])
    return np.asarray(np.median(points, axis=0), np.float64)


def _colours(middles: NDArray[np.float64]) -> list[int]:
    """A colour per topic that its near neighbours do not have (greedy, the largest topic first)."""
    chosen: list[int] = []
    for i, middle in enumerate(middles):
        apart = [math.inf] * COLOURS
        for j in range(i):
            distance = float(np.hypot(*(middle - middles[j])))
            apart[chosen[j]] = min(apart[chosen[j]], distance)
        # The colour whose nearest use is farthest away; among unused ones the first.
        chosen.append(max(range(COLOURS), key=lambda colour: (apart[colour], -colour)))
    return chosen


def _dots(points: NDArray[np.float64], of: NDArray[np.int32]) -> dict[int, dict[int, str]]:
    """Each paper as a line of no length, which its round ends make a dot: a few bytes a paper."""
    found: dict[int, list[str]] = {}
    for (x, y), number in zip(points, of, strict=True):
        found.setdefault(int(number), []).append(f"M{x:.0f} {y:.0f}h0")
    return {number: {_LEVELS: "".join(parts)} for number, parts in found.items()}


def _cells(points: NDArray[np.float64], of: NDArray[np.int32]) -> dict[int, dict[int, str]]:
    """Hexagons, by topic and level."""
    radius = (WIDTH - 2 * _MARGIN) / _COLUMNS / math.sqrt(3)
    held: dict[tuple[int, int], Counter[int]] = {}
    for (x, y), number in zip(points, of, strict=True):
        held.setdefault(_cell(float(x), float(y), radius), Counter())[int(number)] += 1
    counts = np.array([sum(one.values()) for one in held.values()])
    bounds = np.unique(np.quantile(counts, [0.4, 0.7, 0.9]))
    found: dict[int, dict[int, str]] = {}
    for (column, row), numbers in sorted(held.items()):
        number = min(numbers, key=lambda one: (-numbers[one], one))
        level = int(np.searchsorted(bounds, sum(numbers.values()), side="left")) + 1
        paths = found.setdefault(number, {})
        paths[level] = paths.get(level, "") + _hexagon(column, row, radius)
    return found


def _cell(x: float, y: float, radius: float) -> tuple[int, int]:
    """The hexagon that a point lies in: of the two nearest rows the one whose middle is nearer."""
    wide, high = radius * math.sqrt(3), radius * 1.5
    best, nearest = (0, 0), math.inf
    for row in (math.floor(y / high), math.floor(y / high) + 1):
        shift = wide / 2 if row % 2 else 0.0
        column = round((x - shift) / wide)
        distance = (column * wide + shift - x) ** 2 + (row * high - y) ** 2
        if distance < nearest:
            best, nearest = (column, row), distance
    return best


def _hexagon(column: int, row: int, radius: float) -> str:
    """A hexagon with its point up, a little smaller than its cell so that a line of paper shows between two.

    In whole units, which the eye does not see and which halve the page.
    """
    wide, high = radius * math.sqrt(3), radius * 1.5
    x = column * wide + (wide / 2 if row % 2 else 0.0)
    size = radius * 0.93
    half, step, side = round(size * math.sqrt(3) / 2), round(size / 2), round(size)
    return f"M{x:.0f} {row * high - size:.0f}l{half} {step}v{side}l-{half} {step}-{half}-{step}v-{side}z"


# -- labels --------------------------------------------------------------------------------------------------------
def _labels(topics: Sequence[Topic], middles: NDArray[np.float64], size: float) -> list[Label]:
    """A label for every topic, the largest first: near its middle where nothing is yet, else for later (``minor``)."""
    boxes: list[tuple[float, float, float, float]] = []
    labels = []
    for topic, (x, y) in zip(topics, middles, strict=True):
        half, tall = len(topic.label) * size * _LETTER / 2 + 6, size * 0.62 + 2
        for dx, dy in _offsets(size):
            left = min(max(x + dx - half, 2), WIDTH - 2 * half - 2)
            top = min(max(y + dy - tall, 2), HEIGHT - 2 * tall - 2)
            box = (left, top, left + 2 * half, top + 2 * tall)
            if half < WIDTH / 2 and not any(_touch(box, other) for other in boxes):
                boxes.append(box)
                labels.append(Label(topic, left + half, top + tall, False))
                break
        else:
            labels.append(Label(topic, float(x), float(y), True))
    return labels


def _offsets(size: float) -> Iterator[tuple[float, float]]:
    yield 0.0, 0.0
    for ring in (1.2, 2.1):
        for dx, dy in ((0, -1), (0, 1), (1.6, -0.6), (-1.6, -0.6), (1.6, 0.6), (-1.6, 0.6)):
            yield ring * dx * size, ring * dy * size


def _touch(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
