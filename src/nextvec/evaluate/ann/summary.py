"""What a run says: medians over rounds, the fastest setting that reaches a recall, ratios, as JSON and Markdown."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nextvec.evaluate.ann.workload import Cell, Workload
from nextvec.files import human_bytes

__all__ = ["OURS", "markdown", "summarise"]

OURS = "nextvec"
_LONGEST = 120  # characters of a failure in a table; ann.json has all of it
_Table = dict[str, Any]


def summarise(workload: Workload, found: Mapping[str, Mapping[str, Any]], *, target: float) -> dict[str, Any]:
    """One document of the results that ``runner.run`` gave: engines, cells, points and the table at ``target``."""
    points = _points(found)
    cells = [_cell(workload, cell) for cell in workload.cells()]
    return {
        "workload": workload.name,
        "facts": dict(workload.facts),
        "k": workload.k,
        "target": target,
        "engines": [_engine(name, own) for name, own in found.items()],
        "cells": cells,
        "left_out": dict(workload.left_out),
        "points": points,
        "table": [_row(points, cell, target) for cell in cells],
    }


def _engine(name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    build, rounds = own["build"] or {}, own["rounds"]
    memory = [one["search_bytes"] for one in rounds if one["search_bytes"] is not None]
    return {
        "engine": name,
        "version": build.get("version"),
        "note": build.get("note", ""),
        "failed": own["failed"],
        "build_s": build.get("build_s"),
        "build_bytes": build.get("build_bytes"),
        "disk_bytes": build.get("disk_bytes"),
        "search_bytes": max(memory) if memory else None,
        "rounds": len(rounds),
        "load": [one["load"] for one in rounds],
        "unsupported": sorted({p["unsupported"] for one in rounds for p in one["points"] if "unsupported" in p}),
    }


def _points(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One mapping per engine, cell and setting: rates are medians over rounds, with the least and the greatest."""
    gathered: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for name, own in found.items():
        for one in own["rounds"]:
            for point in one["points"]:
                if "unsupported" not in point:
                    place = tuple(
                        point[part] for part in ("kind", "bucket", "correlation", "series", "setting", "ready")
                    )
                    gathered[name, *place].append(point)
    points = []
    for (name, kind, bucket, correlation, series, setting, ready), same in gathered.items():
        points.append(
            {
                "engine": name, "kind": kind, "bucket": bucket, "correlation": correlation, "series": series,
                "setting": setting, "ready": ready,
                "recall": float(np.mean([p["recall"] for p in same])),
                "least_recall": min(p["least_recall"] for p in same),
                "fill": float(np.mean([p["fill"] for p in same])),
                "wrong": sum(p["wrong"] for p in same),
                "single": _spread([p["single"]["qps"] for p in same]),
                "single_p99_ms": float(np.median([p["single"]["p99_ms"] for p in same])),
                "single_cpu_ms": float(np.median([p["single"]["cpu_ms"] for p in same])),
                "batch": _spread([p["batch"]["qps"] for p in same if p["batch"]]),
            }
        )  # fmt: skip
    return points


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"qps": float(np.median(values)), "low": min(values), "high": max(values)}


def _cell(workload: Workload, cell: Cell) -> dict[str, Any]:
    groups = [group for group in workload.groups if group.cell == cell]
    return {
        "kind": cell.kind,
        "bucket": cell.bucket,
        "correlation": cell.correlation,
        "filters": len(groups),
        "queries": sum(len(group.queries) for group in groups),
        "matches": float(np.mean([group.matches for group in groups])),
        "lift": float(np.mean([group.lift for group in groups])),
    }


def _row(points: Iterable[Mapping[str, Any]], cell: Mapping[str, Any], target: float) -> _Table:
    """The best of every series in a cell, and how ours compares with the best peer's."""
    own = [p for p in points if all(p[name] == cell[name] for name in ("kind", "bucket", "correlation"))]
    best = {
        name: _best([p for p in own if p["series"] == name], target) for name in dict.fromkeys(p["series"] for p in own)
    }
    ready = {p["series"]: p["ready"] for p in own}
    ratios = {}
    for series in (name for name in best if name.partition(",")[0] == OURS):
        peers = {n: b for n, b in best.items() if n.partition(",")[0] != OURS and (ready[series] or not ready[n])}
        ratios[series] = {way: _ratio(best[series], peers, way) for way in ("single", "batch")}
    return {**cell, "best": best, "ratios": ratios}


def _best(points: Sequence[Mapping[str, Any]], target: float) -> dict[str, Any]:
    """The fastest settings that reach the target, one by one and in batches; where none does, those of the most recall.

    What returned a wrong hit does not count as reaching anything.
    """
    right = [p for p in points if not p["wrong"]]
    reaching = [p for p in right if p["recall"] >= target - 1e-9]  # means of tenths are off in the last digit
    pool = reaching or [max(points, key=lambda p: (not p["wrong"], p["recall"]))]
    found: dict[str, Any] = {"reached": bool(reaching), "recall": pool[0]["recall"], "wrong": pool[0]["wrong"]}
    for way in ("single", "batch"):
        usable = [p for p in pool if p[way]]
        one = max(usable, key=lambda p: p[way]["qps"]) if usable else None
        found[way] = (
            None
            if one is None
            else {**one[way], "setting": one["setting"], "recall": one["recall"], "fill": one["fill"]}
        )
    return found


