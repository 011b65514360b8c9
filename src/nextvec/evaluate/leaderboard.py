"""Results of several models as one Markdown table: a row per model and size, a column per task, means per kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nextvec.evaluate.runner import Result
from nextvec.evaluate.task_kinds import Task

__all__ = ["leaderboard"]

Row = tuple[str, int | None, int | None, str | None]


def leaderboard(found: Sequence[Sequence[Result]]) -> str:
    """Markdown, a table for each kind of task. Figures are main measures times 100 with half the width of their 95 %
    interval over examples; the best of a column, and what its interval does not tell apart from it, is bold."""
    every = [result for results in found for result in results]
    tasks = {result.task.slug: result.task for result in every}
    parts = [
        "Main measures times 100, ± half of the 95 % bootstrap interval over examples. Bold: the best of its column,"
        " and whatever has an interval that reaches the best.",
    ]
    for kind in dict.fromkeys(task.kind for task in tasks.values()):
        parts.append(_table(kind, [task for task in tasks.values() if task.kind == kind], every))
    return "\n\n".join(parts) + "\n"


def _table(kind: str, tasks: Sequence[Task], every: Sequence[Result]) -> str:
    cells: dict[Row, dict[str, Mapping[str, Any]]] = {}
    stored: dict[Row, int | None] = {}
    for result in every:
        if result.task.kind == kind:
            record = result.record
            row: Row = (record["model"], record["dim"], record["layers"], record["dtype"])
            cells.setdefault(row, {})[result.task.slug] = record["measures"][result.task.main]
            stored[row] = record["bytes"]
    best = {task.slug: max(own[task.slug]["mean"] for own in cells.values() if task.slug in own) for task in tasks}
    heads = ["model", "bytes", *(f"{task.name} ({task.main})" for task in tasks)]
    heads += ["mean"] if len(tasks) > 1 else []
    lines = [f"### {kind}", "", f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for row, own in cells.items():
        texts = [_cell(own.get(task.slug), best[task.slug]) for task in tasks]
        if len(tasks) > 1:
            means = [own[task.slug]["mean"] for task in tasks if task.slug in own]
            texts.append(f"{100 * sum(means) / len(means):.1f}" if len(means) == len(tasks) else "")
        wide = stored[row]
        lines.append(f"| {_named(row)} | {'' if wide is None else f'{wide:,}'} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _cell(value: Mapping[str, Any] | None, best: float) -> str:
    if value is None:
        return ""
    text = f"{100 * value['mean']:.1f} ± {50 * (value['high'] - value['low']):.1f}"
    return f"**{text}**" if value["high"] >= best else text


def _named(row: Row) -> str:
    model, dim, layers, dtype = row
    parts = [model, f"{dim} values" if dim else "", f"{layers} layers" if layers else ""]
    return ", ".join(filter(None, [*parts, dtype if dtype not in (None, "float32") else ""]))
