"""``nextvec data``: the data sets nextvec knows, where they lie, and how to get them."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextvec.cli.console import JsonFlag, emit, progress, table

if TYPE_CHECKING:
    from nextvec.data.catalog import DataSet

app = typer.Typer(help="Data sets: list, show, fetch; samples of what methods read.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of a data set, as 'nextvec data list' shows it.")]


def _facts(entry: DataSet) -> dict[str, Any]:
    from nextvec.data.catalog import find

    place = find(entry.name)
    return {
        "name": entry.name,
        "group": entry.group,
        "title": entry.title,
        "rows": entry.rows,
        "unit": entry.unit,
        "bytes": entry.bytes,
        "licence": entry.licence,
        "redistribute": entry.redistribute,
        "where": place[0] if place else "absent",
        "path": str(place[1]) if place else None,
        "fetchable": entry.url(entry.files[0]) is not None,
    }


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """All data sets: rows, size, licence, may it be redistributed, and where it is found."""
    from nextvec.data.catalog import datasets
    from nextvec.files import human_bytes

    facts = [_facts(entry) for entry in datasets().values()]
    rows = [
        [
            fact["name"],
            fact["group"],
            f"{fact['rows']:,}",
            human_bytes(fact["bytes"]),
            fact["redistribute"],
            fact["where"],
            fact["licence"] if len(fact["licence"]) <= 44 else fact["licence"][:43] + "…",
        ]
        for fact in facts
    ]
    headers = ["name", "group", "rows", "size", "redistribute", "where", "licence"]
    emit(facts, as_json=as_json, text=table(headers, rows, right=(2, 3)))


@app.command()
def show(
    name: Name,
    check: Annotated[bool, typer.Option("--check", help="Compare every file's SHA-256 as well.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """One data set: what it is, its source and licence, its files with SHA-256, and where it lies."""
    from nextvec.data.catalog import dataset, verify
    from nextvec.files import human_bytes

    entry = dataset(name)
    facts = _facts(entry)
    facts |= {"source": entry.source, "commit": entry.commit, "home": entry.home, "made": entry.made}
    if check:
        with progress("checking", quiet=as_json) as report:
            verify(name, progress=report)
        facts["verified"] = True
    facts["files"] = [
        {"path": file.path, "bytes": file.bytes, "sha256": file.sha256, "url": entry.url(file)} for file in entry.files
    ]
    lines = [f"{key:12}  {value}" for key, value in facts.items() if key != "files" and value is not None]
    shown = facts["files"][:10]
    lines += [f"{file['sha256'][:16]}…  {human_bytes(file['bytes']):>8}  {file['path']}" for file in shown]
    if len(entry.files) > len(shown):
        lines.append(f"and {len(entry.files) - len(shown)} more files (--json shows all)")
    emit(facts, as_json=as_json, text="\n".join(lines))


@app.command()
def fetch(
    name: Name,
    to: Annotated[Path | None, typer.Option("--to", help="Folder that gets GROUP/NAME/; default: the cache.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch a data set from its source, verified by SHA-256; run it again to go on after an interruption."""
    from nextvec.data.catalog import fetch as fetch_set
    from nextvec.data.catalog import find

    before = find(name) if to is None else None
    with progress(f"fetching {name} (bytes)", quiet=as_json) as report:
        folder = fetch_set(name, to=to, progress=report)
    found = f" (found in {before[0]}, nothing to fetch)" if before else ""
    emit({"name": name, "path": str(folder), "fetched": before is None}, as_json=as_json, text=f"{folder}{found}")


@app.command()
def sample(
    what: Annotated[str, typer.Argument(help="A method, as 'nextvec methods' shows it, or a kind of sample.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new file (.jsonl); for pictures, a new folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Write a small file in the format that a method learns from: to look at, to imitate, to try a training on."""
    from nextvec import catalog
    from nextvec.data.samples import KINDS, write_sample

    method = None if what in KINDS else catalog.find("nextvec.methods", what)
    kind = what if method is None else method.sample
    path = write_sample(kind, out)
    text = str(path)
    if method is not None:
        text += f"\ntry: nextvec train {what} --data {shlex.quote(str(path))} --out runs/{what} --set steps=20"
        settings = {field.name: field.default for field in dataclasses.fields(method.Config)}
        text += "".join(f" --set {setting}" for setting in method.begins)
        text += "".join(f" --set {name}=path/to/one" for name in ("base", "model") if settings.get(name) == "")
    emit({"kind": kind, "path": str(path)}, as_json=as_json, text=text)
