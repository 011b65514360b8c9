"""Texts with a class each, divided into what a classifier is fitted to and what it is measured on.

TREC-6 (Li and Roth 2002), Subj (Pang and Lee 2004) and MR (Pang and Lee 2005) come from the set "sentcls_harvardnlp"
(their copies are tokenised and in lower case in parts), the arXiv categories from "arxiv_daily". Legend: n texts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextvec.data.catalog import dataset, locate
from nextvec.data.lines import read_lines
from nextvec.data.readers import read_located
from nextvec.types import InputError

__all__ = ["LabelledSplit", "LabelledTexts", "arxiv_categories", "movie_reviews", "subjectivity", "trec"]

_TEST_SHARE = 5  # one text of so many is for testing where a set has no split of its own
_ENCODING = "cp1252"  # what the copies are written in: 0x85 is "…", 0xe9 "é"
_TREC = ("description", "entity", "abbreviation", "human", "location", "number")


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """n texts and int64 [n] labels, numbers of ``names``."""

    texts: list[str]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class LabelledSplit:
    """What to fit to and what to measure on; no text stands in both."""

    train: LabelledTexts
    test: LabelledTexts


def trec(*, folder: Path | None = None) -> LabelledSplit:
    """Questions by what they ask for: six classes, 5,452 to fit and 500 to measure, the set's own split.

    A handful of its training questions stand among the test questions too: they are left out of training. folder:
    where TREC.*.all lie (None: the catalogued set). NotFoundError where it is not on this machine; InputError for a
    line that is no labelled text.
    """
    place = folder or locate("sentcls_harvardnlp")
    test = _labelled(place / "TREC.test.all", _TREC)
    train = _labelled(place / "TREC.train.all", _TREC)
    seen = set(test.texts)
    return LabelledSplit(_take(train, [i for i, text in enumerate(train.texts) if text not in seen]), test)


def subjectivity(*, folder: Path | None = None) -> LabelledSplit:
    """Subj: 10,000 sentences, subjective or objective, divided by ``_hashed``. Otherwise as ``trec``."""
    return _divided(_labelled((folder or locate("sentcls_harvardnlp")) / "subj.all", ("subjective", "objective")))


def movie_reviews(*, folder: Path | None = None) -> LabelledSplit:
    """MR: 10,662 sentences of film reviews, negative or positive, divided by ``_hashed``. Otherwise as ``trec``."""
    return _divided(_labelled((folder or locate("sentcls_harvardnlp")) / "rt-polarity.all", ("negative", "positive")))


def arxiv_categories(
    *, folder: Path | None = None, classes: int = 8, train: int = 250, test: int = 125
) -> LabelledSplit:
    """Titles with abstracts by primary category (the first listed): the ``classes`` commonest ones, of each ``test``
    papers to measure on and ``train`` to fit to, those whose hashed id is smallest.

    folder: where the catalogued file of "arxiv_daily" lies (None: the catalogued set). InputError where a class has
    fewer papers than asked for.
    """
    path = (folder or locate("arxiv_daily")) / dataset("arxiv_daily").files[0].path
    papers: dict[str, list[tuple[bytes, str]]] = {}
    for place, record in read_located(path, fields=("id", "title", "summary", "categories")):
        categories = record["categories"]
        if not isinstance(categories, list) or not categories or not isinstance(categories[0], str):
            raise InputError(f"{place}: categories are {categories!r:.40}; expected a list of names")
        text = f"{' '.join(str(record['title']).split())}\n{' '.join(str(record['summary']).split())}"
        papers.setdefault(categories[0], []).append((_hashed(str(record["id"])), text))
    common = [name for name, _ in Counter({name: len(own) for name, own in papers.items()}).most_common(classes)]
    if len(common) < 2 or min(len(papers[name]) for name in common) < train + test:
        least = min((len(papers[name]) for name in common), default=0)
        raise InputError(f"{path.name}: {len(common)} categories, the smallest of {least}; need {train + test} of each")
    names = tuple(sorted(common))
    parts: dict[str, list[tuple[str, int]]] = {"test": [], "train": []}
    for label, name in enumerate(names):
        texts = [text for _, text in sorted(papers[name])]
        parts["test"] += [(text, label) for text in texts[:test]]
        parts["train"] += [(text, label) for text in texts[test : test + train]]
    made = {
        part: LabelledTexts([t for t, _ in rows], _array([i for _, i in rows]), names) for part, rows in parts.items()
    }
    return LabelledSplit(made["train"], made["test"])


def _labelled(path: Path, names: tuple[str, ...]) -> LabelledTexts:
    """Lines of a class number, a space and the text."""
    texts, labels = [], []
    for place, line in read_lines(path, encoding=_ENCODING):
        label, _, text = line.partition(" ")
        if not label.isdecimal() or int(label) >= len(names) or not text.strip():
            raise InputError(f"{place}: expected a class from 0 to {len(names) - 1}, a space and a text")
        texts.append(text.strip())
        labels.append(int(label))
    if len(set(labels)) < len(names):
        absent = next(name for i, name in enumerate(names) if i not in labels)
        raise InputError(f"{path.name} has no text of the class {absent!r}: the file is damaged or truncated")
    return LabelledTexts(texts, _array(labels), names)


def _divided(texts: LabelledTexts) -> LabelledSplit:
    """One text in five for measuring, decided by the text itself, so that equal texts fall on one side."""
    measured = [_hashed(text)[0] % _TEST_SHARE == 0 for text in texts.texts]
    train = [i for i, test in enumerate(measured) if not test]
    return LabelledSplit(_take(texts, train), _take(texts, [i for i, test in enumerate(measured) if test]))


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _take(texts: LabelledTexts, rows: list[int]) -> LabelledTexts:
    return LabelledTexts([texts.texts[i] for i in rows], texts.labels[rows], texts.names)


def _array(labels: list[int]) -> NDArray[np.int64]:
    return np.array(labels, dtype=np.int64)
