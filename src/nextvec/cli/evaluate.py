"""``nextvec evaluate``: measure encoders on many tasks, with intervals, and tell two of them apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextvec.cli.console import JsonFlag, emit, note, progress, table
from nextvec.types import InputError

if TYPE_CHECKING:
    from nextvec.evaluate.embedder import Size
    from nextvec.evaluate.runner import Model, Result
    from nextvec.evaluate.task_kinds import Task


def command(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Bundled name, folder, hub id, or bm25; several: compared with the first."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", help="Tasks, groups (sts, retrieval, ..., all), BEIR folders, as in a,b,c."),
    ] = None,
    dim: Annotated[
        list[str] | None, typer.Option("--dim", help="Keep the first DIM values; several as in 64,128.")
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", help="Run only the first LAYERS layers; several as in 2,4.")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option("--dtype", help="float32, float16, int8 or binary; several as in float32,int8.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many examples of a task.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder that keeps every result.")] = Path("evaluations"),
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw quality against bytes and layers, as a .png or .svg.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write the results as Markdown tables, a row per model and size.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure again what OUT holds already.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    list_: Annotated[bool, typer.Option("--list", help="Show the tasks, and whether their data are here.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure models on tasks: every measure with its 95 % interval, and paired differences of several models.

    A result is written as soon as it is there; Ctrl-C keeps what is finished, and the same command goes on.
    """
    if list_:
        _list(as_json)
        return
    from nextvec.evaluate.runner import compare, evaluate, load_model
    from nextvec.evaluate.tasks import choose

    names = _split(tasks)
    if not names:
        raise InputError("--tasks is missing: name tasks, groups or folders ('nextvec evaluate --list' shows them)")
    wanted = list(dict.fromkeys(models or ["nextvec-mini"]))
    sizes = _sizes(dim, layers, dtype)
    chosen = choose(names)
    for name, reason in chosen.left_out.items():
        note(f"{name} is left out: {reason}")
    loaded = [load_model(name, device=device) for name in wanted]
    if len({model.name for model in loaded}) < len(loaded):  # the ends of their paths do not tell them apart
        loaded = [replace(model, name=name) for model, name in zip(loaded, wanted, strict=True)]
    _check(loaded, chosen.tasks, sizes, limit)
    found: list[list[Result]] = []
    for model in loaded:
        with progress(model.name, quiet=as_json) as report:
            found.append(evaluate(model, chosen.tasks, sizes=sizes, out=out, limit=limit, again=again, report=report))
    _shown(found, plot, markdown)
    pairs = [
        (loaded[0].name, other.name, *pair)
        for other, results in zip(loaded[1:], found[1:], strict=True)
        for pair in compare(found[0], results)
    ]
    told = [_difference(*pair) for pair in pairs]
    document = {
        "out": str(out),
        "results": [dict(one.record) for results in found for one in results],
        "differences": told,
        "left_out": chosen.left_out,
    }
    emit(document, as_json=as_json, text=_text(found, told, out))


def _shown(found: Sequence[Sequence[Result]], plot: Path | None, markdown: Path | None) -> None:
    """Write what was asked for beside the results."""
    if plot is not None:
        from nextvec.evaluate.plot import draw

        draw(found, plot)
    if markdown is not None:
        from nextvec.evaluate.leaderboard import leaderboard
        from nextvec.files import atomic_write

        with atomic_write(markdown, "w") as stream:
            stream.write(leaderboard(found))


def _list(as_json: bool) -> None:
    from nextvec.data.catalog import dataset
    from nextvec.evaluate.task_kinds import Catalogued
    from nextvec.evaluate.tasks import tasks

    facts: list[dict[str, Any]] = []
    rows = []
    for one in tasks().values():
        sets = list(one.sets) if isinstance(one, Catalogued) else []
        licences = "; ".join(dataset(name).licence for name in sets)
        missing = one.missing()
        facts.append(
            {
                "name": one.name,
                "group": one.kind,
                "main": one.main,
                "title": one.title,
                "sets": sets,
                "licence": licences,
                "missing": missing,
            }
        )
        here = "yes" if missing is None else "no"
        rows.append([one.name, one.kind, one.main, here, ", ".join(sets), one.title])
    emit(facts, as_json=as_json, text=table(["task", "group", "measure", "here", "data set", "what it is"], rows))


