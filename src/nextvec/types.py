"""The words everyone speaks: errors a user may see, progress, hits, batches, terms, and what a method says of itself.

Legend: B examples of a batch, N items laid end to end (N = sum of the examples' lengths), D width.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # the command line and the runs of a claim need the words alone
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "Batch",
    "Card",
    "Check",
    "Claim",
    "Column",
    "ConflictError",
    "GoneError",
    "Hit",
    "Hits",
    "InputError",
    "MissingExtraError",
    "NextvecError",
    "NotFoundError",
    "OfflineError",
    "Outputs",
    "Progress",
    "Ragged",
    "Run",
    "StorageError",
    "Term",
    "did_you_mean",
]

Progress = Callable[[int, int | None], None]
"""Called with (done, total); total is None where it cannot be known. Lower floors report, only the CLI draws."""


class NextvecError(Exception):
    """Anything that went wrong in a way a user can act on. The message is one line: what came, what was
    expected, what to do. The CLI prints it and exits with 1; the site answers with a 4xx or 5xx."""


class InputError(NextvecError, ValueError):
    """What the caller passed is not usable (wrong type, shape, field, value)."""


class NotFoundError(NextvecError, LookupError):
    """A named thing (file, model, collection, data set, paper) does not exist."""


class GoneError(NotFoundError):
    """It existed and was taken away on purpose; the message says why."""


class ConflictError(NextvecError):
    """The write clashes with what is there (an id that exists) or with another writer."""


class StorageError(NextvecError, OSError):
    """The disk refused: read-only, full, or a file that is damaged."""


class OfflineError(NextvecError, ConnectionError):
    """Something had to be fetched and the network could not be reached."""


class MissingExtraError(NextvecError, ImportError):
    """An optional dependency is absent; the message names the extra to install."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'year'?"`` for the closest known name, else the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. ``score`` is higher for better (cosine or dot product)."""

    id: str
    score: float
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)  # not frozen: that takes three times as long to make, and a batch makes one per query
class Hits:
    """The results of one query, best first; ties are broken by insertion order.

    ids: list of n; scores: float32 [n]; attributes: n mappings (empty where none were asked for);
    explain: how the answer was found (only with ``explain=True``); next_page: the cursor, or what makes it when
    somebody asks; groups: the n values that hits were grouped by (empty where they were not).
    """

    ids: list[str]
    scores: NDArray[np.float32]
    attributes: list[Mapping[str, Any]] = field(default_factory=list)
    explain: Mapping[str, Any] | None = None
    next_page: str | Callable[[], str] | None = field(default=None, repr=False, compare=False)
    groups: list[Any] = field(default_factory=list)

    @property
    def cursor(self) -> str | None:
        """Where the next page begins; None after the last one."""
        return self.next_page() if callable(self.next_page) else self.next_page

    def __reduce__(self) -> tuple[Any, ...]:
        return Hits, (self.ids, self.scores, self.attributes, self.explain, self.cursor, self.groups)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Hit]:
        for i, identifier in enumerate(self.ids):
            attributes = self.attributes[i] if self.attributes else {}
            yield Hit(identifier, float(self.scores[i]), attributes)

    def __getitem__(self, i: int) -> Hit:
        return Hit(self.ids[i], float(self.scores[i]), self.attributes[i] if self.attributes else {})


@dataclass(frozen=True, slots=True)
class Term:
    """What an objective returns: a sum over ``count`` items, so that terms add exactly over micro-batches.

    ``mean`` is the loss to differentiate; ``logs`` are plain numbers for the record.
    """

    sum: Tensor
    count: float
    logs: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        return self.sum / max(self.count, 1.0)


@dataclass(frozen=True, slots=True)
class Ragged:
    """Sequences of different lengths laid end to end: no padding, so no mask to forget.

    values: int64 [N] (token ids) or float [N, D] (patches, frames, vectors); lengths: int64 [B] on the CPU, sum N.
    """

    values: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        total = int(self.lengths.sum()) if len(self.lengths) else 0
        if self.lengths.ndim != 1 or total != len(self.values):
            raise InputError(
                f"Ragged: lengths {list(self.lengths.shape)} add up to {total}, but there are {len(self.values)} values"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, start: int, stop: int) -> Ragged:
        """Examples start to stop."""
        begin = int(self.lengths[:start].sum())
        end = begin + int(self.lengths[start:stop].sum())
        return Ragged(self.values[begin:end], self.lengths[start:stop])

    def to(self, device: Any) -> Ragged:
        """With the values on ``device``; lengths stay on the CPU, where shapes are decided."""
        return Ragged(self.values.to(device, non_blocking=True), self.lengths)


Column: TypeAlias = "Tensor | Ragged"
Outputs: TypeAlias = "Mapping[str, Tensor]"
"""What a method's forward returned, by name. What a batch objective reads has the examples in dimension 0."""


