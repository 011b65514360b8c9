"""Records of training: a line of JSON per logged step always; TensorBoard and Weights & Biases where asked for."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol, Self

from nextvec.extras import require
from nextvec.files import atomic_write, storage_error
from nextvec.types import InputError, NextvecError

__all__ = ["FILE", "Loggers"]

FILE = "log.jsonl"


class _Sink(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Loggers:
    """Where a run's numbers go. One process of a run opens it."""

    def __init__(self, sinks: list[_Sink]) -> None:
        self._sinks = sinks
        self._last = -1

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        resumed: int = 0,
        tensorboard: bool = False,
        wandb: bool = False,
        run_info: Mapping[str, Any],
    ) -> Self:
        """Log into ``folder``. resumed: the step that the run goes on from; what is recorded of later steps (by a run
        that was killed) is dropped, so that no step comes twice. run_info: settings, for TensorBoard and W&B.

        StorageError where the folder cannot be written, MissingExtraError where a logger is not installed.
        """
        sinks: list[_Sink] = [_Jsonl(folder, resumed)]
        if tensorboard:
            sinks.append(_TensorBoard(folder, resumed, run_info))
        if wandb:
            sinks.append(_Wandb(folder, run_info))
        return cls(sinks)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of ``step``. Steps must not go back. What is not finite is null in the JSON."""
        if step < self._last:
            raise InputError(f"step {step} was logged after step {self._last}: steps must not go back")
        self._last = step
        for sink in self._sinks:
            sink.log(step, values)

    def close(self) -> None:
        """Write out what is pending; nothing may be logged after."""
        for sink in self._sinks:
            sink.close()
        self._sinks = []


class _Jsonl:
    """One JSON object per line: ``{"step": 10, "loss": 0.5, ...}``. Each line is whole once ``log`` returns."""

    def __init__(self, folder: Path, resumed: int) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self._forget_after(resumed)
            self._stream: IO[str] = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise storage_error(error, self.path) from error

    def _forget_after(self, step: int) -> None:
        """Keep the lines up to ``step``; a line that a crash cut short goes too."""
        with self.path.open(encoding="utf-8", errors="replace") as old, atomic_write(self.path, "w") as new:
            for line in old:
                try:
                    entry = json.loads(line)
                    kept = line.endswith("\n") and int(entry["step"]) <= step
                except (ValueError, TypeError, KeyError, RecursionError):
                    kept = False
                if kept:
                    new.write(line)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        entry: dict[str, float | None] = {"step": step}
        entry |= {name: float(v) if math.isfinite(v) else None for name, v in values.items() if name != "step"}
        try:
            self._stream.write(json.dumps(entry, allow_nan=False) + "\n")
            self._stream.flush()
        except OSError as error:
            raise storage_error(error, self.path) from error

    def close(self) -> None:
        try:
            self._stream.close()
        except OSError as error:
            raise storage_error(error, self.path) from error


class _TensorBoard:
    def __init__(self, folder: Path, resumed: int, run_info: Mapping[str, Any]) -> None:
        require("tensorboard", why="logging to TensorBoard")
        board = require("torch.utils.tensorboard", why="logging to TensorBoard")
        # Events of an earlier run after purge_step are hidden from the plots.
        self._writer = board.SummaryWriter(str(folder / "tensorboard"), purge_step=resumed + 1)
        if not resumed:
            self._writer.add_text("run", f"```\n{json.dumps(run_info, indent=2, default=str)}\n```", 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A resumed run goes on under the name it had, which is kept in ``folder/wandb-id``. Steps that W&B already has are
    passed over there; an exact resume would only repeat them."""

    def __init__(self, folder: Path, run_info: Mapping[str, Any]) -> None:
        wandb = require("wandb", why="logging to Weights & Biases")
        file = folder / "wandb-id"
        if not file.exists():
            with atomic_write(file, "w") as stream:
                stream.write(uuid.uuid4().hex[:12])
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "nextvec"),
                dir=str(folder),
                id=file.read_text(encoding="utf-8").strip(),
                resume="allow",
                config=dict(run_info),
            )
        except Exception as error:  # its errors share no documented base
            raise NextvecError(
                f"Weights & Biases cannot start: {str(error).partition(chr(10))[0]}; log in with `wandb login`, or set "
                "WANDB_MODE=offline to keep the record in the folder"
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
