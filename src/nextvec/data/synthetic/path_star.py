"""Path-Star graphs: find the one path from the centre of a star to a given tip.

G(d, l) is a star of ``d`` arms that share the start; an arm has ``l`` nodes with the start. Nodes carry distinct values
drawn from 0..N-1. The model reads all edges in random order, then start and goal, and writes the path:

    u v | u v | ... u v / start goal = start n_1 ... goal

An edge points away from the start. The first written node repeats the start, the second needs the look-ahead that makes
the task hard for next-token prediction (guessing gives 1/d), the others follow from the edge that leaves the node
before. Task: Bachmann and Nagarajan 2024, arXiv 2403.06963; used with N = 100 and 200,000 training graphs by NextLat,
arXiv 2511.05963.

Legend: E = d (l - 1) edges, P = 3 E + 3 prompt tokens, T = P + l tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.types import Column, InputError, Ragged

__all__ = ["PathStar"]


class PathStar:
    """G(degree, length) with node values below ``nodes``. Token ids: the nodes' values, then ``|``, ``/`` and ``=``."""

    def __init__(self, degree: int, length: int, nodes: int = 100) -> None:
        if degree < 1 or length < 2:
            raise InputError(f"G({degree}, {length}): expected at least 1 arm of at least 2 nodes")
        self.edges = degree * (length - 1)
        if nodes < self.edges + 1:
            raise InputError(f"G({degree}, {length}) has {self.edges + 1} nodes; {nodes} values do not name them all")
        self.degree, self.length, self.nodes = degree, length, nodes
        self.separator, self.end_of_edges, self.equals = nodes, nodes + 1, nodes + 2
        self.vocab = nodes + 3
        self.prompt_length = 3 * self.edges + 3
        self.sequence_length = self.prompt_length + length
        # Node 0 is the start, then come the arms from the inside out; an edge leads to each node but the start.
        self._to = np.arange(1, self.edges + 1)
        self._from = np.where((self._to - 1) % (length - 1) == 0, 0, self._to - 1)

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """``count`` graphs with their paths: int64 [count, T]."""
        if count < 1:
            raise InputError(f"{count} graphs: expected 1 or more")
        values = rng.random((count, self.nodes)).argsort(axis=1)[:, : self.edges + 1]
        order = rng.random((count, self.edges)).argsort(axis=1)
        ids = np.full((count, self.sequence_length), self.separator, dtype=np.int64)
        ids[:, 0 : 3 * self.edges : 3] = np.take_along_axis(values, self._from[order], axis=1)
        ids[:, 1 : 3 * self.edges : 3] = np.take_along_axis(values, self._to[order], axis=1)
        ids[:, 3 * self.edges - 1] = self.end_of_edges
        # Values and edge order are uniform, so that the goal may lie at the tip of the first arm every time.
        path = values[:, : self.length]
        ids[:, 3 * self.edges] = path[:, 0]
        ids[:, 3 * self.edges + 1] = path[:, -1]
        ids[:, 3 * self.edges + 2] = self.equals
        ids[:, self.prompt_length :] = path
        return ids

    def dataset(self, count: int, *, seed: int) -> NDArray[np.int64]:
        """A fixed set of graphs: int64 [count, T]. Its random numbers are not those of any step of a ``Generated``
        source with the same seed."""
        if seed < 0:
            raise InputError(f"seed {seed}: must be 0 or more")
        return self.sample(np.random.default_rng([seed, 0, 1]), count)

    def columns(self, ids: NDArray[np.int64]) -> dict[str, Column]:
        """Batch columns: "text" Ragged, "prompt" int64 [count], the number of prompt tokens (P) of each."""
        count, width = ids.shape
        return {
            "text": Ragged(torch.from_numpy(ids.reshape(-1)), torch.full((count,), width)),
            "prompt": torch.full((count,), self.prompt_length),
        }

    def accuracy(self, paths: Any, ids: Any) -> float:
        """The share of ``paths`` [count, l] (what was written after the prompt; NumPy or CPU tensors) that equal, in
        every token, the paths of ``ids`` [count, T]."""
        written, truth = np.asarray(paths), np.asarray(ids)[:, self.prompt_length :]
        if written.shape != truth.shape:
            raise InputError(f"paths have shape {list(written.shape)}; expected {list(truth.shape)}")
        return float((written == truth).all(axis=1).mean())
