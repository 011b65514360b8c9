"""What every objective is: tensors in, a ``Term`` out; it never sees a model, a rank or an optimiser.

Objectives add and scale: ``InfoNCE() + 0.5 * Distill()`` is an objective again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias, cast

from torch import Tensor, nn

from nextvec.types import Column, InputError, Outputs, Term

__all__ = ["Columns", "Objective", "Outputs", "Scaled", "Scope", "Sum"]

Columns: TypeAlias = Mapping[str, Column]
"""What the model was given, by name: a ``Batch``, or in tests any mapping."""
Scope = Literal["example", "batch"]


class Objective(nn.Module):
    """Base class. ``reads`` names the outputs it needs, ``columns`` the columns of the batch that it uses where they
    are there. ``scope`` says whether its sum may be taken over micro-batches ("example"), or whether every example
    depends on all others of the batch ("batch"): then what it reads and its columns are tensors with the examples
    in dimension 0, and it is given those of the whole batch of all processes."""

    reads: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    scope: Scope = "example"

    def forward(self, out: Outputs, batch: Columns) -> Term:
        """The term of this batch: a sum with gradient, the count it is over, and numbers for the log."""
        raise NotImplementedError

    def count(self, batch: Columns) -> float | None:
        """The count that ``forward`` will return for ``batch``, where the batch alone tells; else None.

        Accumulation divides by the count of the whole step before the first micro-batch's gradient is taken: an
        objective that knows its count spares the engine a forward pass.
        """
        return None

    def commit(self) -> None:
        """Move running state (queues, centres); called once per optimiser step. Most objectives have none."""

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Objective, dict[str, Tensor], dict[str, Column]]:
        """An instance with the outputs (leaves that want a gradient) and columns of ``rows`` examples, all small:
        what the contract tests run every objective on."""
        raise NotImplementedError

    def parts(self) -> Iterator[tuple[float, Objective]]:
        """The weighted objectives that this one is a sum of: (1, itself) unless it is a ``Sum`` or ``Scaled``."""
        yield 1.0, self

    def __call__(self, out: Outputs, batch: Columns) -> Term:
        missing = [name for name in self.reads if name not in out]
        if missing:
            raise InputError(
                f"{type(self).__name__} reads {missing[0]!r}, which the outputs lack (found: {', '.join(sorted(out))})"
            )
        return cast(Term, super().__call__(out, batch))

    def __add__(self, other: Objective) -> Sum:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum(self, other)

    def __mul__(self, weight: float) -> Scaled:
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            return NotImplemented
        return Scaled(self, float(weight))

    __rmul__ = __mul__


class Scaled(Objective):
    """``weight * objective``; the count stays, sum and logs' loss are scaled."""

    def __init__(self, inner: Objective, weight: float) -> None:
        super().__init__()
        self.inner, self.weight = inner, weight
        self.reads, self.columns, self.scope = inner.reads, inner.columns, inner.scope

    def count(self, batch: Columns) -> float | None:
        return self.inner.count(batch)

    def forward(self, out: Outputs, batch: Columns) -> Term:
        term = self.inner(out, batch)
        return Term(self.weight * term.sum, term.count, term.logs)

    def commit(self) -> None:
        self.inner.commit()

    def parts(self) -> Iterator[tuple[float, Objective]]:
        for weight, objective in self.inner.parts():
            yield self.weight * weight, objective


class Sum(Objective):
    """The sum of the terms' means.

    Its ``count`` is the largest of the terms' counts, and its ``sum`` that count times the added means. Where the
    counts differ this is exact for one batch only: accumulation over micro-batches adds each of ``parts`` by itself.
    """

    def __init__(self, *terms: Objective) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)
        self.reads = tuple(dict.fromkeys(name for term in terms for name in term.reads))
        self.columns = tuple(dict.fromkeys(name for term in terms for name in term.columns))
        self.scope = "batch" if any(term.scope == "batch" for term in terms) else "example"

    def _objectives(self) -> Iterator[Objective]:
        for term in self.terms:
            yield cast(Objective, term)

    def forward(self, out: Outputs, batch: Columns) -> Term:
        terms = [objective(out, batch) for objective in self._objectives()]
        count = max(term.count for term in terms)
        total = terms[0].mean
        for term in terms[1:]:
            total = total + term.mean
        logs: dict[str, float] = {}
        for term in terms:
            logs.update(term.logs)
        return Term(total * max(count, 1.0), count, logs)

    def commit(self) -> None:
        for objective in self._objectives():
            objective.commit()

    def parts(self) -> Iterator[tuple[float, Objective]]:
        for objective in self._objectives():
            yield from objective.parts()
