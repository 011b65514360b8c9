"""Small files in each of the formats that methods learn from: to look at, to imitate, and to try a training on.

What they hold is made here or is of the bundled papers; a kind, the name of a format, is what ``Method.sample`` names.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nextvec.data.bundled import daily_papers
from nextvec.data.synthetic.arithmetic import arithmetic
from nextvec.data.synthetic.grids import grids
from nextvec.data.synthetic.patients import simulate
from nextvec.extras import require
from nextvec.files import atomic_write, storage_error
from nextvec.types import ConflictError, InputError

__all__ = ["KINDS", "write_sample"]

_ROWS = 64  # enough for one batch of any method as it comes
_SCENES, _GAZES = 32, 4
_FOLDERS = ("pictures", "thoughts")
_CELL = 4  # pixels of a picture's cell
_DEFINITIONS = (
    ("embedding", "a vector that stands for a word, a text or a picture"),
    ("encoder", "what turns a text into a vector"),
    ("encoder", "the half of a network that reads"),
    ("recall", "the share of what was looked for that was found"),
    ("token", "a piece of text that a model reads as one"),
    ("attention", "a weighted mean whose weights are computed from what is averaged"),
    ("gradient", "the direction in which a function grows fastest"),
    ("teacher", "a model whose outputs another one learns to give"),
    ("hard negative", "a wrong answer that looks like a right one"),
    ("seed", "the number from which random numbers are drawn"),
)
_JUDGED = (
    ("A man is playing a guitar.", "Someone plays the guitar.", 4.6),
    ("A child rides a bicycle.", "A boy is riding his bike.", 4.0),
    ("The train leaves at noon.", "The train departs at twelve.", 4.8),
    ("She is slicing an onion.", "A woman cuts a tomato.", 2.4),
    ("Two dogs run on the beach.", "A dog sleeps on the sofa.", 1.2),
    ("The market fell sharply.", "A cat looks out of the window.", 0.0),
    ("They signed the contract.", "The agreement was signed.", 4.4),
    ("It rained all day.", "The sun shone for hours.", 1.0),
)


def write_sample(kind: str, path: Path) -> Path:
    """Write the sample of ``kind`` to ``path``: a new file that ends in .jsonl (which is added where there is no
    ending), or for pictures a new folder. Gives what ``--data`` takes. Raises InputError (a kind that is none, another
    ending), ConflictError (it exists), MissingExtraError (pictures), StorageError."""
    if kind not in KINDS:
        raise InputError(f"there is no sample of kind {kind!r}; there are: {', '.join(KINDS)}")
    if kind not in _FOLDERS:
        path = path if path.suffix else path.with_suffix(".jsonl")
        if path.suffix != ".jsonl":
            raise InputError(f"{path.name!r} ends in {path.suffix!r}; a sample of {kind} is JSON lines: .jsonl")
    if path.exists():
        raise ConflictError(f"{str(path)!r} exists: name a new file or folder, nothing is written over")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _folder(kind, path) if kind in _FOLDERS else KINDS[kind](path)
    except OSError as error:
        raise storage_error(error, path) from error


def _folder(kind: str, path: Path) -> Path:
    """All of a sample of pictures or nothing: it is written beside ``path`` and moved there when it is whole."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".part") as made:
        given = KINDS[kind](Path(made) / path.name)
        (Path(made) / path.name).rename(path)
    return path / given.relative_to(Path(made) / path.name)


def _lines(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    with atomic_write(path, "w") as stream:
        stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return path


def _papers() -> Iterable[tuple[str, str]]:
    """(title, abstract) of some bundled papers."""
    for row in daily_papers(columns=["title", "summary"]).slice(0, _ROWS).to_pylist():
        yield row["title"], " ".join(row["summary"].split())


def _texts(path: Path) -> Path:
    return _lines(path, [{"title": title, "text": summary} for title, summary in _papers()])


def _pairs(path: Path) -> Path:
    """Concepts are read by one method alone; here they are the longer words of the title."""
    return _lines(
        path,
        [
            {"query": title, "document": summary, "concepts": re.findall(r"[a-z]{7,}", title.lower())}
            for title, summary in _papers()
        ],
    )


def _judged(path: Path) -> Path:
    return _lines(path, [dict(zip(("first", "second", "score"), one, strict=True)) for one in _JUDGED])


def _words(path: Path) -> Path:
    return _lines(path, [{"entry": entry, "definition": definition} for entry, definition in _DEFINITIONS])


def _chains(path: Path) -> Path:
    return _lines(path, map(asdict, arithmetic(np.random.default_rng(0), _ROWS, least=2, most=4)))


def _patients(path: Path) -> Path:
    return _lines(path, (asdict(one.patient) for one in simulate(np.random.default_rng(0), 8)))


def _scanpaths(path: Path) -> Path:
    """Glimpses are vectors of an encoder of pictures; here, of where a made scene is looked at."""
    rng = np.random.default_rng(0)
    records = []
    for scene in range(_SCENES):
        meaning = rng.normal(size=(8, 2))
        for _ in range(_GAZES):
            at = rng.random((int(rng.integers(4, 7)), 2))
            glimpses = np.cos(at @ meaning.T)
            records.append(
                {"scene": f"scene {scene}", "glimpses": glimpses.round(3).tolist(), "positions": at.round(3).tolist()}
            )
    return _lines(path, records)


def _picture(pixels: Any, path: Path) -> str:
    image = require("PIL.Image", why="pictures of a sample")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(np.kron(pixels, np.ones((_CELL, _CELL, 1), np.uint8))).save(path)
    return path.name


def _pictures(path: Path) -> Path:
    for i, question in enumerate(grids(np.random.default_rng(0), _ROWS)):
        _picture(question.pictures[0], path / f"{i:02}.png")
    return path


def _thoughts(path: Path) -> Path:
    """A folder of pictures with the records beside them: its ``thoughts.jsonl`` is what is given."""
    records: list[dict[str, Any]] = []
    for i, question in enumerate(grids(np.random.default_rng(0), _ROWS // 2)):
        names = [{"image": _picture(one, path / f"{i:02}-{j}.png")} for j, one in enumerate(question.pictures)]
        records.append({"question": [question.text, names[0]], "thoughts": names[1:], "answer": question.answer})
    for chain in arithmetic(np.random.default_rng(1), _ROWS // 2, least=2, most=3):
        records.append({"question": chain.question, "thoughts": list(chain.steps), "answer": chain.answer})
    return _lines(path / "thoughts.jsonl", records)


KINDS: dict[str, Callable[[Path], Path]] = {
    "texts": _texts,
    "pairs": _pairs,
    "judged": _judged,
    "words": _words,
    "chains": _chains,
    "patients": _patients,
    "scanpaths": _scanpaths,
    "pictures": _pictures,
    "thoughts": _thoughts,
}
