"""The whole benchmark in one call: run the engines on a workload, summarise, write JSON, Markdown and plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nextvec.evaluate.ann import plot, runner, summary
from nextvec.evaluate.ann.workload import open_workload
from nextvec.extras import available
from nextvec.files import atomic_write

__all__ = ["bench"]


def bench(
    workload: Path,
    out: Path,
    *,
    engines: Sequence[str] | None = None,
    options: runner.Options | None = None,
    target: float = 0.95,
    report: runner.Report | None = None,
) -> dict[str, Any]:
    """Measure ``engines`` (None: all that are installed) and leave in ``out`` ann.json, ann.md and, with matplotlib, a
    plot per correlation; gives the document. See ``runner.run`` for how an interrupted run goes on.

    NotFoundError, InputError, StorageError.
    """
    options = options or runner.Options()
    usable, missing = runner.choose(engines)
    opened = open_workload(workload, mapped=True)
    found = runner.run(workload, out, usable, options, report=report)
    document = {
        "benchmark": "ann",
        "machine": runner.machine(options),
        "seconds": options.seconds,
        "rounds": options.rounds,
        **summary.summarise(opened, found, target=target),
        "absent": missing,
    }
    with atomic_write(out / "ann.json", "w") as stream:
        json.dump(document, stream, indent=1, default=str)
    with atomic_write(out / "ann.md", "w") as stream:
        stream.write(summary.markdown(document))
    document["plots"] = _plots(document, out)
    return document


def _plots(document: dict[str, Any], out: Path) -> list[str]:
    if not available("matplotlib"):
        return []
    drawn = []
    filtered = [point for point in document["points"] if point["kind"] != "none"]
    for correlation in dict.fromkeys(point["correlation"] for point in filtered):
        plot.draw(document, out / f"ann-{correlation}.png", correlation=correlation)
        drawn.append(str(out / f"ann-{correlation}.png"))
    return drawn
