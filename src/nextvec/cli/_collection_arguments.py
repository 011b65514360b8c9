"""Arguments and options that several commands of ``nextvec collection`` take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ADDRESS = "a folder, s3://BUCKET/PREFIX, qdrant://HOST:PORT/NAME, or postgresql://USER@HOST/DATABASE?collection=NAME"
PathArgument = Annotated[str, typer.Argument(help=f"The collection's address: {ADDRESS}.")]

FolderArgument = Annotated[Path, typer.Argument(help="The collection's folder.")]
QueriesOption = Annotated[
    Path | None,
    typer.Option(
        "--queries", help="A .npy file with real queries, as rows, to measure on (32 or more).", show_default=False
    ),
]
KeepOption = Annotated[
    str, typer.Option("--keep", help="How vectors are kept: float32, float16, or int8 (with cosine).")
]
