"""``nextvec reproduce``: run a paper's claim with baselines and seeds, and say whether it holds here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nextvec.cli.console import JsonFlag, emit, note, progress, table


def command(
    name: Annotated[str, typer.Argument(help="A method, as 'nextvec methods' shows it.")],
    scale: Annotated[
        Literal["smoke", "cpu", "gpu"], typer.Option("--scale", help="smoke takes seconds, cpu minutes to hours.")
    ] = "cpu",
    seeds: Annotated[int, typer.Option("--seeds", help="How many seeds (0, 1, ...) each arm runs with.")] = 3,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for NAME.json, NAME.png and the runs.")] = Path(
        "claims"
    ),
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Runs at a time; default: one per core (gpu scale: per GPU).")
    ] = None,
    arms: Annotated[str | None, typer.Option("--arms", help="Run only these arms, as in a,b.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget finished runs of these arms and seeds.")] = False,
    package: Annotated[str, typer.Option("--package", hidden=True)] = "nextvec.methods",
    as_json: JsonFlag = False,
) -> None:
    """Run a paper's claim: arms x seeds, intervals, a verdict, one JSON file and a plot.

    Each run is a process of its own. Ctrl-C ends them; the same command goes on with what is left. A claim that does
    not hold is a result, not an error: the exit code is 0.
    """
    from nextvec.claims import reproduce

    chosen = [arm.strip() for arm in arms.split(",") if arm.strip()] if arms is not None else None
    say = (lambda message: None) if as_json else note
    with progress(f"{name}: runs", quiet=as_json) as report:
        result = reproduce(
            name,
            scale=scale,
            seeds=seeds,
            out=out,
            jobs=jobs,
            arms=chosen,
            fresh=fresh,
            package=package,
            progress=report,
            note=say,
        )
    emit(result, as_json=as_json, text=_text(result, out))


def _text(result: dict[str, Any], out: Path) -> str:
    from nextvec.claims.report import duration
    from nextvec.claims.results import inequality, interval, table_rows

    headers, rows = table_rows(result)
    lines = [result["statement"], "", table(headers, rows), ""]
    for check in result["checks"]:
        difference = f"; difference {interval(check['difference'])}" if check["difference"] else ""
        reason = f" ({check['note']})" if check["note"] else ""
        lines.append(f"{check['verdict'].upper()}: {check['says']}")
        lines.append(f"    {inequality(check)}{difference}{reason}")
    files = [f"{result['method']}.json", *filter(None, [result["plot"]])]
    seeds = "1 seed" if len(result["seeds"]) == 1 else f"{len(result['seeds'])} seeds"
    lines += ["", f"The claim: {result['verdict']} ({result['scale']} scale, {seeds})."]
    lines.append(f"{', '.join(str(out / file) for file in files)}; {duration(result['run_seconds'])} of runs")
    return "\n".join(lines)
