"""``nextvec train``: a method, or an encoder of one's own documents; an interrupted run goes on in its folder.

``nextvec train METHOD ...`` is ``nextvec train method METHOD ...``: whatever is no command of this group is a method.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nextvec.cli.console import JsonFlag, emit, note, progress
from nextvec.extras import require
from nextvec.types import InputError

if TYPE_CHECKING:
    from nextvec.engine.engine import Report


class _Train(TyperGroup):
    """A group whose default command is "method"."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["method", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(cls=_Train, no_args_is_help=True)
Out = Annotated[Path | None, typer.Option("--out", "-o", help="The folder for the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


@app.callback()
def group() -> None:
    """Train a published method (nextvec train METHOD ...), or an encoder of your own documents."""


@app.command("method")
def method_command(
    method: Annotated[str, typer.Argument(help="A method (nextvec methods lists them), or a run.yaml to repeat.")],
    data: Annotated[Path | None, typer.Option("--data", "-d", help="A file or folder with your data.")] = None,
    out: Out = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="key=value, a setting of the method or of training.")
    ] = None,
    resume: Resume = False,
    device: Device = "auto",
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


@app.command("embedder")
def embedder(
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="Documents (title and body, or text), pairs, triplets, scores.")
    ] = None,
    base: Annotated[str, typer.Option("--base", help="nextvec-mini, scratch, or a model's folder or hub id.")] = (
        "nextvec-mini"
    ),
    out: Out = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="A better model, to learn from as well.")] = None,
    nested: Annotated[str, typer.Option("--nested", help="Widths to cut to, as in 64,128,256.")] = "",
    layers: Annotated[str, typer.Option("--layers", help="Numbers of layers to cut to, as in 2,4.")] = "",
    changes: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="key=value: epochs, lr, batch, max_length, mined, seed ...")
    ] = None,
    resume: Resume = False,
    device: Device = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Make an encoder of your own documents from --data into --out: encoder/ with its card, measured before and after.

    Records may be raw documents (title and body, or text alone), queries with documents (and wrong ones), or pairs of
    texts with scores. A tenth of them, at most 1,000, is held out to measure on.
    """
    require("torch", why="nextvec train")
    from nextvec.config import override
    from nextvec.recipes.embedder import EmbedderSettings, train_embedder

    if out is None or data is None:
        missing = "--data" if data is None else "--out"
        raise InputError(f"{missing} is missing: nextvec train embedder --data FILE --out FOLDER")
    settings = EmbedderSettings(
        base=base, teacher=teacher, nested=_numbers(nested, "--nested"), layers=_numbers(layers, "--layers")
    )
    settings = override(settings, changes or ())
    with progress("a domain encoder", quiet=as_json) as report:
        made = train_embedder(
            data,
            out=out,
            settings=settings,
            resume=resume,
            device=device,
            say=lambda words, done, total: report(done, total, words),
        )
    emit(made, as_json=as_json, text=_summary(made, out / "encoder"))


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")})) if text else ()
    except ValueError:
        raise InputError(f"{option} is {text!r}; expected whole numbers with commas between, such as 64,128") from None


def _summary(made: dict[str, Any], folder: Path) -> str:
    name, data = made["measure"], made["data"]
    before, after, gain = (made[part][name] for part in ("before", "after", "gain"))
    words = "better than" if gain["low"] > 0 else "worse than" if gain["high"] < 0 else "not shown to differ from"
    left = "".join(f"\nleft out: {count} ({why})" for why, count in data["left out"].items())
    return (
        f"{name} on {data['pairs held out']:,} held-out pairs: {before['mean']:.3f} before, {after['mean']:.3f} after "
        f"(difference {gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]): {words} its base{left}\n"
        f"model and card in {folder}"
    )
