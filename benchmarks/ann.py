"""Filtered search beside other engines: ``nextvec bench ann`` at the sizes that the project reports.

    python benchmarks/ann.py --rows 100000 --out docs/results/ann

Clustered synthetic vectors, or with --papers real abstracts; what is measured and how is told in docs/ann.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nextvec.cli.main import main as command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--papers", action="store_true", help="abstracts instead of synthetic vectors")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/ann"))
    options, rest = parser.parse_known_args()
    source = ["--papers", "--rows", str(options.rows)] if options.papers else ["--synthetic", str(options.rows)]
    sys.argv = ["nextvec", "bench", "ann", *source, "--out", str(options.out), *rest]
    command()


if __name__ == "__main__":
    main()
