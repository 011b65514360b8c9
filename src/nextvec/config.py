"""Settings as dataclasses: to and from YAML, changed by ``key=value``, unknown keys refused with the closest name."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nextvec.files import atomic_write
from nextvec.types import InputError, did_you_mean

C = TypeVar("C")


def from_mapping(cls: type[C], values: Mapping[str, Any], *, where: str = "") -> C:
    """An instance of the dataclass ``cls``; nested dataclasses take nested mappings. Types are checked.

    Raises InputError naming the dotted key for an unknown key or a value of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    made = {}
    for key, value in values.items():
        dotted = f"{where}{key}"
        if key not in known:
            raise InputError(f"unknown setting {dotted!r}; known: {', '.join(known)}{did_you_mean(str(key), known)}")
        made[key] = _convert(hints[key], value, dotted)
    return cls(**made)


def to_mapping(config: Any) -> dict[str, Any]:
    """The dataclass as plain mappings and lists, ready for YAML or JSON."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def load(cls: type[C], path: Path, *, overrides: Iterable[str] = ()) -> C:
    """Read ``path`` (YAML) into ``cls``, then apply ``key=value`` overrides."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{str(path)!r} is not valid YAML: {str(error).splitlines()[0]}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the settings {str(path)!r}: {error}") from error
    if not isinstance(values, Mapping):
        raise InputError(f"{str(path)!r} holds a {type(values).__name__}, expected keys and values")
    return override(from_mapping(cls, values), overrides)


def save(config: Any, path: Path) -> None:
    """Write ``config`` to ``path`` as YAML, atomically."""
    with atomic_write(path, "w") as stream:
        yaml.safe_dump(to_mapping(config), stream, sort_keys=False, allow_unicode=True)


def override(config: C, changes: Iterable[str]) -> C:
    """``config`` with changes such as ``"lr=0.1"`` or ``"optim.betas=[0.9, 0.95]"`` (values in YAML)."""
    values = to_mapping(config)
    for change in changes:
        dotted, equals, text = change.partition("=")
        if not equals or not dotted:
            raise InputError(f"{change!r} is not a setting; expected key=value")
        *outer, last = dotted.split(".")
        target = values
        for key in outer:
            if not isinstance(target.get(key), dict):
                raise InputError(f"unknown setting {dotted!r}{did_you_mean(key, target)}")
            target = target[key]
        try:
            target[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"{change!r}: the value is not valid YAML") from error
    return from_mapping(type(config), values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(arg for arg in args if arg is not type(None)), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(typing.cast("type[Any]", hint), value, where=f"{where}.")
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        items = [_convert(args[0], item, where) for item in value]
        return tuple(items) if origin is tuple else items
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        # YAML reads 1e-3 (no dot) as a text; people mean the number.
        try:
            return float(value)
        except ValueError:
            pass
    expected = origin or hint
    if expected is Any or (isinstance(value, expected) and not (expected is int and isinstance(value, bool))):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise InputError(f"setting {where!r} is {value!r} ({type(value).__name__}); expected {name}")
