"""``nextvec bigram``: the weights with which a language model does what a bigram table does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextvec.cli.console import JsonFlag, emit, progress, table
from nextvec.extras import require
from nextvec.types import ConflictError


def command(
    model: Annotated[str, typer.Argument(help="A run of ours, or a folder with a causal model.")],
    data: Annotated[Path, typer.Option("--data", "-d", help="Texts: text, Markdown, JSON lines, CSV, Parquet.")],
    penalty: Annotated[float, typer.Option("--penalty", help="What each weight that is kept costs.")] = 10.0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of the masks.")] = 600,
    field: Annotated[str, typer.Option("--field", help="Of a record, the one that holds the text.")] = "text",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Save the masks there.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Find the subnetwork of MODEL that predicts the next token from the last one alone, and what it is to the model.

    Nine of ten texts are learned from, the tenth is measured on. See docs/methods/bigram_subnetworks.md.
    """
    require("torch", why="nextvec bigram")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConflictError(f"{str(out)!r} exists and is not empty: choose another folder")  # not after the training
    from nextvec.methods.bigram_subnetworks import find_subnetwork

    with progress("finding the subnetwork", quiet=as_json) as report:
        method, found = find_subnetwork(
            model,
            data,
            penalty=penalty,
            steps=steps,
            field=field,
            device=device,
            on_step=lambda state: report(state.step, state.steps, f"loss {state.loss:.3f}"),
        )
    parts = {name: found.pop(f"part_{i}") for i, name in enumerate(method.names)}
    if out is not None:
        method.save(out)
    document = {"model": model, **found, "parts": parts, "out": None if out is None else str(out)}
    shown = sorted(parts.items(), key=lambda pair: -pair[1])[:6]
    text = "\n".join(
        [
            f"{found['active']:.2f} % of the weights of attention and feed-forward layers are kept "
            f"({found['undecided']:.1f} % undecided)",
            f"their surprisals correlate with the bigram table's by {found['r']:.3f}; the model's by "
            f"{found['r_full']:.3f}",
            f"loss {found['loss']:.3f} nats; without them {found['loss_without']:.3f}; without as many random weights "
            f"{found['loss_random']:.3f}",
            table(["most of them are in", "%"], [[name, f"{share:.1f}"] for name, share in shown], right=(1,)),
        ]
    )
    emit(document, as_json=as_json, text=text)
