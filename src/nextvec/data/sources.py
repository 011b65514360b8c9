"""Sources: the batch of a step, as a function of (seed, step) alone.

Nothing here keeps a position. A run that resumes at step k asks for batch k and gets what the straight run got; several
processes ask for their ``part`` of the same batch and together see exactly that batch, in order.

Legend: B examples of a batch, N items laid end to end, D width, n examples in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.types import Batch, Column, InputError, Ragged

__all__ = [
    "Changed",
    "Collate",
    "Columns",
    "Generated",
    "Indices",
    "Shuffled",
    "Source",
    "TokenBounded",
    "columns",
    "cut",
    "generator",
    "ragged",
    "share",
]

Indices: TypeAlias = NDArray[np.int64]
Collate = Callable[[Indices], Batch]
"""Makes the batch of the examples with these numbers, in their order; it must depend on nothing else."""


class Source(Protocol):
    """Where batches come from."""

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        """The ``part``-th of ``parts`` contiguous shares (see ``share``) of the batch of ``step``, which is a pure
        function of the source's seed and ``step``. InputError where the batch has fewer examples than parts."""
        ...


def share(count: int, part: int, parts: int) -> tuple[int, int]:
    """(start, stop) of the ``part``-th of ``parts`` contiguous shares of ``count`` things; sizes differ by at most
    one, the larger ones first. Shares are empty where there are fewer things than parts."""
    if parts < 1 or not 0 <= part < parts:
        raise InputError(f"part {part} of {parts}: expected parts >= 1 and 0 <= part < parts")
    size, larger = divmod(count, parts)
    start = part * size + min(part, larger)
    return start, start + size + (part < larger)


def generator(seed: int, number: int) -> np.random.Generator:
    """The random numbers of one step (or epoch): the same for the same two numbers, on any machine."""
    if seed < 0 or number < 0:
        raise InputError(f"seed {seed}, step {number}: both must be 0 or more")
    return np.random.default_rng([seed, number])


def cut(batch: Batch, part: int, parts: int) -> Batch:
    """The ``part``-th of ``parts`` shares of ``batch``; InputError where a share would be empty."""
    if (part, parts) == (0, 1):
        return batch
    start, stop = _filled_share(batch.size, part, parts)
    return batch.take(start, stop)


def _filled_share(count: int, part: int, parts: int) -> tuple[int, int]:
    start, stop = share(count, part, parts)
    if count < parts:
        raise InputError(f"a batch of {count} cannot be shared by {parts} processes: raise the batch size")
    return start, stop


def ragged(sequences: Sequence[Any]) -> Ragged:
    """Sequences laid end to end: token id lists or int arrays [n_i] become int64 [N]; float arrays [n_i, D] keep their
    width and become float32 [N, D]. Empty sequences are kept (length 0)."""
    arrays = [_plain(sequence) for sequence in sequences]
    filled = [array for array in arrays if len(array)]
    if not filled:
        values: NDArray[Any] = np.zeros(0, dtype=np.int64)
    else:
        shapes = sorted({array.shape[1:] for array in filled})
        if len(shapes) != 1:
            raise InputError(f"sequences of one column must have one width; got items of shapes {shapes[:4]}")
        values = np.concatenate(filled)
    lengths = np.fromiter((len(array) for array in arrays), np.int64, len(arrays))
    return Ragged(torch.from_numpy(values), torch.from_numpy(lengths))


