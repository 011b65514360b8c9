"""All collectives of the library. With one process each of them is the identity.

Objectives never see a rank: the engine gathers once, here, and hands them the batch of all processes.
Legend: W processes, b rows of this process, B rows of all processes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as torch_dist
from torch import Tensor

from nextvec.types import NextvecError

T = TypeVar("T")

__all__ = [
    "average_",
    "barrier",
    "every",
    "gather_rows",
    "launched_rank",
    "process_group",
    "rank",
    "sum_floats",
    "together",
    "world",
]


def world() -> int:
    """The number of processes W."""
    return torch_dist.get_world_size() if _on() else 1


def rank() -> int:
    """This process's number, from 0."""
    return torch_dist.get_rank() if _on() else 0


def launched_rank() -> int:
    """The number that torchrun gave this process, known before (and after) the processes have met."""
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the processes that torchrun started (its environment variables say so); alone, do nothing.

    Yields the device of this process: "cpu" with Gloo, "cuda:<local rank>" with NCCL.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _on():
        yield device
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(local)
    torch_dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield f"cuda:{local}" if on_gpu else device
    finally:
        torch_dist.destroy_process_group()


def barrier() -> None:
    """Wait for all processes."""
    if _on():
        torch_dist.barrier()


def sum_floats(values: Sequence[float]) -> list[float]:
    """Each value summed over the processes, in float64."""
    if not _on() or not values:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=_device())
    torch_dist.all_reduce(total)
    return [float(value) for value in total]


def every(value: int) -> list[int]:
    """``value`` of every process, in order of rank."""
    if not _on():
        return [value]
    rows, _ = gather_rows(torch.tensor([value], dtype=torch.int64, device=_device()))
    return [int(row) for row in rows]


def gather_rows(own: Tensor) -> tuple[Tensor, int]:
    """``own`` [b, ...] of every process, in order of rank: ([B, ...], the row at which this process's begin).

    The numbers of rows may differ. No gradient flows: the engine differentiates the objective once, over the
    gathered rows, and takes its own slice.
    """
    own = own.detach().contiguous()
    if not _on():
        return own, 0
    counts = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(world())]
    torch_dist.all_gather(counts, torch.tensor([len(own)], dtype=torch.int64, device=own.device))
    sizes = [int(count) for count in counts]
    most = max(sizes)
    padded = own.new_zeros((most, *own.shape[1:]))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    torch_dist.all_gather(parts, padded)
    gathered = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
    return gathered, sum(sizes[: rank()])


def together(work: Callable[[], T], *, first_only: bool = False) -> T:
    """``work()``, or where ``first_only`` what process 0 got from it. A NextvecError in one process is raised in all,
    so that none waits for one that has gone."""
    result: T | None = None
    problem: NextvecError | None = None
    if not first_only or rank() == 0:
        try:
            result = work()
        except NextvecError as error:
            if world() == 1:
                raise
            problem = error
    if world() == 1:
        return cast(T, result)
    outcomes: list[Any] = [None] * world()
    torch_dist.all_gather_object(outcomes, (result if first_only else None, problem))
    for _, raised in outcomes:
        if raised is not None:
            raise raised
    return cast(T, outcomes[0][0] if first_only else result)


def average_(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over the processes."""
    if not _on():
        return
    for tensor in tensors:
        torch_dist.all_reduce(tensor)
        tensor /= world()


def _on() -> bool:
    return torch_dist.is_available() and torch_dist.is_initialized()


def _device() -> str:
    return "cuda" if torch_dist.get_backend() == "nccl" else "cpu"
