"""Trend lines as SVG: a small picture of the shares of a topic, period by period."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

__all__ = ["sparkline"]

WIDTH, HEIGHT = 220, 56
_TOP = 4


def sparkline(shares: Sequence[float | None], most: float, *, colour: int) -> Markup:
    """A line over a filled ground, its height the share over ``most``; periods without a share leave a gap. The last
    point is marked."""
    step = WIDTH / max(len(shares) - 1, 1)
    runs: list[list[tuple[float, float]]] = [[]]
    for i, share in enumerate(shares):
        if share is None:
            if runs[-1]:
                runs.append([])
            continue
        runs[-1].append((i * step, HEIGHT - (HEIGHT - _TOP) * min(share / most if most else 0.0, 1.0)))
    runs = [run for run in runs if run]
    line = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run) for run in runs)
    ground = "".join(
        f"M{run[0][0]:.1f} {HEIGHT}L" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run) + f"L{run[-1][0]:.1f} {HEIGHT}z"
        for run in runs
    )
    end = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(*runs[-1][-1]) if runs else Markup("")
    return Markup(
        '<svg class="spark c{}" viewBox="-4 0 {} {}" aria-hidden="true"><path class="ground" d="{}"/>'
        '<path class="line" d="{}"/>{}</svg>'
    ).format(colour, WIDTH + 8, HEIGHT + 1, ground, line, end)
