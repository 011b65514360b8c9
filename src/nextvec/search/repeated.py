"""Filters that are asked for again and again: their rows are laid cell by cell on their own, in memory.

A scan of cells under a filter of a tenth of the rows looks at ten rows for each that matches. Laid alone, the same rows
are found in the same cells by reading a tenth. That takes some time and memory, so it is done in the background, for
filters whose searches have lost as much time as it takes, and for as many as fit a part of the index's size.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from concurrent.futures import Executor
from dataclasses import dataclass

from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.cells import Cells, alone

__all__ = ["Repeated"]

_KNOWN = 64  # filters
_WIDEST = 0.6  # of the rows in cells: hardly anything is saved where more match
_ROOM = 2.0  # of the rows in cells: for all filters together, each row in a seventh of the bytes that cells take


@dataclass(slots=True)
class _Asked:
    allowed: Allowed  # kept, so that its id stays its own
    lost: float = 0.0  # milliseconds
    own: Cells | None = None
    begun: bool = False


class Repeated:
    """Of one set of cells (None: there are none, and nothing is laid out). Safe to share between threads."""

    def __init__(self, cells: Cells | None) -> None:
        self._cells = cells
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        self._lock = threading.Lock()

    def own(self, allowed: Allowed) -> Cells | None:
        """The rows of this filter ``alone``, where they are laid out."""
        asked = self._asked.get(id(allowed))
        return None if asked is None else asked.own

    def lost(self, allowed: Allowed, milliseconds: float, laying: float, background: Executor) -> None:
        """A search took so much longer than with the filter's rows laid out, which takes ``laying`` milliseconds."""
        cells = self._cells
        if cells is None or milliseconds <= 0 or allowed.count > _WIDEST * len(cells):
            return
        with self._lock:
            asked = self._asked.get(id(allowed))
            again = asked is not None
            if asked is None:
                asked = self._asked[id(allowed)] = _Asked(allowed)
                if len(self._asked) > _KNOWN:
                    self._asked.popitem(last=False)
            asked.lost += milliseconds
            if asked.begun or not again or asked.lost < laying:  # one search, of many queries, is not again and again
                return
            asked.begun = True
        background.submit(self._lay, cells, asked)

    def _lay(self, cells: Cells, asked: _Asked) -> None:
        with contextlib.suppress(MemoryError):  # searches go on as they did
            own = alone(cells, asked.allowed)
            _ = own.native  # made here and not by the first search
            with self._lock:
                laid = [(key, len(one.own)) for key, one in self._asked.items() if one.own is not None]
                taken = sum(size for _, size in laid)
                for key, size in laid:  # the oldest first
                    if taken + len(own) <= _ROOM * len(cells):
                        break
                    taken -= size
                    del self._asked[key]
                asked.own = own

    def told(self) -> dict[str, int]:
        """For ``info``: how many filters are laid out, and their rows."""
        with self._lock:
            sizes = [len(one.own) for one in self._asked.values() if one.own is not None]
        return {"filters": len(sizes), "rows": sum(sizes)}