def _plain(values: Any) -> NDArray[Any]:
    """``values`` as an array [n, ...] of a dtype the library works with: int64, float32 (float16 is kept), uint8 or
    bool."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"a column's items must be numbers in a regular shape ({error})") from error
    if array.size == 0 and array.dtype == np.float64:  # what np.asarray makes of an empty list
        array = array.astype(np.int64)
    if array.ndim == 0 or array.dtype.kind not in "iufb":
        raise InputError(f"a column is made of sequences of numbers; got {type(values).__name__} ({array.dtype})")
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        return array.astype(np.int64, copy=False)
    return array.astype(np.float32) if array.dtype.itemsize > 4 else array


def columns(values: Mapping[str, Any]) -> dict[str, Column]:
    """Batch columns from what is at hand, by name ("text", "query", "document", "neg0", "view1", "labels", ...).

    A Tensor or Ragged stays what it is; an array [B, ...] (vectors, images, labels) and a list of plain numbers become
    a Tensor; any other list is taken as sequences, one an example, and becomes a Ragged. Floats become float32 and
    integers int64 (uint8 images stay uint8).
    """
    made: dict[str, Column] = {}
    for name, value in values.items():
        if isinstance(value, Tensor | Ragged):
            made[name] = value
        elif isinstance(value, np.ndarray) or (len(value) and np.isscalar(value[0])):
            made[name] = torch.from_numpy(np.ascontiguousarray(_plain(value)))
        else:
            made[name] = ragged(value)
    return made


class Columns:
    """n examples as columns held in memory, from which any rows are taken: a ``Collate``.

    ``lengths``: int64 [n], the items of each example over all its ragged columns (1 where there are none).
    """

    def __init__(self, values: Mapping[str, Any], *, task: str | None = None) -> None:
        self._whole = Batch(columns(values), task=task)
        self._starts: dict[str, Indices] = {}
        self.lengths = np.zeros(len(self), dtype=np.int64)
        for name, column in self._whole.items():
            if isinstance(column, Ragged):
                lengths = column.lengths.numpy()
                self._starts[name] = np.cumsum(lengths) - lengths
                self.lengths += lengths
        if not self._starts:
            self.lengths += 1

    def __len__(self) -> int:
        return self._whole.size

    def __call__(self, rows: Indices) -> Batch:
        """The examples with these numbers, as a batch."""
        made: dict[str, Column] = {}
        for name, column in self._whole.items():
            if isinstance(column, Ragged):
                made[name] = _rows(column, self._starts[name], rows)
            else:
                made[name] = column[torch.from_numpy(rows)]
        return Batch(made, task=self._whole.task)


def _rows(column: Ragged, starts: Indices, rows: Indices) -> Ragged:
    lengths = column.lengths.numpy()[rows]
    ends = np.cumsum(lengths)
    shift = np.repeat(starts[rows] - (ends - lengths), lengths)
    return Ragged(column.values[torch.from_numpy(np.arange(len(shift)) + shift)], torch.from_numpy(lengths))


def _collate(data: Mapping[str, Any] | Collate, count: int | None) -> tuple[Collate, int]:
    """What makes batches of ``data``, and how many examples there are."""
    if isinstance(data, Mapping):
        data = Columns(data)
    if isinstance(data, Columns):
        if count not in (None, len(data)):
            raise InputError(f"count is {count}, but the columns hold {len(data)} examples: leave count out")
        return data, len(data)
    if count is None or count < 1:
        raise InputError(f"count is {count}: give the number of examples (1 or more) that the function can collate")
    return data, count


class Shuffled:
    """Epochs of ``count`` examples, each in an order of its own that (seed, epoch) fixes.

    ``data``: columns by name, a ``Columns``, or a function from example numbers to a batch (then ``count`` is needed).
    With ``drop_last`` every batch has ``batch`` examples and an epoch leaves out the ``count % batch`` that its order
    puts last; without, an epoch ends with a smaller batch. A batch never holds an example twice, so ``batch > count``
    is an InputError rather than a repetition.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | Collate,
        *,
        batch: int,
        seed: int,
        count: int | None = None,
        drop_last: bool = True,
    ) -> None:
        self._collate, self.count = _collate(data, count)
        if not 1 <= batch <= self.count:
            raise InputError(
                f"batch size {batch} with {self.count:,} examples: expected 1 to {self.count:,}; give more data or "
                f"another batch size (a method's setting `batch`)"
            )
        self._batch, self._seed = batch, seed
        self.batches_per_epoch = self.count // batch if drop_last else -(-self.count // batch)
        self._order: tuple[int, Indices] = (0, generator(seed, 0).permutation(self.count))

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        epoch, number = divmod(step, self.batches_per_epoch)
        kept, order = self._order
        if kept != epoch:
            order = generator(self._seed, epoch).permutation(self.count)
            self._order = (epoch, order)
        rows = order[number * self._batch : (number + 1) * self._batch]
        start, stop = _filled_share(len(rows), part, parts)
        return self._collate(rows[start:stop])


