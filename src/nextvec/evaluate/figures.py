"""How pictures of results look: one style, colours that people with any colour vision tell apart, names beside lines.

Colours are those of Okabe and Ito (2008).
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

__all__ = ["COLOURS", "FAINT", "INK", "STYLE", "end_labels", "short", "spread"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A8A")
INK, FAINT = "#1f2328", "#5b636d"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": "#9aa1a9",
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "grid.color": "#e3e6ea",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.fonttype": "none",
}


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """As near to ``wanted`` as ``gap`` between any two allows, in the same order: labels that do not overlap."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[list[int]] = []
    centres: list[float] = []
    for i in order:
        groups.append([i])
        centres.append(wanted[i])
        while len(groups) > 1 and centres[-1] - centres[-2] < gap * (len(groups[-1]) + len(groups[-2])) / 2 - 1e-12:
            merged = groups[-2] + groups[-1]
            groups[-2:], centres[-2:] = [merged], [sum(wanted[j] for j in merged) / len(merged)]
    places = [0.0] * len(wanted)
    for group, centre in zip(groups, centres, strict=True):
        for step, i in enumerate(group):
            places[i] = centre + gap * (step - (len(group) - 1) / 2)
    return places


def end_labels(axes: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right of the panel, at the height of their line's end; ``ends``: its value, name and colour."""
    low, high = axes.get_ylim()
    heights = [(value - low) / (high - low) for value, _, _ in ends]
    for place, (_, label, colour) in zip(spread(heights, 0.075), ends, strict=True):
        axes.text(1.03, place, short(label), transform=axes.transAxes, va="center", color=colour)


def short(label: str) -> str:
    """At most 30 characters of a name."""
    return textwrap.shorten(label, 30, placeholder=" …") or label[:30]
