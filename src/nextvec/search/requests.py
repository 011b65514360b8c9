"""What a search asks for, checked: every argument by itself, and which of them go together.

Shapes: Q queries, D dimensions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from nextvec.search.inputs import check_columns, check_k, check_queries, check_recall
from nextvec.search.paging import Cursor
from nextvec.search.schema import Schema
from nextvec.types import InputError

__all__ = ["Options", "Request", "check_request", "text_weights"]

Fusion = Literal["rrf", "weighted"]
MAX_TEXT = 10_000  # characters of a query
_ALPHA = 0.5


class Options(TypedDict, total=False):
    """The keyword arguments of ``Collection.search`` that have one meaning for one query and for many."""

    text_columns: Sequence[str] | Mapping[str, float] | None
    where: str | None
    columns: Sequence[str] | None
    fusion: Fusion
    alpha: float | None
    group_by: str | None
    group_size: int | None
    diversity: float | None
    min_score: float | None
    recall: float | Literal["exact"]
    explain: bool


@dataclass(frozen=True, slots=True)
class Request:
    """vectors: float32 [Q, D], scaled as the metric wants, or None; texts: Q strings or None; cursors: Q or none."""

    vectors: NDArray[np.float32] | None
    texts: list[str] | None
    single: bool
    k: int | None
    where: str | None
    names: list[str]
    weights: dict[str, float]
    fusion: Fusion
    alpha: float
    group_by: str | None
    group_size: int
    diversity: float | None
    min_score: float | None
    cursors: list[Cursor]
    recall: float | None
    explain: bool

    @classmethod
    def of_vector(cls, query: NDArray[np.float32], k: int, where: str | None) -> Request:
        """One vector [1, D], scaled, and perhaps a filter; everything else as it is where nothing is said of it."""
        return cls(
            vectors=query,
            texts=None,
            single=True,
            k=k,
            where=where,
            names=[],
            weights={},
            fusion="rrf",
            alpha=_ALPHA,
            group_by=None,
            group_size=1,
            diversity=None,
            min_score=None,
            cursors=[],
            recall=None,
            explain=False,
        )

    @property
    def is_plain(self) -> bool:
        """Whether this asks for the first k rows by vector, as they come."""
        shaped = self.min_score is not None or self.diversity or self.group_by is not None or self.cursors
        return not shaped and self.texts is None and self.k is not None

    def __len__(self) -> int:
        return len(self.vectors) if self.vectors is not None else len(self.texts or ())

    def fingerprints(self, state: Sequence[Any]) -> list[bytes]:
        """12 bytes for each query: of all that decides about its ranking, and of ``state``, the rows searched."""
        fixed: list[Any] = [list(state), self.where, sorted(self.weights.items()), self.group_by, self.group_size]
        fixed += [self.fusion, self.alpha, self.diversity, self.min_score]
        start = hashlib.blake2b(json.dumps(fixed).encode(), digest_size=12)
        prints = []
        for i in range(len(self)):
            one = start.copy()
            if self.vectors is not None:
                one.update(self.vectors[i].data)
            if self.texts is not None:
                one.update(b"text" + self.texts[i].encode())
            prints.append(one.digest())
        return prints


def check_request(
    schema: Schema,
    *,
    vector: Any,
    k: Any,
    text: Any,
    text_columns: Any,
    where: Any,
    columns: Any,
    fusion: Any,
    alpha: Any,
    group_by: Any,
    group_size: Any,
    diversity: Any,
    min_score: Any,
    cursor: Any,
    recall: Any,
    explain: bool,
) -> Request:
    """The arguments of ``Collection.search`` as a request. Raises InputError."""
    if vector is None and text is None:
        raise InputError("nothing to search for: pass a vector, a text with text_columns, or both")
    vectors, single = (None, True) if vector is None else check_queries(vector, schema)
    texts: list[str] | None = None
    if text is not None:
        texts, one_text = _texts(text)
        if vectors is not None and (one_text, len(texts)) != (single, len(vectors)):
            raise InputError(
                f"{_count(one_text, len(texts))} text came with {_count(single, len(vectors))} vector: "
                "expected one of each, or lists of the same length"
            )
        single = one_text
    if (text is None) != (text_columns is None):
        raise InputError("text and text_columns go together: the words to look for, and the attributes to look in")
    request = Request(
        vectors=vectors,
        texts=texts,
        single=single,
        k=check_k_or_all(k, min_score),
        where=where,
        names=check_columns(columns, schema),
        weights={} if text_columns is None else text_weights(text_columns, schema),
        fusion=_fusion(fusion, alpha, both=vector is not None and text is not None),
        alpha=_ALPHA if alpha is None else check_number(alpha, "alpha", 0.0, 1.0),
        group_by=_group_by(group_by, schema),
        group_size=_group_size(group_size, group_by),
        diversity=None if diversity is None else check_number(diversity, "diversity", 0.0, 1.0),
        min_score=None if min_score is None else check_number(min_score, "min_score"),
        cursors=[] if cursor is None else _cursors(cursor, single, k),
        recall=check_recall(recall),
        explain=explain,
    )
    if request.recall is not None:
        _check_approximate(request)
    if request.cursors and len(request.cursors) != len(request):
        raise InputError(
            f"{len(request.cursors)} cursors came with {len(request)} queries: expected one for each; leave out "
            "queries that have no further page"
        )
    return request


def _check_approximate(request: Request) -> None:
    """What needs more of a ranking than its first k rows needs the exact one."""
    if request.vectors is None:
        raise InputError("recall goes with a vector: search by words alone is exact")
    given = {
        "cursor": bool(request.cursors),
        "min_score": request.min_score is not None,
        "group_by": request.group_by is not None,
    }
    for name, there in given.items():
        if there:
            raise InputError(f"recall and {name} exclude each other: leave out recall")


def text_weights(columns: Any, schema: Schema) -> dict[str, float]:
    """Attribute -> weight of ``text_columns``: names (weight 1), or a mapping of names to weights."""
    if isinstance(columns, str) or not isinstance(columns, (Sequence, Mapping)) or not len(columns):
        raise InputError(f"text_columns is {columns!r}: expected a list of string attributes, or a mapping to weights")
    weights = {}
    for name in check_columns(columns, schema, what="text_columns"):
        if schema.attributes[name] != "string":
            raise InputError(
                f"text_columns names {name!r} of type {schema.attributes[name]}: expected string attributes"
            )
        weight = columns[name] if isinstance(columns, Mapping) else 1.0
        weights[name] = check_number(weight, f"the weight of {name!r}", 1e-6, 1e6)
    return dict(sorted(weights.items()))  # sums do not depend on the order asked


def _texts(text: Any) -> tuple[list[str], bool]:
    single = isinstance(text, str)
    if not single and (isinstance(text, (bytes, Mapping)) or not hasattr(text, "__iter__")):
        raise InputError(f"text is a {type(text).__name__}: expected a string or a list of strings")
    texts = [text] if single else list(text)
    for one in texts:
        if not isinstance(one, str):
            raise InputError(f"text holds {one!r:.60}: expected strings")
        if len(one) > MAX_TEXT:
            raise InputError(f"text has {len(one)} characters: expected at most {MAX_TEXT}")
        try:
            one.encode()
        except UnicodeEncodeError:
            raise InputError(f"text {one!r:.60} is not valid Unicode") from None
    return texts, single


def _count(single: bool, n: int) -> str:
    return "one" if single else f"a list of {n}"


def check_k_or_all(k: Any, min_score: Any) -> int | None:
    """The number of hits asked for; None, all of them, only where ``min_score`` cuts them. Raises InputError."""
    if k is None:
        if min_score is None:
            raise InputError("k is None: only with min_score, then all hits of at least that score are given")
        return None
    return check_k(k)


def _fusion(fusion: Any, alpha: Any, *, both: bool) -> Fusion:
    if fusion not in ("rrf", "weighted"):
        raise InputError(f"fusion is {fusion!r}: expected 'rrf' or 'weighted'")
    if (fusion != "rrf" or alpha is not None) and not both:
        raise InputError("fusion and alpha need a vector and a text: they say how to join the two")
    if alpha is not None and fusion != "weighted":
        raise InputError("alpha goes with fusion='weighted': reciprocal rank fusion has no weights")
    return "rrf" if fusion == "rrf" else "weighted"


def _group_by(name: Any, schema: Schema) -> str | None:
    if name is None:
        return None
    check_columns([name], schema, what="group_by")
    if schema.attributes[name] == "list[string]":
        raise InputError(
            f"group_by names {name!r} of type list[string]: expected an attribute with one value for each row"
        )
    return str(name)


def _group_size(size: Any, group_by: Any) -> int:
    if size is None:
        return 1
    if group_by is None:
        raise InputError("group_size goes with group_by: the hits of each group")
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise InputError(f"group_size is {size!r}: expected a whole number from 1")
    return int(size)


def check_number(value: Any, what: str, least: float = -3e38, most: float = 3e38) -> float:
    """A finite number from ``least`` to ``most``; ``what``: the argument that it came in. Raises InputError."""
    given = value.item() if isinstance(value, np.generic) else value
    good = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not good or not math.isfinite(given) or not least <= given <= most:
        bounds = "a finite number" if most > 1e30 else f"a number from {least:g} to {most:g}"
        raise InputError(f"{what} is {value!r}: expected {bounds}")
    return float(given)


def _cursors(cursor: Any, single: bool, k: Any) -> list[Cursor]:
    if k is None:
        raise InputError("cursor needs k, the size of a page")
    if single:
        return [Cursor.read(cursor)]
    if isinstance(cursor, (str, bytes)) or not isinstance(cursor, Sequence):
        raise InputError("cursor for many queries: expected a list with one cursor for each of them")
    cursors = [Cursor.read(one) for one in cursor]
    if len({one.version for one in cursors}) > 1:
        raise InputError("the cursors come from different versions of the collection: search with them one by one")
    return cursors
