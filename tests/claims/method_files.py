"""A temporary package of methods: each is one file, as in ``nextvec.methods``."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

PACKAGE = "claims_test_methods"

HEAD = """
    import os, time
    from pathlib import Path
    from nextvec.types import Card, Check, Claim, Run


    def ran(run: Run, arm: str) -> None:
        with Path({ledger!r}).open("a") as stream:
            stream.write(f"{{arm}} {{run.seed}} {{os.environ.get('OMP_NUM_THREADS')}}\\n")


    class Fake:
        card = Card(name="Fake", title="On a | fake", arxiv="2401.00001", year=2024, family="tests",
                    claim="ours is better", differs=("no network",))
"""


class Methods:
    """Writes method files and knows which runs they did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / PACKAGE
        self.ledger = folder / "ledger"
        self.folder.mkdir()
        (self.folder / "__init__.py").touch()

    def write(self, name: str, claim: str) -> None:
        """The method ``name`` whose ``claim(scale)`` has the body ``claim``."""
        head = textwrap.dedent(HEAD).format(ledger=str(self.ledger))
        body = textwrap.indent(textwrap.dedent(claim), " " * 8)
        (self.folder / f"{name}.py").write_text(f"{head}\n    @staticmethod\n    def claim(scale):\n{body}")
        self.forget()

    @staticmethod
    def forget() -> None:
        """What is imported does not follow what is written."""
        for module in [module for module in sys.modules if module.startswith(f"{PACKAGE}.")]:
            del sys.modules[module]

    def runs(self) -> list[str]:
        """ "arm seed" of every run so far, in alphabetical order."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return sorted(" ".join(line.split()[:2]) for line in lines)


FIXED = """
def ours(run):
    ran(run, "ours")
    run.progress(1, 2)
    return {"accuracy": 0.9 + 0.01 * run.seed, "recall@1": 0.5, "recall@10": 0.8 + 0.001 * run.seed}

def plain(run):
    ran(run, "plain")
    return {"accuracy": 0.5 + 0.02 * run.seed, "recall@1": 0.4, "recall@10": 0.7}

return Claim(
    statement="Ours is better than plain.",
    arms={"ours": ours, "plain": plain},
    checks=(
        Check(says="better by far", better="ours.accuracy", worse="plain.accuracy", margin=0.1),
        Check(says="better than guessing", better="plain.accuracy", worse=0.25),
    ),
    paper={"ours.accuracy": 0.99, "ours.recall@10": 0.95},
    curves=("recall",),
    config={"scale": scale},
)
"""
