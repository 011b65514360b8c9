"""``nextvec report``: the results of all claims as one Markdown page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextvec.cli.console import JsonFlag, emit


def command(
    results: Annotated[Path, typer.Option("--results", help="Folder with the JSON files of claims.")] = Path(
        "docs/results"
    ),
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("docs/results.md"),
    as_json: JsonFlag = False,
) -> None:
    """Render a page with every claim's table, checks, plot and the command that makes it again."""
    from nextvec.claims.report import write_report

    count = write_report(results, out)
    document = {"path": str(out), "claims": count}
    emit(document, as_json=as_json, text=f"{out}: {count} claim{'' if count == 1 else 's'}")