def _ratio(ours: Mapping[str, Any], peers: Mapping[str, Mapping[str, Any]], way: str) -> dict[str, Any] | None:
    """Ours over the fastest peer that reaches the target; None where one of the two does not."""
    rivals = {name: peer for name, peer in peers.items() if peer["reached"] and peer[way]}
    if not ours["reached"] or not ours[way] or not rivals:
        return None
    name = max(rivals, key=lambda n: rivals[n][way]["qps"])
    return {"ratio": ours[way]["qps"] / rivals[name][way]["qps"], "peer": name}


def markdown(document: Mapping[str, Any]) -> str:
    """The document as Markdown: engines, ratios by bucket, then a table for each kind and correlation."""
    target = document["target"]
    facts = document["facts"]
    lines = [
        f"# Filtered search: {document['workload']}",
        "",
        f"{facts['rows']:,} vectors of {facts['dim']} dimensions, {document['k']} hits, recall target {target:g}. "
        "Queries per second, one query a call / many queries a call: medians over rounds, at the fastest setting that "
        "reaches the target. In brackets: the target is not reached, with the most recall. –: not measured.",
        "",
        *_engines(document["engines"]),
        *_ratios(document["table"]),
    ]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in document["table"]:
        groups[row["correlation"], row["kind"]].append(row)
    for (correlation, kind), rows in groups.items():
        title = "no filter" if kind == "none" else f'"{kind}" filters, {correlation}'
        lines += ["", f"## {title}", "", *_speeds(rows)]
    lines += _short(document["table"])
    if document["left_out"]:
        lines += ["", "Left out:", "", *(f"- {name}: {why}" for name, why in document["left_out"].items())]
    return "\n".join(lines) + "\n"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]], *, texts: Sequence[int] = (0,)) -> list[str]:
    """A Markdown table; ``texts``: the columns that are not numbers."""
    marks = ["---" if i in texts else "--:" for i in range(len(head))]
    return ["| " + " | ".join(row) + " |" for row in (head, marks, *rows)]


def _engines(engines: Sequence[Mapping[str, Any]]) -> list[str]:
    def size(value: float | None) -> str:
        return "–" if value is None else human_bytes(max(value, 0))

    rows = [
        [
            f"{one['engine']} {one['version'] or ''}".strip(),
            "–" if one["build_s"] is None else f"{one['build_s']:.1f} s",
            size(one["build_bytes"]),
            size(one["search_bytes"]),
            size(one["disk_bytes"]),
            _cropped(one["failed"]) if one["failed"] else one["note"],
        ]
        for one in engines
    ]
    return _grid(["engine", "build", "memory, build", "memory, search", "disk", "note"], rows, texts=(0, 5))


def _cropped(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _ratios(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Geometric means over the kinds of filters of ours over the best peer."""
    gathered: dict[tuple[str, str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in table:
        for series, ways in row["ratios"].items():
            for way, one in ways.items():
                if one:
                    gathered[row["correlation"], series, way][row["bucket"]].append(one["ratio"])
    if not gathered:
        return []
    buckets = sorted({row["bucket"] for row in table})
    rows = []
    for (correlation, series, way), by in gathered.items():
        cells = [f"{math.exp(float(np.mean(np.log(by[b])))):.2f}" if by.get(b) else "–" for b in buckets]
        rows.append([f"{series}, {way}, {correlation}", *cells])
    return [
        "",
        "Ours over the best peer at the target (above 1: ours is faster; geometric mean over kinds of filters; 'filter "
        "known' is also compared with peers whose matches are at hand):",
        "",
        *_grid(["", *(f"{b:g} %" for b in buckets)], rows),
    ]


def _short(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Series that gave fewer hits than there are, each with the cell where that was worst."""
    worst: dict[str, tuple[float, str]] = {}
    for row in table:
        for series, best in row["best"].items():
            fill = best["single"]["fill"]
            if fill < worst.get(series, (1.0, ""))[0]:
                worst[series] = fill, f"{row['kind']} {row['bucket']:g} % {row['correlation']}"
    told = [f"- {series}: {fill:.2f} of them ({cell})" for series, (fill, cell) in worst.items()]
    return ["", "Fewer hits than min(k, matches), at worst:", "", *told] if told else []


def _speeds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    series = list(dict.fromkeys(name for row in rows for name in row["best"]))
    head = ["", *(f"{row['bucket']:g} % (lift {row['lift']:.1f})" for row in rows)]
    body = [[name, *(_speed(row["best"].get(name)) for row in rows)] for name in series]
    ours = dict.fromkeys(name for row in rows for name in row["ratios"])
    body += [[f"*{name} / best peer*", *(_told(row["ratios"].get(name)) for row in rows)] for name in ours]
    return _grid(head, body)


def _speed(best: Mapping[str, Any] | None) -> str:
    if best is None:
        return "–"
    text = " / ".join(f"{best[way]['qps']:,.0f}" if best[way] else "–" for way in ("single", "batch"))
    if best["wrong"]:
        return f"({text}; wrong hits)"
    return text if best["reached"] else f"({text}; {best['recall']:.2f})"


def _told(ratios: Mapping[str, Any] | None) -> str:
    if ratios is None:
        return "–"
    return " / ".join(f"{ratios[way]['ratio']:.2f}" if ratios[way] else "–" for way in ("single", "batch"))
