"""One pool of threads for all searches of a process."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["parts_of", "spread", "workers"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def workers() -> int:
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(workers() - 1, 1), thread_name_prefix="nextvec-scan")


def parts_of(count: int) -> list[slice]:
    """``count`` things as one part for each thread, of equal size up to one."""
    parts = min(workers(), count)
    edges = [count * part // parts for part in range(parts + 1)]
    return [slice(*edge) for edge in itertools.pairwise(edges)]


def spread(task: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``task`` of every item, by this thread and by helpers that are free; in any order.

    This thread does not wait for a helper that has not begun, so that a busy machine costs no more than one thread.
    """
    todo, results = iter(items), []
    guard = threading.Lock()

    def work() -> None:
        while True:
            with guard:
                item = next(todo, None)
            if item is None:
                return
            results.append(task(item))

    helpers = [_pool().submit(work) for _ in range(min(workers(), len(items)) - 1)]
    try:
        work()
    finally:
        running = [helper for helper in helpers if not helper.cancel()]
    for helper in running:
        helper.result()
    return results
