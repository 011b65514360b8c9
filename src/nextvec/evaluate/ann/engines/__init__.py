"""Engines that the benchmark of filtered search compares: one class per file, found by its file name."""

from __future__ import annotations

from nextvec import catalog
from nextvec.evaluate.ann.engines._engine import Engine
from nextvec.types import NotFoundError, did_you_mean

__all__ = ["engine", "names"]


def names() -> list[str]:
    """All engines, whether their libraries are installed or not; the collection comes first."""
    return sorted((n for n in catalog.names(__name__) if not n.startswith("_")), key=lambda n: (n != "nextvec", n))


def engine(name: str) -> type[Engine]:
    """The engine called ``name``; NotFoundError with a guess where there is none."""
    known = names()
    if name not in known:
        raise NotFoundError(f"no engine is called {name!r}{did_you_mean(name, known)}; engines are {', '.join(known)}")
    module = catalog.load(__name__, name)
    found: type[Engine] = next(
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Engine) and one.__module__ == module.__name__
    )
    return found
