"""Train nextvec-mini, the bundled encoder: ``python -m nextvec.recipes.mini --data DIR --teacher DIR --out DIR``.

1. Vocabulary: WordPiece over the training papers and texts of general English, and the counts of its tokens.
2. Token distillation: the teacher's vector of every token alone, turned onto the principal axes of its document
   vectors, weighted by frequency.
3. Document distillation: the rows are trained so that mean vectors of titles, half abstracts and general texts follow
   the teacher.
4. Contrastive training: a title finds its own abstract among those of the batch, at every nested width, while the
   distillation goes on beside it.
5. The rows of steps 3 and 4 are averaged: titles alone teach the model to expect titles, and the average keeps more of
   the teacher for other queries (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903).
6. The rows become int8 with a scale each.

Every costly result is kept in the work folder under a hash of what it depends on: an interrupted run goes on there. The
papers that the evaluation uses (see ``corpus.py``) take part in no step. Legend: V vocabulary, D width.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from nextvec import config
from nextvec.data.bundled import daily_papers
from nextvec.files import atomic_write, cache_home
from nextvec.recipes.corpus import Corpus, general_texts, load_corpus
from nextvec.recipes.mini_report import measure
from nextvec.recipes.mini_steps import Recipe, prepare, train
from nextvec.recipes.package import write_model
from nextvec.recipes.teacher import Teacher
from nextvec.types import NextvecError, Progress


def said(label: str) -> Progress:
    """Progress as a line on standard error, ten per task."""

    def report(done: int, total: int | None) -> None:
        step = max(1, (total or done) // 10)
        if total and (done == total or done * 10 // total != max(0, done - step) * 10 // total):
            print(f"{label}: {done}/{total}", file=sys.stderr, flush=True)

    return report


def read_corpus(data: Path) -> Corpus:
    """Training papers and evaluation sets: the data folder's, and the bundled daily papers."""
    records = daily_papers(columns=["id", "title", "summary", "source"]).to_pylist()
    return load_corpus(data, (record for record in records if record["source"] == "daily_papers"))


def main() -> None:
    """Train with every seed, write the first seed's model, and measure all of them where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder ($NEXTVEC_DATA)")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets the model")
    parser.add_argument("--work", type=Path, default=cache_home() / "recipes" / "nextvec-mini")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="e.g. contrast.steps=600"
    )
    parser.add_argument("--also", type=Path, help="folder that gets every seed's model, and the table before training")
    parser.add_argument("--report", type=Path, help="measure on held-out papers and write this JSON file")
    arguments = parser.parse_args()

    try:
        run(arguments)
    except NextvecError as error:
        raise SystemExit(f"nextvec.recipes.mini: {error}") from error


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks."""
    recipe = config.override(Recipe(), arguments.changes)
    corpus = read_corpus(arguments.data)
    teacher = Teacher(arguments.teacher)
    prepared = prepare(
        corpus.train, teacher, recipe, arguments.work, general=general_texts(arguments.data), report=said
    )
    stages = {}
    for seed in arguments.seeds:
        stages[seed] = train(prepared, recipe, arguments.work, seed=seed, report=said)
    rows = stages[arguments.seeds[0]]["final"]
    size = write_model(arguments.out, prepared.tokenizer, rows, nested_dims=recipe.dims)
    config.save(recipe, arguments.work / "recipe.yaml")
    print(f"{arguments.out}: {size:,} bytes")
    if arguments.also:
        tables = {f"seed-{seed}": own["final"] for seed, own in stages.items()}
        for name, own in {**tables, "untrained": prepared.rows}.items():
            write_model(arguments.also / name, prepared.tokenizer, own, nested_dims=recipe.dims)
    if arguments.report:
        results = measure(corpus, prepared, stages, recipe, teacher, arguments.work, data=arguments.data)
        with atomic_write(arguments.report, "w") as stream:
            stream.write(json.dumps(results, indent=1) + "\n")
        print(f"{arguments.report}: written")


if __name__ == "__main__":
    main()
