"""One run of a claim: what it is, where its files lie, and the digest that says whether a finished one still counts."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextvec.types import InputError

__all__ = ["Job", "digest", "work_folder"]

_WORDS = {"statement", "checks", "paper", "curves", "config"}
"""What a claim says about its arms; none of it changes what an arm returns."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """An arm with a seed, or (``arm`` empty) what all arms share. ``work`` is the folder of the claim's runs, ``key``
    the digest of the method that they belong to."""

    package: str
    method: str
    scale: str
    arm: str
    seed: int
    work: Path
    key: str

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}" if self.arm else "what all arms share"

    @property
    def stem(self) -> str:
        """The name of its files, without an ending."""
        return f"{slug(self.arm)}-seed{self.seed}" if self.arm else "shared"

    @property
    def result(self) -> Path:
        """Written when the run is complete; a run that has one is not run again."""
        return self.work / f"{self.stem}.json"

    @property
    def log(self) -> Path:
        """What it prints, and the traceback where it fails."""
        return self.work / f"{self.stem}.log"

    @property
    def status(self) -> Path:
        """ "done total", as last reported; there while it runs."""
        return self.work / f"{self.stem}.progress"

    @property
    def folder(self) -> Path:
        """The folder of its own (checkpoints), or the one that all arms share."""
        return self.work / self.stem

    @property
    def shared(self) -> Path:
        return self.work / "shared"

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"work": str(self.work)})

    @classmethod
    def from_json(cls, text: str) -> Job:
        fields = json.loads(text)
        return cls(**fields | {"work": Path(fields["work"])})

    def finished(self) -> dict[str, Any] | None:
        """What the run left when it was complete, or None (a file that cannot be read is no result)."""
        try:
            found = json.loads(self.result.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not self.arm and not self.folder.is_dir():
            return None
        return found if isinstance(found, dict) and found.get("kind") == "claim run" else None


def slug(arm: str) -> str:
    """An arm's name as file names can hold it."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", arm)


def work_folder(out: Path, method: str, scale: str, key: str) -> Path:
    """The folder of the runs of one claim at one scale and with one digest: others never meet it."""
    return out / f"{method}.runs" / f"{scale}-{key}"


def digest(method: type[Any], *, version: str) -> str:
    """12 hexadecimal digits of nextvec's version and of the program in the method's file and in its part files.

    Comments, layout, docstrings, the card, and what ``Claim(...)`` says beside arms and preparation do not count:
    a corrected sentence or a stricter check must not cost hours of runs. The rest of nextvec counts only through its
    version (each run records its commit).
    """
    path = inspect.getsourcefile(method)
    if path is None:
        raise InputError(f"the source of {method.__module__} cannot be read: a method is one Python file")
    programs = [ast.dump(_Program().visit(ast.parse(source))) for source in _sources(Path(path))]
    return hashlib.sha256("\n".join([version, *programs]).encode()).hexdigest()[:12]


def _sources(path: Path) -> list[str]:
    """The text of the method's file, and of each part file ("_NAME.py" beside it) that one of these names."""
    try:
        texts = {path: path.read_text(encoding="utf-8")}
        parts = sorted(path.parent.glob("_[!_]*.py"))
        while True:
            more = [p for p in parts if p not in texts and any(p.stem in text for text in texts.values())]
            if not more:
                return list(texts.values())
            texts |= {p: p.read_text(encoding="utf-8") for p in more}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the source {str(path)!r} cannot be read: {error}") from error


class _Program(ast.NodeTransformer):
    """Leaves what a run depends on."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return None if names == ["card"] else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        is_card = isinstance(node.target, ast.Name) and node.target.id == "card"
        return None if is_card else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "Claim":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in _WORDS]
        return self.generic_visit(node)
