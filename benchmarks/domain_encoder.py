"""What a domain encoder gains: ``nextvec train embedder`` on papers of the ACL and of arXiv, beside its base.

    python benchmarks/domain_encoder.py --data $NEXTVEC_DATA --work runs --out benchmarks/out/domain_encoder.json

MiniLM, and a small transformer of random weights, learn from titles and abstracts. A tenth of the papers is held out:
their titles look for their own abstracts among the abstracts of all. Base and model answer the same queries, and the
difference has a paired bootstrap interval over them. A run that is interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from _arms import machine, write
from encode import minilm_folder
from nextvec.files import atomic_write
from nextvec.recipes.corpus import load_corpus
from nextvec.recipes.embedder import EmbedderSettings, train_embedder


def bases(minilm: str) -> dict[str, EmbedderSettings]:
    """Settings by name: fewer steps and shorter texts than the defaults, which would take hours on one core."""
    return {
        "minilm": EmbedderSettings(base=minilm, max_length=96, epochs=0.8),
        "scratch": EmbedderSettings(base="scratch", max_length=96, depth=3, epochs=8),
    }


def sets(data: Path, count: int, folder: Path) -> dict[str, Path]:
    """``count`` papers of each source, by their hashed ids, as files of JSON lines."""
    found = {}
    for name, papers in load_corpus(data, [], arxiv=count, acl=count).held_out.items():
        if name == "daily_papers":
            continue
        found[name] = folder / f"{name}-{count}.jsonl"
        with atomic_write(found[name], "w") as stream:
            for paper in papers:
                stream.write(json.dumps({"id": paper.id, "title": paper.title, "abstract": paper.abstract}) + "\n")
    return found


def say(words: str, done: int, total: int | None) -> None:
    """Every tenth of a task as a line."""
    if total and (done == total or done % max(total // 10, 1) == 0):
        print(f"{words}: {done}/{total}", file=sys.stderr, flush=True)


def main() -> None:
    """Parse arguments, run what is missing, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder ($NEXTVEC_DATA)")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--papers", type=int, default=4000)
    parser.add_argument("--sources", nargs="+", choices=("arxiv", "acl"), default=["arxiv", "acl"])
    parser.add_argument("--out", type=Path, help="JSON; runs of other sources that it holds are kept")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"kind": "benchmark", "machine": machine(), "papers": options.papers, "runs": {}}
    if options.out and options.out.exists():
        before = json.loads(options.out.read_text(encoding="utf-8"))
        if before["papers"] == options.papers:
            result["runs"] = {n: run for n, run in before["runs"].items() if n.split("-")[0] not in options.sources}
    for source, path in sets(options.data, options.papers, options.work).items():
        if source not in options.sources:
            continue
        for name, settings in bases(str(minilm_folder())).items():
            report = train_embedder(
                path, out=options.work / f"{source}-{name}", settings=settings, resume=True, say=say
            )
            report["base"] = report["settings"]["base"] = name  # not the folder that it has here
            result["runs"][f"{source}-{name}"] = report
            write(result, options.out)
    for name, report in sorted(result["runs"].items()):
        main_measure = report["measure"]
        numbers = [report[part][main_measure] for part in ("before", "after", "gain", "bm25")]
        before, after, gain, bm25 = (f"{n['mean']:.3f} [{n['low']:.3f}, {n['high']:.3f}]" for n in numbers)
        print(f"{name:16} {main_measure}: before {before}, after {after}, gain {gain}; bm25 {bm25}")


if __name__ == "__main__":
    main()