class TokenBounded:
    """Batches of examples of similar lengths whose lengths add up to at most ``tokens``.

    ``lengths``: [n], what each example costs (default: the items of its ragged columns). Every epoch is shuffled, then
    sorted by length within pools of ``pool`` examples (larger: more alike; smaller: more random), cut greedily, and its
    batches shuffled, all from (seed, epoch). Every batch has at least ``least`` examples: what an epoch leaves at its
    end is a batch of its own if it has that many, else left out.

    Raises InputError where ``least`` examples of the greatest length would not fit into ``tokens``.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | Collate,
        *,
        tokens: int,
        seed: int,
        lengths: Sequence[int] | Indices | None = None,
        least: int = 1,
        pool: int = 8192,
    ) -> None:
        if isinstance(data, Mapping):
            data = Columns(data)
        if lengths is None:
            if not isinstance(data, Columns):
                raise InputError("lengths are needed where the data are a function: what each example costs")
            lengths = data.lengths
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self._collate, self.count = _collate(data, len(self.lengths))
        if int(self.lengths.min()) < 0 or min(least, pool) < 1 or least > self.count:
            raise InputError(
                f"token-bounded batches need lengths >= 0, pool >= 1 and 1 <= least <= {self.count:,} (the examples); "
                f"got a length of {self.lengths.min()}, pool {pool}, least {least}"
            )
        longest = int(self.lengths.argmax())
        if least * int(self.lengths[longest]) > tokens:
            raise InputError(
                f"example {longest} has {self.lengths[longest]:,} tokens; {least} of that length do not fit into a "
                f"batch of {tokens:,}: truncate the texts or raise the bound"
            )
        self._tokens, self._seed, self._least, self._pool = tokens, seed, least, pool
        self._ends: list[int] = []  # batches up to the end of each epoch planned so far
        self._planned: tuple[int, list[Indices]] = (-1, [])

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        if step < 0:
            raise InputError(f"step {step}: must be 0 or more")
        # Epochs differ in their number of batches, so the earlier ones are counted (once) to find the step's.
        while not self._ends or self._ends[-1] <= step:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(self._epoch(len(self._ends))))
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        rows = self._epoch(epoch)[step - (self._ends[epoch - 1] if epoch else 0)]
        start, stop = _filled_share(len(rows), part, parts)
        return self._collate(rows[start:stop])

    def _epoch(self, epoch: int) -> list[Indices]:
        kept, batches = self._planned
        if kept != epoch:
            batches = self._plan(epoch)
            self._planned = (epoch, batches)
        return batches

    def _plan(self, epoch: int) -> list[Indices]:
        """The batches of an epoch, as example numbers, in their order."""
        rng = generator(self._seed, epoch)
        batches = list(self._cut(self._pooled(rng.permutation(self.count))))
        return [batches[i] for i in rng.permutation(len(batches))]

    def _pooled(self, order: Indices) -> Indices:
        """``order`` sorted by length within pools, up and down in turn so that lengths do not jump between pools."""
        pools = []
        for number, start in enumerate(range(0, self.count, self._pool)):
            pool = order[start : start + self._pool]
            lengths = self.lengths[pool]
            pools.append(pool[np.argsort(lengths if number % 2 == 0 else -lengths, kind="stable")])
        return np.concatenate(pools)

    def _cut(self, order: Indices) -> Iterator[Indices]:
        """Consecutive runs of ``order``, each as long as the bound allows."""
        ends = np.cumsum(self.lengths[order])
        start, used = 0, 0
        while start < self.count:
            stop = int(np.searchsorted(ends, used + self._tokens, side="right"))
            if stop - start >= self._least:
                yield order[start:stop]
            start, used = stop, int(ends[stop - 1])


class Generated:
    """Data made on the fly: ``make(rng, batch)`` with the random numbers of (seed, step).

    The whole batch is made, then its share taken: any number of processes sees the same batch.
    """

    def __init__(self, make: Callable[[np.random.Generator, int], Batch], *, batch: int, seed: int) -> None:
        if batch < 1:
            raise InputError(f"batch size {batch}: expected 1 or more")
        self._make, self._batch, self._seed = make, batch, seed

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        return cut(self._make(generator(self._seed, step), self._batch), part, parts)


class Changed:
    """Another source's batches after ``change(batch, rng)``, which may draw (masks, noise, augmented views).

    As with ``Generated`` the whole batch is changed before its share is taken, so what is drawn for an example does not
    depend on the number of processes.
    """

    def __init__(self, source: Source, change: Callable[[Batch, np.random.Generator], Batch], *, seed: int) -> None:
        self._source, self._change, self._seed = source, change, seed

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        return cut(self._change(self._source.batch(step), generator(self._seed, step)), part, parts)
