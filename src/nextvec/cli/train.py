"""``nextvec train``: a method on one's own data, into a folder that an interrupted run goes on in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextvec.cli.console import JsonFlag, emit, note, progress
from nextvec.extras import require
from nextvec.types import InputError

if TYPE_CHECKING:
    from nextvec.engine.engine import Report


def command(
    method: Annotated[str, typer.Argument(help="A method (nextvec methods lists them), or a run.yaml to repeat.")],
    data: Annotated[Path | None, typer.Option("--data", "-d", help="A file or folder with your data.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder for the run.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="key=value, a setting of the method or of training.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Train METHOD on --data into --out: run.yaml, checkpoints, log.jsonl, and model/ when done.

    Several processes: torchrun --nproc-per-node 2 -m nextvec.cli.main train ...
    """
    require("torch", why="nextvec train")
    from nextvec.engine import dist
    from nextvec.training import fit, plan, read_plan

    if out is None:
        raise InputError("--out is missing: name the folder for the run")
    if method.endswith((".yaml", ".yml")):
        wanted = read_plan(Path(method), changes or ())
        if data is not None:
            wanted.data = data
    elif data is None:
        raise InputError("--data is missing: name a file or folder (docs/methods/ shows each method's format)")
    else:
        wanted = plan(method, data, changes or ())
    started = time.monotonic()
    with progress(f"training {wanted.method}", quiet=as_json or dist.launched_rank() != 0) as report:

        def on_step(state: Report) -> None:
            report(state.step, state.steps, _words(state))

        trained = fit(wanted, out=out, resume=resume, device=device, on_step=on_step)
    if dist.launched_rank() != 0:
        return
    document = {
        "method": wanted.method,
        "out": str(out),
        "steps": trained.report.step,
        "loss": trained.report.loss if trained.report.values else None,  # a run that was complete made no step
        "seconds": round(time.monotonic() - started, 1),
    }
    if not trained.report.values:
        note(f"{out}: the run was complete already")
    emit(document, as_json=as_json, text=f"{wanted.method}: {trained.report.step} steps, model in {out / 'model'}")


def _words(state: Report) -> str:
    words = f"loss {state.loss:.4f}"
    if "tokens_per_second" in state.values:
        words += f"  {state.values['tokens_per_second']:,.0f} tokens/s"
    return words