def _split(values: Sequence[str] | None) -> list[str]:
    return [part.strip() for value in values or () for part in value.split(",") if part.strip()]


def _numbers(values: Sequence[str] | None, option: str) -> list[int | None]:
    found: list[int | None] = []
    for text in _split(values):
        if not text.isdecimal() or not int(text):
            raise InputError(f"{option} is {text!r}; expected a whole number of at least 1, or several as in 2,4")
        found.append(int(text))
    return found or [None]


def _sizes(dim: list[str] | None, layers: list[str] | None, dtype: list[str] | None) -> list[Size]:
    from nextvec.evaluate.embedder import Size

    codes = _split(dtype) or ["float32"]
    numbers = _numbers(layers, "--layers"), _numbers(dim, "--dim")
    return [Size(d, n, code) for n, d, code in itertools.product(*numbers, codes)]


def _check(models: Sequence[Model], tasks: Sequence[Task], sizes: Sequence[Size], limit: int | None) -> None:
    """Refuse what cannot be measured before the first model takes its time."""
    from nextvec.evaluate.lexical import Bm25

    if limit is not None and limit < 2:
        raise InputError(f"--limit is {limit}; expected at least 2 examples")
    for model in models:
        if not isinstance(model.engine, Bm25):
            for size in sizes:
                size.check(model.engine)
            continue
        others = [task.name for task in tasks if task.kind != "retrieval"]
        if len(others) == len(tasks):
            raise InputError(f"bm25 ranks documents and has no vectors for {', '.join(others)}: name a retrieval task")
        if others:
            note(f"bm25 has no vectors: it is left out of the tasks that are no retrieval ({len(others)})")


def _difference(first: str, second: str, one: Result, two: Result, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": one.task.name,
        "main": one.task.main,
        "first": {"model": first, **{key: one.record[key] for key in ("dim", "layers", "dtype")}},
        "second": {"model": second, **{key: two.record[key] for key in ("dim", "layers", "dtype")}},
        "measures": {name: value.as_dict() for name, value in found.items()},
    }


def _text(found: Sequence[Sequence[Result]], differences: Sequence[Mapping[str, Any]], out: Path) -> str:
    rows = []
    every = [one for results in found for one in results]
    for slug in dict.fromkeys(one.task.slug for one in every):  # what is compared stands together
        for one in (one for one in every if one.task.slug == slug):
            record, main = one.record, one.task.main
            value = _interval(record["measures"][main])
            stored = f"{record['bytes']:,}" if record["bytes"] is not None else "–"
            took = f"{record['seconds']:.1f} s{' (kept)' if one.kept else ''}"
            rows.append([one.task.name, f"{record['examples']:,}", _who(record), main, value, stored, took])
    lines = [table(["task", "examples", "model", "measure", "value", "bytes", "time"], rows, right=(1, 5))]
    if differences:
        told = [_told(one) for one in differences]
        lines += ["", table(["task", "difference", "measure", "value", "p", ""], told)]
    lines += ["", f"95 % intervals over examples; all measures in {out}"]
    return "\n".join(lines)


def _told(one: Mapping[str, Any]) -> list[str]:
    value = one["measures"][one["main"]]
    who = f"{_who(one['first'])} minus {_who(one['second'])}"
    return [one["task"], who, one["main"], _interval(value, sign=True), f"{value['p']:.3f}", _verdict(value)]


def _who(record: Mapping[str, Any]) -> str:
    """The model, with its size where it has one: ``nextvec-mini, 64 values, int8``."""
    parts = [record["model"], f"{record['dim']} values" if record["dim"] else ""]
    parts += [f"{record['layers']} layers" if record["layers"] else ""]
    parts += [record["dtype"] if record["dtype"] not in (None, "float32") else ""]
    return ", ".join(filter(None, parts))


def _interval(value: dict[str, float], *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{value['mean']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def _verdict(value: dict[str, float]) -> str:
    if value["low"] > 0:
        return "the first is better"
    return "the second is better" if value["high"] < 0 else "not told apart"
