"""Packing: batches filled to a number of tokens. Each document, or piece of one, stays a sequence of its own.

Sequences are laid end to end and attention never leaves one, so that a "row of T tokens" is a budget and nothing more.
Two ways to meet it: ``stream`` cuts documents wherever a batch is full and fills every batch exactly; ``Packed`` keeps
examples whole and fills batches by best fit.

Legend: M documents (or examples), P pieces.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nextvec.data.sources import Indices, TokenBounded, generator
from nextvec.types import InputError

__all__ = ["Packed", "best_fit", "fill_share", "stream"]


def best_fit(lengths: Sequence[int] | Indices, *, tokens: int) -> list[Indices]:
    """Groups of examples (their numbers) whose lengths add up to at most ``tokens``: best-fit decreasing, which puts
    the longest first, each where the least room is left. InputError for a length over ``tokens``."""
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-sizes, kind="stable").tolist()
    if len(sizes) and (sizes.min() < 0 or sizes.max() > tokens):
        raise InputError(
            f"lengths from {sizes.min():,} to {sizes.max():,} to be packed into {tokens:,}: cut them first"
        )
    groups: list[list[int]] = []
    rooms: list[int] = []  # sorted: each amount of room that some group has left
    with_room: dict[int, list[int]] = {}  # room left -> the groups that have it
    for example in order:
        size = int(sizes[example])
        place = bisect.bisect_left(rooms, size)
        if place == len(rooms):
            group, room = len(groups), tokens
            groups.append([])
        else:
            room = rooms[place]
            group = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[place]
        groups[group].append(example)
        left = room - size
        if left and left not in with_room:
            bisect.insort(rooms, left)
        if left:
            with_room.setdefault(left, []).append(group)
    return [np.array(group, dtype=np.int64) for group in groups]


def fill_share(lengths: Sequence[int] | Indices, groups: Sequence[Indices], *, tokens: int) -> float:
    """What share of the groups' token budgets is used."""
    sizes = np.asarray(lengths, dtype=np.int64)
    return float(sum(int(sizes[group].sum()) for group in groups)) / (len(groups) * tokens)


class Packed(TokenBounded):
    """Batches of whole examples, mixed in length, that fill ``tokens`` as well as best fit can.

    Every epoch is shuffled, packed by ``best_fit`` within windows of ``pool`` examples, and its batches shuffled, all
    from (seed, epoch); no example is left out. Data, lengths and errors are as for ``TokenBounded``. A batch may be a
    single long example, which several processes cannot share: choose ``tokens`` well above the longest.
    """

    def _plan(self, epoch: int) -> list[Indices]:
        rng = generator(self._seed, epoch)
        order = rng.permutation(self.count)
        batches = []
        for start in range(0, self.count, self._pool):
            window = order[start : start + self._pool]
            batches += [window[group] for group in best_fit(self.lengths[window], tokens=self._tokens)]
        return [batches[i] for i in rng.permutation(len(batches))]


def stream(
    ends: Indices, start: int, stop: int, *, longest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The pieces that tokens start..stop (1 or more) of documents laid end to end consist of.

    ends: int64 [M], where each document ends. A piece lies within one document and has at most ``longest`` tokens; what
    is longer is cut evenly, so that no scrap of a token or two is left. Returns the pieces' document, first token
    within it, and length: int64 [P] each; the lengths add up to stop - start.
    """
    first = int(np.searchsorted(ends, start, side="right"))
    last = int(np.searchsorted(ends, stop, side="left"))
    found = np.arange(first, last + 1)
    begins = np.concatenate([[ends[first - 1] if first else 0], ends[first:last]])
    low, high = np.maximum(begins, start), np.minimum(ends[first : last + 1], stop)
    found, begins, low, high = (values[high > low] for values in (found, begins, low, high))
    cuts = -(-(high - low) // longest)  # pieces per document
    document = np.repeat(np.arange(len(found)), cuts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(cuts) - cuts, cuts)
    size, larger = np.divmod((high - low)[document], cuts[document])
    offset = low[document] - begins[document] + number * size + np.minimum(number, larger)
    return found[document], offset, size + (number < larger)
