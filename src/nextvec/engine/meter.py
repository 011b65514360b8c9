"""What training costs: items and examples per second, peak memory, and the share of the machine's speed in use."""

from __future__ import annotations

import contextlib
import functools
import resource
import sys
import time
from collections.abc import Callable, Iterator

import torch

__all__ = ["Meter", "measured_peak"]


class Meter:
    """Counts work between two readings, for one process.

    flops_per_token: floating-point operations of forward and backward per token (item), where known: then readings
    hold "mfu". dtype: in which the matrix products run.
    """

    def __init__(
        self,
        flops_per_token: float | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.flops_per_token, self.dtype, self._clock = flops_per_token, dtype, clock
        self._start()

    def _start(self) -> None:
        self._tokens = self._examples = 0
        self._since = self._clock()

    def add(self, *, tokens: int, examples: int) -> None:
        """Count one step's work."""
        self._tokens += tokens
        self._examples += examples

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent within (evaluation, saving) does not count."""
        begin = self._clock()
        try:
            yield
        finally:
            self._since += self._clock() - begin

    def read(self, device: str = "cpu") -> dict[str, float]:
        """Since the last reading: "tokens_per_second", "examples_per_second"; "peak_memory_bytes" (on a GPU what torch
        has held at most, on a CPU the largest resident size of the process); "mfu" (model FLOPs utilisation): the share
        of ``measured_peak``, which is measured here and not the vendor's figure. Empty where nothing was counted."""
        if not self._examples:
            return {}
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        elapsed = max(self._clock() - self._since, 1e-9)
        values = {
            "tokens_per_second": self._tokens / elapsed,
            "examples_per_second": self._examples / elapsed,
            "peak_memory_bytes": float(_peak_memory(device)),
        }
        if self.flops_per_token is not None:
            peak = measured_peak(device, self.dtype)
            values["mfu"] = self.flops_per_token * self._tokens / elapsed / peak
        self._start()
        return values


def _peak_memory(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


@functools.lru_cache(maxsize=8)
def measured_peak(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large square matrix product on ``device``: the fastest of about 0.2 s
    of them, measured once per process with the threads it has."""
    on_gpu = device.startswith("cuda")
    size = 8192 if on_gpu else 1024
    left = torch.ones(size, size, device=device, dtype=dtype)
    fastest = float("inf")
    until = time.perf_counter() + 0.2
    torch.mm(left, left)  # the first call also sets up libraries and memory
    while fastest == float("inf") or time.perf_counter() < until:
        if on_gpu:
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        torch.mm(left, left)
        if on_gpu:
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - begin)
    return 2.0 * size**3 / fastest
