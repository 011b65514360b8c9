"""The words everyone speaks: errors a user may see, progress, hits, and the terms that objectives return."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ConflictError",
    "Hit",
    "Hits",
    "InputError",
    "MissingExtraError",
    "NextvecError",
    "NotFoundError",
    "OfflineError",
    "Progress",
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


@dataclass(frozen=True, slots=True)
class Hits:
    """The results of one query, best first; ties are broken by insertion order.

    ids: list of n; scores: float32 [n]; attributes: n mappings (empty where none were asked for);
    explain: how the answer was found (only with ``explain=True``).
    """

    ids: list[str]
    scores: NDArray[np.float32]
    attributes: list[Mapping[str, Any]] = field(default_factory=list)
    explain: Mapping[str, Any] | None = None

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
