"""``nextvec collection``: make a collection of embeddings, fill it from files, search it under filters."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from nextvec.cli._collection_arguments import ADDRESS, FolderArgument, KeepOption, PathArgument, QueriesOption
from nextvec.cli._collection_query import (
    check_query,
    check_remote,
    embed_query,
    load_vectors,
    recall_of,
    split,
    text_columns_of,
)
from nextvec.cli._collection_records import attributes_of, embedder, first_place, rows_of, vector_reader
from nextvec.cli._collection_upkeep import compact, delete, sizes
from nextvec.cli.console import JsonFlag, emit, progress, table
from nextvec.types import Hits, InputError, NextvecError, NotFoundError

app = typer.Typer(
    no_args_is_help=True, help="Store embeddings with attributes; search them under filters, exactly and durably."
)

_BATCH = 1_000  # rows per commit: small enough to lose little time to Ctrl-C, large enough to be fast
_SHOWN = 40  # characters of an attribute in a table

for _command in (compact, delete, sizes):
    app.command()(_command)


@app.command()
def create(
    path: PathArgument,
    dim: Annotated[int, typer.Option("--dim", help="Dimensions of every vector.")],
    schema: Annotated[
        str,
        typer.Option(
            "--schema",
            help="Attributes as name:type,...; types: string, int, float, bool, date, timestamp, list[string].",
        ),
    ] = "",
    metric: Annotated[str, typer.Option("--metric", help="cosine or dot.")] = "cosine",
    keep: KeepOption = "float32",
    nested: Annotated[
        bool, typer.Option("--nested", help="Cut longer vectors to their first --dim values, as nested models allow.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make an empty collection in a new folder."""
    from nextvec.search.stores import create_collection

    options: dict[str, Any] = {"metric": metric, "keep": keep, "nested": nested}
    with create_collection(path, dim=dim, schema=_schema(schema), **options) as collection:
        facts = collection.info()
        emit(facts, as_json=as_json, text=f"made {_shown(facts)} ({dim} dimensions, {metric})")


def _shown(facts: dict[str, Any]) -> str:
    """The address as it may be shown: without a password."""
    return str(facts.get("address") or facts["path"])


def _schema(text: str) -> dict[str, str]:
    schema: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, colon, kind = part.rpartition(":")
        if not colon or not name.strip():
            raise InputError(f"--schema has {part!r}: expected name:type, as in year:int,venue:string")
        if name.strip() in schema:
            raise InputError(f"--schema names {name.strip()!r} twice")
        schema[name.strip()] = kind.strip()
    return schema


