"""The model card of a domain encoder: what it was made from, what it is good for, and how well it did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextvec import __version__
from nextvec.encoder import Encoder
from nextvec.files import atomic_write

__all__ = ["write_card"]

_LEARNED = {
    "documents": "titles or headings and the text below them, or sentences and the passage around them",
    "pairs": "queries and their documents",
    "triplets": "queries, their documents and wrong ones",
    "graded": "pairs of texts with scores",
}


def write_card(path: Path, report: Mapping[str, Any], encoder: Encoder) -> None:
    """Write README.md, with the front matter that model hubs read."""
    with atomic_write(path, "w") as stream:
        stream.write(_card(report, encoder))


def _card(report: Mapping[str, Any], encoder: Encoder) -> str:
    data, settings = report["data"], report["settings"]
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, feature-extraction, nextvec]",
        "---",
        "",
        f"# A domain encoder for {data['name']}",
        "",
        f"Texts become vectors of {encoder.dim} values. Trained from `{report['base']}` on "
        f"{data['pairs learned from']:,} pairs of `{data['name']}`: {_LEARNED[data['records are']]}. Made with "
        f"`nextvec train embedder`, nextvec {__version__}.",
        "",
        "## How well it does",
        "",
        _judged(report),
        "",
        *_table(report),
        "",
        *_sizes(report),
        "## Use",
        "",
        "```python",
        "from nextvec import Encoder",
        "",
        'encoder = Encoder.load("path/to/this/folder")',
        'queries = encoder.encode(["a question"], role="query")',
        "```",
        "",
        'The folder opens in sentence-transformers too: `SentenceTransformer("path/to/this/folder")`.',
        "",
        "## How it was made",
        "",
        *(f"- {name}: {value}" for name, value in settings.items() if value not in (None, [], ())),
        f"- steps: {report['steps']}",
        *(f"- left out of the data: {count} ({why})" for why, count in data["left out"].items()),
        "",
        "## Limits",
        "",
        "Measured on records of the same collection alone: how well it does on other texts, or other languages than "
        "those of its data, is not known. The licence is that of the base and of the data.",
        "",
    ]
    return "\n".join(lines)


def _judged(report: Mapping[str, Any]) -> str:
    gain = report["gain"][report["measure"]]
    held = report["data"]["pairs held out"]
    where = f"On {held:,} pairs that were held out"
    if gain["low"] > 0:
        return f"{where} it is better than its base."
    if gain["high"] < 0:
        return f"{where} it is **worse than its base**: prefer the base."
    return f"{where} no difference to its base could be shown."


def _table(report: Mapping[str, Any]) -> list[str]:
    names = list(report["after"])
    rows = [("base", report["before"]), ("**this model**", report["after"]), ("difference", report["gain"])]
    if "bm25" in report:
        rows.insert(0, ("BM25", report["bm25"]))
    return [
        f"| | {' | '.join(names)} |",
        f"| --- |{' --- |' * len(names)}",
        *(f"| {called} | {' | '.join(_interval(values[name]) for name in names)} |" for called, values in rows),
        "",
        "In brackets: 95 % bootstrap intervals over the held-out queries or pairs. Queries look for their documents "
        "among those held out and up to 4,000 that were learned from.",
    ]


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _sizes(report: Mapping[str, Any]) -> list[str]:
    sizes = report["sizes"]
    if len(sizes) < 2:
        return []
    measure = report["measure"]
    return [
        "Cut to fewer layers or values (`encode(texts, layers=..., dim=...)`):",
        "",
        f"| layers | values | bytes (float32) | {measure} |",
        "| --- | --- | --- | --- |",
        *(f"| {one['layers'] or '-'} | {one['dim']} | {one['bytes']} | {one[measure]:.3f} |" for one in sizes),
        "",
    ]
