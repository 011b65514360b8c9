"""Runs batches side by side on the CPU: one batch per core instead of every core on one batch.

Splitting each matrix product over the cores makes them wait for each other some forty times per batch, and far longer
when another program takes one of them. Independent batches need no such meetings: measured on 2 cores, the same speed
on an idle machine and two to four times as fast on a busy one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def run_batches(run: Callable[[T], None], batches: Sequence[T], *, parallel: bool) -> None:
    """Call ``run`` on every batch; with ``parallel``, each core works on one at a time, single-threaded.

    The first error (or Ctrl-C) cancels the batches that have not begun and is raised.
    """
    threads = torch.get_num_threads()
    if not parallel or threads == 1 or len(batches) < 2:
        for batch in batches:
            run(batch)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for future in [pool.submit(run, batch) for batch in batches]:
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # Setting a worker's thread count also changed the default that later threads start with.
        torch.set_num_threads(threads)