@app.command()
def add(
    path: PathArgument,
    file: Annotated[Path, typer.Argument(help="Records: jsonl, csv, parquet, ... (also .gz, .xz, .zst).")],
    id_field: Annotated[str, typer.Option("--id", help="Field with the id.")] = "id",
    vector_field: Annotated[str, typer.Option("--vector", help="Field with the vector.")] = "vector",
    model: Annotated[str | None, typer.Option("--model", "-m", help="Embed --text with this model.")] = None,
    text_field: Annotated[str | None, typer.Option("--text", help="Field to embed, in place of --vector.")] = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace rows whose id exists.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Pass over rows whose id exists: goes on after an interruption.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Add the records of a file. Fields that are not in the schema are left out; missing ones are NULL."""
    from nextvec.data.readers import batched, read_located
    from nextvec.search.stores import open_collection

    if upsert and skip_existing:
        raise InputError("--upsert and --skip-existing exclude each other: choose one")
    if (model is None) != (text_field is None):
        raise InputError("--model and --text go together: the model to embed with, and the field to embed")
    added = skipped = 0
    with open_collection(path) as collection, progress("adding", quiet=as_json) as report:
        vectors = embedder(model, str(text_field)) if model else vector_reader(vector_field)
        known = set(collection.ids()) if skip_existing else set()
        write = collection.upsert if upsert else collection.add
        try:
            for batch in batched(rows_of(read_located(file), id_field), _BATCH):
                fresh = [row for row in batch if row[1] not in known]
                skipped += len(batch) - len(fresh)
                if fresh:
                    ids = [identifier for _, identifier, _ in fresh]
                    rows, attributes = vectors(fresh), attributes_of(fresh, collection.schema)
                    with first_place(fresh):
                        write(ids, rows, attributes)
                    added += len(fresh)
                    if skip_existing:
                        known.update(ids)
                report(added + skipped, None)
        except NextvecError as error:
            if not added:
                raise
            way = "run it again" if upsert else "go on with --skip-existing"
            raise type(error)(f"{error} ({added} rows before it were added: correct it and {way})") from error
        if not added + skipped:
            raise InputError(f"{file}: no records to add")
        shown = _shown(collection.info())
        document = {"path": shown, "added": added, "skipped": skipped, "rows": collection.count()}
    text = f"{added} rows added, {skipped} skipped; {document['rows']} in {shown}"
    emit(document, as_json=as_json, text=text)


@app.command()
def search(
    path: PathArgument,
    text: Annotated[
        str | None,
        typer.Option("--text", "-q", help="What to look for: by meaning with --model, by words with --text-columns."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Name or folder of the model.")] = None,
    vector: Annotated[
        Path | None, typer.Option("--vector", help="A .npy file with one vector, or several as rows.")
    ] = None,
    text_columns: Annotated[
        str | None, typer.Option("--text-columns", help="String attributes to look for the words in, by commas.")
    ] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="By meaning and by words, in all string attributes or --text-columns.")
    ] = False,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="Join the two by alpha * meaning + (1 - alpha) * words, not by rank."),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", "-w", help="Filter, as in \"year >= 2024 AND 'cs.CL' IN categories\".")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Hits for each query, or groups with --group-by.")] = 10,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Only hits of at least this score.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All hits of at least --min-score, however many.")] = False,
    group_by: Annotated[str | None, typer.Option("--group-by", help="The best hits of each value of this.")] = None,
    group_size: Annotated[int | None, typer.Option("--group-size", help="Hits of each value (1).")] = None,
    diversity: Annotated[
        float | None, typer.Option("--diversity", help="0 to 1: prefer hits that are unlike those before them.")
    ] = None,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on after the page that gave it.")] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Attributes to show, separated by commas; all by default.")
    ] = None,
    recall: Annotated[
        str, typer.Option("--recall", help="'exact', or the share of the best rows that is enough, such as 0.95.")
    ] = "exact",
    explain: Annotated[bool, typer.Option("--explain", help="Say how the answer was found.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """The k best rows that satisfy the filter, best first: by vector, by words, or by both."""
    from nextvec.search.stores import open_collection

    check_query(text, model, vector, text_columns, hybrid)
    collection: Any  # a folder's or a server's: they share what they have in common
    with open_collection(path) as collection:
        query: dict[str, Any] = {}
        if vector is not None:
            query["vector"] = load_vectors(vector)
        elif model is not None:
            query["vector"] = embed_query(model, str(text), collection)
        if hybrid or text_columns is not None:
            query |= {"text": text, "text_columns": text_columns_of(text_columns, collection)}
        if alpha is not None:
            query |= {"fusion": "weighted", "alpha": alpha}
        names = list(collection.schema) if columns is None else split(columns)
        shape = {
            "group_by": group_by,
            "group_size": group_size,
            "diversity": diversity,
            "min_score": min_score,
            "cursor": cursor,
            "recall": None if recall == "exact" else recall_of(recall),
        }
        query |= {name: value for name, value in shape.items() if value is not None}
        check_remote(collection, query)
        found: Any = collection.search(**query, k=None if every else k, where=where, columns=names, explain=explain)
    several = [found] if isinstance(found, Hits) else found
    documents = [_document(hits) for hits in several]
    shown = "\n\n".join(_show(hits, names) for hits in several)
    if isinstance(found, Hits) and found.cursor is not None:
        shown += f"\nmore: --cursor {found.cursor}"
    emit(documents[0] if isinstance(found, Hits) else documents, as_json=as_json, text=shown)


def _document(hits: Hits) -> dict[str, Any]:
    found = [{"id": hit.id, "score": round(hit.score, 6), **hit.attributes} for hit in hits]
    document: dict[str, Any] = {"hits": found, "cursor": hits.cursor}
    return document if hits.explain is None else {**document, "explain": dict(hits.explain)}


def _show(hits: Hits, names: list[str]) -> str:
    digits = 4 if max(abs(hits.scores), default=1.0) >= 0.1 else 6  # fused by rank, scores are small
    rows = [[f"{hit.score:.{digits}f}", hit.id, *(_crop(hit.attributes.get(name)) for name in names)] for hit in hits]
    lines = [table(["score", "id", *names], rows, right=(0,)) if rows else "no hits"]
    if hits.explain is not None:
        lines.append(", ".join(f"{name} {value}" for name, value in hits.explain.items()))
    return "\n".join(lines)


def _crop(value: Any) -> str:
    text = "" if value is None else ", ".join(value) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


@app.command()
def index(
    path: FolderArgument,
    graph: Annotated[
        bool, typer.Option("--graph/--no-graph", help="Without: built in seconds, slower where most rows match.")
    ] = True,
    queries: QueriesOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Build what searches with --recall below 1 use. Goes on where it was when interrupted."""
    from nextvec.search.collection import Collection

    real = None if queries is None else load_vectors(queries, "--queries")
    with Collection.open(path) as collection, progress("indexing", quiet=as_json) as report:
        facts = collection.index(
            graph=graph, queries=real, progress=lambda what, done, total: report(done, total, what)
        )
    shown = f"{facts['rows']:,} rows in {facts['cells']:,} cells" + (" and a graph" if facts["graph"] else "")
    emit(facts, as_json=as_json, text=f"indexed {path}: {shown}")


@app.command()
def calibrate(
    path: FolderArgument,
    queries: Annotated[Path, typer.Option(help="A .npy file with 32 queries or more, as rows.")],
    as_json: JsonFlag = False,
) -> None:
    """Measure on real queries how far searches with --recall below 1 must look."""
    from nextvec.search.collection import Collection

    real = load_vectors(queries, "--queries")
    with Collection.open(path) as collection:
        facts = collection.calibrate(real)
    emit(facts, as_json=as_json, text=f"calibrated {path} on {facts['calibrated_on']:,} queries")


@app.command()
def check(
    path: FolderArgument,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Read all of a collection and compare it with its checksums. Exit code 1 where something is left to do."""
    from nextvec.search.checkup import check_collection

    with progress("checking", quiet=as_json) as report:
        found = check_collection(path, repair=repair, progress=lambda what, done, total: report(done, total, what))
    rows = [[one.part, one.problem, "repaired" if one.repaired else one.remedy] for one in found]
    shown = table(["part", "problem", "remedy"], rows) if rows else f"{path}: nothing is wrong"
    emit({"findings": [dataclasses.asdict(one) for one in found]}, as_json=as_json, text=shown)
    if any(not one.repaired for one in found):
        raise typer.Exit(1)


@app.command()
def info(path: PathArgument, as_json: JsonFlag = False) -> None:
    """What a collection holds."""
    from nextvec.search.stores import open_collection

    with open_collection(path) as collection:
        facts = collection.info()
    schema = ", ".join(f"{name}:{kind}" for name, kind in facts["schema"].items()) or "no attributes"
    words = {"schema": schema}
    built = facts.get("index", "")
    if not isinstance(built, str):  # PostgreSQL names the kind of its index, and that is all there is to say
        words["index"] = "none; nextvec collection index makes one" if built is None else _index_words(built)
    if "memory" in facts:
        words["memory"] = ", ".join(f"{size / 1e6:,.0f} MB {kind}" for kind, size in facts["memory"].items())
    rows = [[name, words.get(name, str(value))] for name, value in facts.items()]
    emit(facts, as_json=as_json, text=table(["", ""], rows).split("\n", 2)[2])


def _index_words(facts: dict[str, Any]) -> str:
    """One line about the approximate index."""
    said = f"{facts['rows']:,} rows in {facts['cells']:,} cells" + (" and a graph" if facts["graph"] else "")
    if facts["rows_added_since"]:
        said += f", {facts['rows_added_since']:,} added since"
    if facts["repeated_filters"]["filters"]:
        said += "; {filters} filters with {rows:,} rows laid out".format(**facts["repeated_filters"])
    for target, ways in facts["recall"].items():
        for way, seen in ways.items():
            said += f"; {way} for {target}: {seen['recall']} in {seen['checked']} answers checked"
    return said


@app.command("copy")
def copy_collection(
    source: Annotated[str, typer.Argument(help=f"What to copy: {ADDRESS}.")],
    target: Annotated[str, typer.Argument(help="Where to: the same; made where it does not exist.")],
    batch: Annotated[int, typer.Option("--batch", help="Rows per commit.")] = _BATCH,
    keep: Annotated[
        str | None,
        typer.Option("--keep", help="How a target that is made keeps vectors; as the source does unless given."),
    ] = None,
    dim: Annotated[
        int | None, typer.Option("--dim", help="Of a target that is made: keep the first values of nested vectors.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy all rows to another store and verify them. Run it again after an interruption: it goes on."""
    from nextvec.search.stores import create_collection, open_collection
    from nextvec.search.stores.moving import copy_rows

    with open_collection(source) as origin:
        try:
            copy = open_collection(target)
        except NotFoundError:
            options: dict[str, Any] = {"schema": origin.schema, "metric": origin.metric}
            options |= {"keep": keep or origin.keep, "nested": origin.nested or dim is not None}
            copy = create_collection(target, dim=dim or origin.dim, **options)
        with copy, progress("copying and verifying", quiet=as_json) as report:
            done = copy_rows(origin, copy, batch=batch, progress=report)
            places = {"source": _shown(origin.info()), "target": _shown(copy.info())}
    document = {**places, **dataclasses.asdict(done)}
    equal = "bit by bit" if done.precision == "float32" else f"after rounding to {done.precision}"
    text = (
        f"{done.copied} rows copied, {done.skipped} were there; {done.rows} in {places['target']}\n"
        f"verified: ids, attributes and vectors agree ({equal}), checksum {done.checksum}"
    )
    emit(document, as_json=as_json, text=text)
