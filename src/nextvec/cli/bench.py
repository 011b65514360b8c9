"""``nextvec bench``: measure filtered search beside other engines, on one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextvec.cli.console import JsonFlag, emit, note, progress
from nextvec.types import InputError

if TYPE_CHECKING:
    from nextvec.evaluate.ann.make import Plan

app = typer.Typer(no_args_is_help=True, help="Benchmarks to run on one's own data.")


@app.callback()
def _group() -> None:
    """Benchmarks to run on one's own data."""


@app.command()
def ann(
    data: Annotated[
        Path | None, typer.Option("--data", help="A Parquet file, a collection's folder, or a study's folder of fvecs.")
    ] = None,
    vector: Annotated[str, typer.Option("--vector", help="Column of the Parquet file with the vectors.")] = "vector",
    attributes: Annotated[
        str, typer.Option("--attributes", help="Columns of the Parquet file to filter by, as in year,venue.")
    ] = "",
    papers: Annotated[bool, typer.Option("--papers", help="Abstracts of arXiv, ACL and Daily Papers.")] = False,
    model: Annotated[str, typer.Option("--model", "-m", help="What --papers are embedded with.")] = "nextvec-mini",
    synthetic: Annotated[int | None, typer.Option("--synthetic", help="So many clustered vectors.")] = None,
    dim: Annotated[int, typer.Option("--dim", help="Dimensions of --synthetic.")] = 128,
    rows: Annotated[int | None, typer.Option("--rows", help="At most so many of --papers or of a study.")] = None,
    engines: Annotated[
        str | None, typer.Option("--engines", help="As in nextvec,faiss_hnsw; by default all that are installed.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder that keeps results, table and plots.")] = Path("ann"),
    seconds: Annotated[float, typer.Option("--seconds", help="Time for each point, one by one and in batches.")] = 0.2,
    rounds: Annotated[int, typer.Option("--rounds", help="How often every engine is measured.")] = 3,
    threads: Annotated[int, typer.Option("--threads", help="Cores that each engine may use.")] = 1,
    limit: Annotated[float, typer.Option("--limit", help="Seconds that one process may take.")] = 3600.0,
    k: Annotated[int, typer.Option("-k", help="Hits for each query.")] = 10,
    kinds: Annotated[str | None, typer.Option("--kinds", help="Of match,set,range,and,or; all by default.")] = None,
    buckets: Annotated[
        str | None, typer.Option("--buckets", help="Per cent that match: of 0.1,1,10,50,100; all by default.")
    ] = None,
    correlations: Annotated[
        str | None, typer.Option("--correlations", help="Of independent,near,far; all by default.")
    ] = None,
    filters: Annotated[int, typer.Option("--filters", help="Filters in each cell.")] = 4,
    queries: Annotated[int, typer.Option("--queries", help="Queries for each filter.")] = 16,
    recall: Annotated[float, typer.Option("--recall", help="The recall that the table asks for.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", help="Decides data, filters and queries.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Compare engines at search under attribute filters: recall, queries per second, memory and disk.

    Give one of --data, --papers and --synthetic. The same command goes on after Ctrl-C.
    """
    from nextvec.evaluate.ann.bench import bench
    from nextvec.evaluate.ann.make import Plan
    from nextvec.evaluate.ann.runner import Options, choose
    from nextvec.evaluate.ann.summary import markdown

    if (data is not None) + papers + (synthetic is not None) != 1:
        raise InputError("what to search in is missing or named twice: pass one of --data, --papers and --synthetic")
    if not 0 < recall <= 1:
        raise InputError(f"--recall is {recall}: expected more than 0, at most 1")
    chosen: dict[str, Any] = {
        "kinds": _split(kinds),
        "correlations": _split(correlations),
        "buckets": _numbers(buckets),
    }
    plan = Plan(k=k, filters=filters, queries=queries, seed=seed, **{n: v for n, v in chosen.items() if v})
    options = Options(seconds=seconds, rounds=rounds, threads=threads, limit=limit)
    wanted, absent = choose(_split(engines) or None)
    for name, why in absent.items():
        note(f"{name} is left out: {why}")
    with progress("workload", quiet=as_json) as told:
        if papers:
            place = _papers(model, rows, plan, told)
        elif synthetic is not None:
            place = _synthetic(synthetic, dim, plan, told)
        else:
            place = _data(Path(str(data)), vector, [*_split(attributes)], rows, plan, told)
    with progress("bench ann", quiet=as_json) as report:
        document = bench(place, out, engines=wanted, options=options, target=recall, report=report)
    document = {"out": str(out), "folder": str(place), **document, "absent": absent}
    emit(document, as_json=as_json, text=f"{markdown(document)}\nwritten to {out}")


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _split(text))
    except ValueError:
        raise InputError(f"--buckets is {text!r}: expected numbers, as in 1,10,100") from None


def _synthetic(count: int, dim: int, plan: Plan, report: Any) -> Path:
    from nextvec.evaluate.ann.make import cached
    from nextvec.evaluate.ann.sources import synthetic

    key = {"name": "synthetic", "rows": count, "dim": dim, "seed": plan.seed}
    return cached(lambda: synthetic(count, dim=dim, seed=plan.seed), key, plan, progress=report)


def _papers(model: str, rows: int | None, plan: Plan, report: Any) -> Path:
    from nextvec.data.catalog import dataset, locate
    from nextvec.encoder import Encoder
    from nextvec.evaluate.ann.make import cached
    from nextvec.evaluate.ann.sources import papers

    sets = ("arxiv_daily", "acl_anthology_2025")
    for name in sets:
        locate(name)
    encoder = Encoder.load(model)
    files = [file.sha256 for name in sets for file in dataset(name).files]
    key = {"name": "papers", "model": encoder.fingerprint(), "rows": rows, "files": files, "seed": plan.seed}
    return cached(lambda: papers(encoder, rows=rows, seed=plan.seed, progress=report), key, plan, progress=report)


def _data(data: Path, vector: str, attributes: list[str], rows: int | None, plan: Plan, report: Any) -> Path:
    from nextvec.evaluate.ann.make import cached
    from nextvec.evaluate.ann.sources import collection, parquet
    from nextvec.files import sha256
    from nextvec.search.collection import Collection

    if data.is_dir() and (data / "database_vectors.fvecs").exists():
        return _study(data, rows, plan, report)
    if data.is_dir():
        with Collection.open(data) as opened:
            key: dict[str, Any] = {"name": "collection", "path": str(data.resolve()), "version": opened.version}
        return cached(lambda: collection(data, seed=plan.seed), key, plan, progress=report)
    source = parquet(data, vector, attributes, seed=plan.seed)
    key = {"name": source.name, "sha256": sha256(data), "vector": vector, "attributes": attributes, "seed": plan.seed}
    return cached(lambda: source, key, plan, progress=report)


def _study(data: Path, rows: int | None, plan: Plan, report: Any) -> Path:
    """Made anew each time: its files are too large to be hashed for a cache."""
    from nextvec.evaluate.ann.study import read_study
    from nextvec.evaluate.ann.workload import save
    from nextvec.files import cache_home

    found = read_study(data, k=plan.k, limit=rows, progress=report)
    return save(found, cache_home() / "ann" / found.name)
