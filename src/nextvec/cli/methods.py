"""``nextvec methods``: every published method that is built in, with the verdict on its claim."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from nextvec.cli.console import JsonFlag, emit, note, table

_TITLE = 64  # characters of a title in the table


def command(
    results: Annotated[
        Path | None, typer.Option("--results", help="Folder with results; default: docs/results of the checkout.")
    ] = None,
    package: Annotated[str, typer.Option("--package", hidden=True)] = "nextvec.methods",
    as_json: JsonFlag = False,
) -> None:
    """List the methods: family, paper, year, and whether their claim held here and at which scale."""
    if not as_json:
        note("reading the methods' cards ...")
    from nextvec import catalog
    from nextvec.claims.facts import checkout
    from nextvec.claims.results import NOT_RUN, best, read_results

    folder = results if results is not None else _default(checkout())
    found = best(read_results(folder)) if folder is not None else {}
    documents: list[dict[str, Any]] = []
    for name, card in catalog.cards(package).items():
        result = found.get(name)
        documents.append(
            {
                "method": name,
                **dataclasses.asdict(card),
                "verdict": result["verdict"] if result else NOT_RUN,
                "scale": result["scale"] if result else None,
                "seeds": len(result["seeds"]) if result else None,
            }
        )
    rows = [
        [
            row["method"],
            row["family"],
            row["title"] if len(row["title"]) <= _TITLE else row["title"][: _TITLE - 1] + "…",
            str(row["year"]),
            row["verdict"],
            row["scale"] or "",
        ]
        for row in documents
    ]
    emit(documents, as_json=as_json, text=table(["method", "family", "paper", "year", "verdict", "scale"], rows))


def _default(top: Path | None) -> Path | None:
    folder = top / "docs" / "results" if top is not None else None
    return folder if folder is not None and folder.is_dir() else None
