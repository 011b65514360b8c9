"""What every published method is: parts composed into a module, an objective, a card and a claim, in one file.

A method lives in ``nextvec/methods/NAME.py`` as the one class of the module that subclasses :class:`Method`. Nothing
else has to be edited: contract tests, the command line and the tables find it by file name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from torch import nn

from nextvec.types import Batch, Card, Claim, InputError, Outputs

if TYPE_CHECKING:
    from nextvec.encoder import Encoder
    from nextvec.objectives.base import Objective

__all__ = ["Method", "Source"]


class Source(Protocol):
    """Where batches come from: a function of the step alone, so that resuming needs no state.

    ``batch(step, part=p, parts=n)`` is the p-th of n contiguous shares of that step's batch.
    """

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        """The batch of ``step`` (from 0), or a share of it."""
        ...


class Method(nn.Module):
    """Base class. ``Config`` is a keyword-only dataclass of settings, all with defaults."""

    card: ClassVar[Card]
    Config: ClassVar[type[Any]]

    def __init__(self, config: Any) -> None:
        super().__init__()
        if not isinstance(config, self.Config):
            raise InputError(f"{type(self).__name__} takes a {type(self).__name__}.Config, got {type(config).__name__}")
        self.config = config

    def forward(self, batch: Batch) -> Outputs:
        """What the objective reads, by name. May loop."""
        raise NotImplementedError

    def objective(self) -> Objective:
        """What is minimised. Called once per engine; parameters of the objective are trained too."""
        raise NotImplementedError

    def encoder(self) -> Encoder | None:
        """What is exported, served and evaluated, where the method makes one."""
        return None

    def after_step(self, step: int) -> None:
        """Moves what is not trained by gradient (EMA targets, curricula); once per optimiser step, from 1."""

    def flops_per_item(self) -> float | None:
        """Floating-point operations of forward and backward per item (token) of the batch, where known: for MFU."""
        return None

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """A tiny, dropout-free instance and a batch of it: what the contract tests run."""
        raise NotImplementedError

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """An instance and a source of batches for a user's own data. What is costly or must not change between runs
        (a trained tokenizer, a token file) is kept in ``folder``. InputError says what the data should look like."""
        raise NotImplementedError

    @staticmethod
    def claim(scale: str) -> Claim:
        """The paper's central figure at ``scale`` "smoke" (seconds), "cpu" (minutes) or "gpu"."""
        raise NotImplementedError
