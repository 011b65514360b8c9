"""Two Gloo processes, started once per test file, that run functions by name."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as torch_dist
import torch.multiprocessing as multiprocessing

WORLD = 2


class Pool:
    """``run(module, function, *args)`` calls it in both processes and returns [result of rank 0, of rank 1]."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(WORLD):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, str(folder / "store"), theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, module: str, function: str, *args: Any) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((module, function, args))
        answers = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(120):
                raise AssertionError(f"process {rank} did not answer {module}.{function} within 120 s")
            answers.append(pipe.recv())
        for rank, (error, _) in enumerate(answers):
            if error:
                raise AssertionError(f"process {rank} of {module}.{function}:\n{error}")
        return [result for _, result in answers]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()


def _serve(rank: int, store: str, pipe: Connection) -> None:
    tests = Path(__file__).parents[1]
    sys.path[:0] = [str(tests / name) for name in ("distributed", "engine", "contracts")]
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch_dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    while (job := pipe.recv()) is not None:
        module, function, args = job
        try:
            pipe.send(("", getattr(importlib.import_module(module), function)(*args)))
        except BaseException:
            pipe.send((traceback.format_exc(), None))
    torch_dist.destroy_process_group()
