"""``nextvec lens``: what a model that thinks in sentence embeddings has in mind, step by step and layer by layer."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Annotated

import typer

from nextvec.cli.console import JsonFlag, emit, table
from nextvec.extras import require
from nextvec.files import atomic_write
from nextvec.types import InputError


def command(
    model: Annotated[str, typer.Argument(help="A run of sentence_prediction, its last stage.")],
    question: Annotated[str, typer.Option("--question", "-q", help="What it is asked.")],
    budget: Annotated[int, typer.Option("--budget", min=1, help="Sentences, at most.")] = 16,
    most: Annotated[int, typer.Option("--most", min=1, help="Tokens of a sentence, at most.")] = 48,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page there.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Decode the predicted embeddings of every step, and what each layer of the reasoner would have said there."""
    require("torch", why="nextvec lens")
    from nextvec.methods._sentence_parts import lens
    from nextvec.methods.sentence_prediction import SentencePrediction
    from nextvec.training import load_method

    method = load_method(model)
    if not isinstance(method, SentencePrediction) or method.config.stage != "latent":
        raise InputError(f"{model!r} is no run of sentence_prediction at stage 'latent': this lens reads nothing else")
    (solution,) = method.solve([question], budget=budget, most=most)
    found = list(lens(method, question, solution, most=most))
    last = max(layer for _, layer, _, _ in found)
    steps = max(step for step, _, _, _ in found)
    grid = {(step, layer): (text, cosine) for step, layer, text, cosine in found}
    document = {
        "question": question,
        "answer": solution.answer,
        "steps": [
            [{"layer": layer, "text": text, "cosine": round(cosine, 4)} for layer, (text, cosine) in own]
            for own in ([(layer, grid[step, layer]) for layer in range(last + 1)] for step in range(1, steps + 1))
        ],
    }
    if page is not None:
        with atomic_write(page, "w") as stream:
            stream.write(_page(question, solution.answer, grid, steps, last))
        document["page"] = str(page)
    rows = [[str(step), *(grid[step, layer][0] for layer in range(last + 1))] for step in range(1, steps + 1)]
    headers = ["step", "embeddings", *(f"layer {i}" for i in range(1, last + 1))]
    said = "none: it stopped without one" if solution.answer is None else solution.answer
    emit(document, as_json=as_json, text=f"{table(headers, rows)}\n\nanswer: {said}")


_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border: 1px solid color-mix(in srgb, currentColor 20%, transparent); padding: .4rem .6rem; text-align: left; }
td { font-family: ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; min-width: 7ch; }
td { background: color-mix(in srgb, #3b82f6 calc(var(--near) * 35%), transparent); }
"""


def _page(
    question: str, answer: str | None, grid: dict[tuple[int, int], tuple[str, float]], steps: int, last: int
) -> str:
    """A page of its own: a row per step, a column per layer; the bluer, the nearer to what the last layer says."""
    head = "".join(f"<th scope='col'>{'embeddings' if i == 0 else f'layer {i}'}</th>" for i in range(last + 1))
    rows = []
    for step in range(1, steps + 1):
        cells = []
        for layer in range(last + 1):
            text, cosine = grid[step, layer]
            near, shown = f"--near: {max(cosine, 0):.3f}", html.escape(text) or "&nbsp;"
            cells.append(f"<td style='{near}' title='cosine {cosine:.3f}'>{shown}</td>")
        rows.append(f"<tr><th scope='row'>{step}</th>{''.join(cells)}</tr>")
    said = "none" if answer is None else html.escape(answer)
    words = (
        "What each layer of the reasoner would say at each step; the bluer a cell, the nearer it is to what the last"
        " layer says."
    )
    body = f"<thead><tr><th scope='col'>step</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>SentenceLens: {html.escape(question)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(question)}</h1><p>Answer: <strong>{said}</strong>. {words}</p>"
        f"<div class='scroll'><table>{body}</table></div></body></html>\n"
    )
