"""Training a method on one's own data: from a name, a file and settings to a folder with the trained model.

run.yaml        method, data and every setting, resolved: repeats the run
data/           what was prepared from the data (tokenizer, token file)
step-00001000/  checkpoints, whole or not there
log.jsonl       loss, rates and the objective's own figures by step
model/          the trained weights with the method's settings; encoder/ where the method makes one
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nextvec import catalog, config
from nextvec.engine import dist
from nextvec.engine.engine import Engine, Report, TrainConfig
from nextvec.engine.method import Method
from nextvec.files import atomic_write
from nextvec.types import ConflictError, InputError, did_you_mean

if TYPE_CHECKING:
    from nextvec.data.sources import Source

__all__ = ["METHODS", "Plan", "Trained", "fit", "load_method", "plan", "read_plan"]

METHODS = "nextvec.methods"
_MAY_CHANGE = ("save_every", "keep", "log_every", "micro", "strategy", "compile", "tensorboard", "wandb")


@dataclass(kw_only=True)
class Plan:
    """A resolved run: what ``run.yaml`` holds. ``config`` is an instance of the method's own ``Config``."""

    method: str
    data: Path
    config: Any
    train: TrainConfig = field(default_factory=TrainConfig)

    def mapping(self) -> dict[str, Any]:
        """For YAML."""
        return {
            "method": self.method,
            "data": str(self.data),
            "config": config.to_mapping(self.config),
            "train": config.to_mapping(self.train),
        }


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run: the method with its trained weights, where it lies, and the last report."""

    method: Method
    folder: Path
    report: Report


def plan(method: str, data: str | Path, changes: Iterable[str] = (), *, package: str = METHODS) -> Plan:
    """The plan of ``method`` on ``data`` with ``key=value`` changes, each a setting of the method or of training
    ("horizon=4", "steps=2000", "lr=1e-3", "schedule.name=wsd"). InputError for an unknown key, with the closest."""
    cls = catalog.find(package, method)
    made = Plan(method=method, data=Path(data), config=cls.Config())
    made.train = config.override(made.train, cls.train_settings)
    return _changed(made, cls, changes)


def _changed(made: Plan, cls: type[Method], changes: Iterable[str]) -> Plan:
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"{change!r} is not a setting; expected key=value")
        home, dotted = _home(cls.Config, key)
        setattr(made, home, config.override(getattr(made, home), [f"{dotted}={value}"]))
    return made


def _home(own: type[Any], key: str) -> tuple[str, str]:
    """Which of the two groups a setting belongs to, and its dotted name there."""
    first = key.partition(".")[0]
    names = [f.name for f in dataclasses.fields(own)]
    train = [f.name for f in dataclasses.fields(TrainConfig)]
    if first in ("config", "train"):
        return first, key.partition(".")[2]
    if first in names:
        return "config", key
    if first in train:
        return "train", key
    inner = {}
    for group in ("optim", "schedule"):
        fields = dataclasses.fields(getattr(TrainConfig(), group))
        inner.update({f.name: f"{group}.{f.name}" for f in fields if f.name != "name"})
    if first in inner:
        return "train", inner[first]
    known = [*names, *train, *inner]
    raise InputError(f"unknown setting {key!r}; known: {', '.join(known)}{did_you_mean(first, known)}")


def read_plan(path: Path, changes: Iterable[str] = (), *, package: str = METHODS) -> Plan:
    """The plan in a ``run.yaml``, with changes."""
    values = _read_yaml(path)
    cls = catalog.find(package, str(values["method"]))
    kept = Plan(
        method=str(values["method"]),
        data=Path(str(values["data"])),
        config=config.from_mapping(cls.Config, values.get("config") or {}),
        train=config.from_mapping(TrainConfig, values.get("train") or {}),
    )
    return _changed(kept, cls, changes)


def fit(
    method: str | Plan,
    data: str | Path | None = None,
    *,
    out: str | Path,
    set: Iterable[str] = (),
    resume: bool = False,
    device: str = "auto",
    package: str = METHODS,
    on_step: Callable[[Report], None] | None = None,
) -> Trained:
    """Train ``method`` (a name, or a ``Plan``) on ``data`` into the folder ``out``.

    set: ``key=value`` settings; resume: go on with a run that ``out`` holds, from its newest whole checkpoint;
    device: "cpu", "cuda" or "auto". Under torchrun each process trains its share. Raises ConflictError where ``out``
    holds a run and ``resume`` is false, InputError for data or settings that cannot be used.
    """
    if isinstance(method, str):
        if data is None:
            raise InputError(f"fit({method!r}) needs data: name a file or folder")
        method = plan(method, data, set, package=package)
    folder = Path(out)
    with dist.process_group(device) as own_device:
        wanted = method
        cls = catalog.find(package, method.method)
        new = dist.together(lambda: _claim_folder(folder, wanted, resume=resume), first_only=True)
        try:
            made, source = _prepare(cls, method, folder)
        except BaseException:
            if new and dist.rank() == 0:
                _forget(folder)
            raise
        engine = Engine(made, method.train, device=own_device)
        report = engine.fit(source, folder=folder, info={"plan": method.mapping()}, on_step=on_step)
        if dist.rank() == 0:
            _export(engine, folder)
        dist.barrier()
    return Trained(made, folder, report)


def load_method(folder: str | Path, *, package: str = METHODS) -> Method:
    """The trained method in ``OUT/model`` (or ``OUT``), ready to use."""
    path = Path(folder)
    path = path / "model" if (path / "model" / "method.json").is_file() else path
    cls = catalog.find(package, Method.name_in(path))
    loaded: Method = cls.load(path)
    return loaded


def _claim_folder(folder: Path, wanted: Plan, *, resume: bool) -> bool:
    """Refuse to mix two runs in one folder; write ``run.yaml`` before anything is made of the data. True for a new run.
    For one process."""
    path = folder / "run.yaml"
    known = path.is_file()
    if known:
        if not resume:
            raise ConflictError(f"{str(folder)!r} holds a run: go on with --resume, or choose another folder")
        _same_run(_read_yaml(path), wanted.mapping(), path)
    elif any(folder.glob("step-*")):
        raise ConflictError(f"{str(folder)!r} holds checkpoints without a run.yaml: choose another folder")
    with atomic_write(path, "w") as stream:
        yaml.safe_dump(wanted.mapping(), stream, sort_keys=False, allow_unicode=True)
    return not known


def _forget(folder: Path) -> None:
    """Remove what a new run left whose data could not be used: with other settings, it would be in the way."""
    (folder / "run.yaml").unlink(missing_ok=True)
    shutil.rmtree(folder / "data", ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{str(path)!r} is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict) or not {"method", "data"} <= set(values):
        raise InputError(f"{str(path)!r} is not a run: expected the keys method, data, config and train")
    return values


def _same_run(kept: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    """InputError where a resumed run would not be the one that was begun. More steps may be asked for only where
    the schedule does not depend on their number."""
    free = (*_MAY_CHANGE, "steps") if wanted["train"]["schedule"]["name"] == "constant" else _MAY_CHANGE
    for group in ("method", "data", "config", "train"):
        before, now = (values.get(group) for values in (kept, wanted))
        if not isinstance(before, Mapping) or not isinstance(now, Mapping):
            if before != now:
                raise InputError(f"{str(path)!r} is a run with {group} {before!r}, not {now!r}: choose another folder")
            continue
        for key, value in now.items():
            if key not in free and before.get(key) != value:
                raise InputError(
                    f"{str(path)!r}: {key} was {before.get(key)!r} and is now {value!r}; a run goes on with the "
                    "settings it began with: drop the change, or choose another folder"
                )


def _prepare(cls: type[Method], wanted: Plan, folder: Path) -> tuple[Method, Source]:
    """The method and its source; the first process prepares the files that the others read."""
    train = wanted.train
    made: list[tuple[Method, Source]] = []

    def prepare() -> None:
        if not made:
            data = folder / "data"
            made.append(cls.prepare(wanted.data, wanted.config, batch=train.batch, seed=train.seed, folder=data))

    dist.together(prepare, first_only=True)
    dist.together(prepare)
    return made[0]


def _export(engine: Engine, folder: Path) -> None:
    averaged = engine.average.applied() if engine.average is not None else contextlib.nullcontext()
    with averaged:
        engine.method.eval()
        engine.method.save(folder / "model")
        encoder = engine.method.encoder()
        if encoder is not None and not (folder / "encoder").exists():
            encoder.save(folder / "encoder")
