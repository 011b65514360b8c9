"""What every published method is: parts composed into a module, an objective, a card and a claim, in one file.

A method lives in ``nextvec/methods/NAME.py`` as the one class of the module that subclasses :class:`Method`. Nothing
else has to be edited: contract tests, the command line and the tables find it by file name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import nn

from nextvec.config import from_mapping, to_mapping
from nextvec.nn.save import new_folder
from nextvec.types import Batch, Card, Claim, InputError, NotFoundError, Outputs

if TYPE_CHECKING:
    from nextvec.data.sources import Source
    from nextvec.data.tokenizers import ByteTokenizer, TextTokenizer
    from nextvec.encoder import Encoder
    from nextvec.objectives.base import Objective

__all__ = ["Method"]


class Method(nn.Module):
    """Base class. ``Config`` is a keyword-only dataclass of settings, all with defaults; ``train_settings`` changes the
    engine's defaults where the method needs others ("optim.lr=2e-5"). ``direction`` names figures that the objective
    logs and training must move: "up" or "down" (the contract tests check that it does). ``tokenizer``: what the method
    reads texts with, where it does; saved with the weights. ``sample``: what it learns from, a kind of
    ``data.samples``; ``begins``: settings of a first run, where the method as it comes goes on from another
    ("stage=tokens")."""

    card: ClassVar[Card]
    Config: ClassVar[type[Any]]
    train_settings: ClassVar[tuple[str, ...]] = ()
    sample: ClassVar[str] = "texts"
    begins: ClassVar[tuple[str, ...]] = ()
    direction: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: Any, *, tokenizer: ByteTokenizer | TextTokenizer | None = None) -> None:
        super().__init__()
        if not isinstance(config, self.Config):
            raise InputError(f"{type(self).__name__} takes a {type(self).__name__}.Config, got {type(config).__name__}")
        self.config = config
        self.tokenizer = tokenizer

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

    def save(self, folder: Path) -> Path:
        """Write settings (method.json), weights (weights.safetensors) and the tokenizer to ``folder``, in place of what
        it held. Methods that need more to be used override ``write``."""
        with new_folder(folder, replace=True) as temporary:
            self.write(temporary)
        return folder

    def write(self, folder: Path) -> None:
        """The files of ``save``, into an empty folder."""
        from safetensors.torch import save_model

        from nextvec import __version__

        save_model(self, str(folder / "weights.safetensors"))
        settings = {"method": self.card.name, "nextvec": __version__, "config": to_mapping(self.config)}
        (folder / "method.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if self.tokenizer is not None:
            self.tokenizer.save(folder)

    @staticmethod
    def name_in(folder: Path) -> str:
        """The name of the method saved in ``folder``."""
        return str(_settings(folder)["method"])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What ``save`` wrote. InputError for another method's folder, or weights that do not fit."""
        from safetensors import SafetensorError
        from safetensors.torch import load_model

        from nextvec.data.tokenizers import load_tokenizer

        settings = _settings(folder)
        if settings["method"] != cls.card.name:
            raise InputError(f"{str(folder)!r} holds a {settings['method']!r}, not a {cls.card.name!r}")
        method = cls(from_mapping(cls.Config, settings.get("config") or {}))
        path = folder / "weights.safetensors"
        if not path.is_file():
            raise NotFoundError(f"{str(path)!r} is missing: the folder does not hold a complete model")
        try:
            load_model(method, str(path))
        except (SafetensorError, RuntimeError, ValueError) as error:
            first = " ".join(str(error).split())[:200]
            raise InputError(f"{str(path)!r} does not hold this method's weights: {first}") from error
        if any((folder / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json")):
            method.tokenizer = load_tokenizer(folder)
        return method.eval()

    @classmethod
    def of_run(cls, run: str | Path) -> Self:
        """What a run (``OUT``, or ``OUT/model``) of this method has trained."""
        folder = Path(run)
        return cls.load(folder / "model" if (folder / "model" / "method.json").is_file() else folder)

    def go_on_from(self, run: str | Path) -> None:
        """Take the weights that a run of this method has trained. InputError where its shapes are others."""
        before = type(self).of_run(run)
        own, theirs = ({n: v.shape for n, v in one.state_dict().items()} for one in (self, before))
        if own != theirs:
            raise InputError(f"{str(run)!r} holds a model of another shape: give the same settings")
        self.load_state_dict(before.state_dict())

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


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "method.json"
    if not path.is_file():
        raise NotFoundError(f"{str(path)!r} is missing: {str(folder)!r} is not the model/ folder of a training run")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{str(path)!r} is not valid JSON: damaged or truncated") from error
    if not isinstance(values, dict) or "method" not in values:
        raise InputError(f"{str(path)!r} names no method: damaged, or not written by nextvec")
    return values
