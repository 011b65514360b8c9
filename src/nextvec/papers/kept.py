"""What is dear to work out and asked for again: a few results per site, the ones unused for longest dropped first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakValueDictionary

__all__ = ["Kept", "noting_older", "older"]

_T = TypeVar("_T")
_given: ContextVar[list[bool] | None] = ContextVar("older", default=None)


@contextmanager
def noting_older() -> Iterator[list[bool]]:
    """Gives a list that is not empty as soon as something inside of this was shown of before the last change: an
    answer with it must not be taken for the state of now."""
    noted: list[bool] = []
    token = _given.set(noted)
    try:
        yield noted
    finally:
        _given.reset(token)


def older(value: _T) -> _T:
    """``value``, which is of before the last change, noted (``noting_older``)."""
    if (noted := _given.get()) is not None:
        noted.append(True)
    return value


class Kept:
    """A bounded map of results. ``weight`` of a result: how much of the bound it takes (such as ids that it holds)."""

    def __init__(self, *, most: int = 1_000_000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._weight = 0
        self._making: WeakValueDictionary[Hashable, _Turn] = WeakValueDictionary()

    def get(self, key: Hashable) -> Any:
        """What was kept under ``key``, or None."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Any, *, weight: int = 1) -> None:
        """Keep ``value``, and let others go where it gets too much; one that is too heavy alone is not kept."""
        with self._lock:
            _, old = self._values.pop(key, (None, 0))
            self._weight -= old
            if weight > self._most:
                return
            self._values[key] = (value, weight)
            self._weight += weight
            while self._weight > self._most:
                _, (_, gone) = self._values.popitem(last=False)
                self._weight -= gone

    def drop(self, key: Hashable) -> None:
        """Let go of what is kept under ``key``, if anything is."""
        with self._lock:
            _, weight = self._values.pop(key, (None, 0))
            self._weight -= weight

    def made(self, key: Hashable, make: Callable[[], Any], *, weight: int | Callable[[Any], int] = 1) -> Any:
        """What was kept under ``key``, else what ``make`` gives, kept from now on; ``weight`` may depend on it.

        Whoever asks for it meanwhile waits: ten readers at once would each take ten times as long. ``make`` may ask for
        other keys, not for this one.
        """
        found = self.get(key)
        if found is not None:
            return found
        with self._lock:
            turn = self._making.setdefault(key, _Turn())
        with turn.lock:
            found = self.get(key)
            if found is None:
                found = make()
                self.put(key, found, weight=weight(found) if callable(weight) else weight)
        return found


class _Turn:
    """Held by those who make, or wait for, one result; gone with the last of them."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