class Batch(Mapping[str, "Column"]):
    """Named columns of B examples: "text", "query", "document", "labels", "group", ... Never interleaved.

    A column is a Tensor [B, ...] or a ``Ragged``. ``task`` names what the batch was drawn for, if anything.
    """

    __slots__ = ("columns", "size", "task")

    def __init__(self, columns: Mapping[str, Column], *, task: str | None = None) -> None:
        sizes = {name: len(column) for name, column in columns.items()}
        if not sizes or len(set(sizes.values())) != 1:
            raise InputError(f"a batch needs columns of one length; got {sizes or 'none'}")
        self.columns, self.task = dict(columns), task
        self.size = next(iter(sizes.values()))
        if not self.size:
            raise InputError(f"an empty batch (columns {', '.join(sizes)}): at least one example is needed")

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"Batch(size={self.size}, columns={', '.join(self.columns)})"

    def tensor(self, name: str) -> Tensor:
        """The column ``name``, which must be a plain tensor."""
        column = self._column(name)
        if isinstance(column, Ragged):
            raise InputError(f"batch column {name!r} is ragged; a plain tensor is expected here")
        return column

    def ragged(self, name: str) -> Ragged:
        """The column ``name``, which must be ragged."""
        column = self._column(name)
        if not isinstance(column, Ragged):
            raise InputError(f"batch column {name!r} is a plain tensor {list(column.shape)}; a Ragged is expected here")
        return column

    def _column(self, name: str) -> Column:
        if name not in self.columns:
            raise InputError(f"the batch lacks the column {name!r} (it has {', '.join(self.columns)})")
        return self.columns[name]

    def take(self, start: int, stop: int) -> Batch:
        """Examples start to stop, as a batch."""
        cut = {n: c.take(start, stop) if isinstance(c, Ragged) else c[start:stop] for n, c in self.columns.items()}
        return Batch(cut, task=self.task)

    def split(self, sizes: Sequence[int]) -> list[Batch]:
        """Consecutive parts of the given sizes, which add up to ``size``."""
        if sum(sizes) != self.size or min(sizes, default=0) < 1:
            raise InputError(f"parts {list(sizes)} do not divide a batch of {self.size}")
        ends = list(itertools.accumulate(sizes))
        return [self.take(end - size, end) for end, size in zip(ends, sizes, strict=True)]

    def to(self, device: Any) -> Batch:
        """With every column on ``device``."""
        return Batch({n: c.to(device) for n, c in self.columns.items()}, task=self.task)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a method says of itself. ``family`` groups rows of the table; ``differs`` lists what here is not as in
    the paper, our own choices for what it leaves open included; ``arxiv`` is "" only where there is none."""

    name: str
    title: str
    arxiv: str
    year: int
    family: str
    claim: str
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """What one arm of a claim is given: its seed, a folder shared by all arms of the claim (made by
    ``Claim.prepare``), a folder of its own that survives an interruption, and where to report progress."""

    seed: int
    shared: Path
    folder: Path
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class Check:
    """One inequality a verdict rests on: the mean over seeds of ``better - worse`` exceeds ``margin``.

    ``better`` and ``worse`` are "arm.measure"; ``worse`` may be a number (an absolute bar). ``says`` is the sentence
    of the paper that it stands for.
    """

    says: str
    better: str
    worse: str | float
    margin: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A paper's central figure at a size that runs here.

    arms: name -> a function of ``Run`` that returns measures; the method, its baselines, and the control that could
    refute it. checks: what must hold. paper: the paper's own figures, "arm.measure" -> value, shown beside ours.
    curves: measures named "curve@x" are drawn as lines over x. prepare: makes what all arms share, once, in a folder
    that is empty when it begins. config: the settings at this scale, kept with the result.
    """

    statement: str
    arms: Mapping[str, Callable[[Run], Mapping[str, float]]]
    checks: tuple[Check, ...]
    paper: Mapping[str, float] = field(default_factory=dict)
    curves: tuple[str, ...] = ()
    prepare: Callable[[Path], None] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
