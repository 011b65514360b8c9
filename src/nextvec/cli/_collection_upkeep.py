"""``nextvec collection compact``, ``delete`` and ``sizes``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from nextvec.cli._collection_arguments import FolderArgument, PathArgument
from nextvec.cli._collection_query import load_vectors
from nextvec.cli.console import JsonFlag, emit, progress, table
from nextvec.types import InputError


def compact(path: FolderArgument, as_json: JsonFlag = False) -> None:
    """Merge small pieces, drop deleted rows and versions older than an hour. Done in the background by writers, too."""
    from nextvec.search.collection import Collection

    with Collection.open(path) as collection:
        before = collection.info()
        collection.compact()
        after = collection.info()
    names = ("rows", "version", "fragments", "bytes", "derived_bytes")
    document = {"path": str(path), "before": {name: before[name] for name in names}}
    document |= {"after": {name: after[name] for name in names}}
    pieces = f"{before['fragments']} pieces are {after['fragments']}"
    sizes = f"{before['bytes'] / 1e6:,.1f} MB are {after['bytes'] / 1e6:,.1f}"
    emit(document, as_json=as_json, text=f"compacted {path}: {pieces}, {sizes} (versions of the last hour are kept)")


def delete(
    path: PathArgument,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of the rows; unknown ones are passed over.")] = None,
    where: Annotated[str | None, typer.Option("--where", "-w", help="Or all rows that satisfy this filter.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete rows by id or by filter, in one commit."""
    from nextvec.search.stores import open_collection

    if bool(ids) == (where is not None):
        raise InputError("which rows to delete: give either their ids or --where")
    with open_collection(path) as collection:
        gone = collection.delete(ids) if ids else collection.delete(where=where)
        left = collection.count()
    emit({"deleted": gone, "rows": left}, as_json=as_json, text=f"{gone} rows deleted; {left} left")


def sizes(
    path: PathArgument,
    queries: Annotated[
        Path | None, typer.Option("--queries", help="A .npy file with real queries, as rows; else rows held out.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Hits for each query.")] = 10,
    rows: Annotated[int, typer.Option("--rows", help="Rows of the sample that is measured on.")] = 20_000,
    as_json: JsonFlag = False,
) -> None:
    """What fewer bytes would cost: recall against bytes a vector, on a sample of the collection."""
    from nextvec.search.sizes import sizes as measure
    from nextvec.search.stores import open_collection

    real = None if queries is None else load_vectors(queries, "--queries")
    with open_collection(path) as collection, progress("measuring", quiet=as_json) as report:
        found = measure(collection, real, k=k, rows=rows, progress=report)
    shown = [
        [
            one.kind,
            one.spec,
            f"{one.bytes:,}",
            "" if one.on_disk is None else f"{one.on_disk:,}",
            f"{one.recall:.3f} ({one.low:.3f} to {one.high:.3f})",
            f"{one.reranked:.3f}",
        ]
        for one in found
    ]
    head = ["", "", "bytes a vector", "with exact index", f"recall@{k}", "re-ranked"]
    emit({"sizes": [dataclasses.asdict(one) for one in found]}, as_json=as_json, text=table(head, shown, right=(2, 3)))
