"""Names are files: what a folder of the package holds is what there is. No decorator, no list to edit."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from nextvec.extras import EXTRAS, require
from nextvec.types import Card, InputError, NotFoundError, did_you_mean


def names(package: str) -> list[str]:
    """The modules of ``package`` ("nextvec.cli") in alphabetical order, found without importing them.

    Files that begin with an underscore are parts, not entries.
    """
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:  # of the package that it should lie in
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(f"{package!r} is not a package")
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    return sorted({path.stem for folder in folders for path in folder.glob("*.py") if not path.stem.startswith("_")})


def load(package: str, name: str) -> ModuleType:
    """The module ``name`` of ``package``; NotFoundError, with the closest name, where there is none."""
    known = names(package)
    if name not in known:
        raise NotFoundError(f"no {name!r} in {package}; there are {', '.join(known)}{did_you_mean(name, known)}")
    return import_module(f"{package}.{name}")


def find(package: str, name: str) -> Any:
    """The method in the file ``name`` of ``package``: the one class written there that has a ``card`` of its own.

    NotFoundError where there is no such file, InputError where it holds none or several, MissingExtraError (one line
    that names the extra) where what it imports is not installed.
    """
    try:
        module = load(package, name)
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if any(top in modules for modules in EXTRAS.values()):
            require(top, why=f"the method {name!r}")
        raise
    found = {value for value in vars(module).values() if isinstance(value, type) and _is_method(value, module)}
    if len(found) != 1:
        had = ", ".join(sorted(value.__name__ for value in found)) or "no method"
        raise InputError(f"{package}.{name} holds {had}; exactly one class with a card of its own is expected there")
    return found.pop()


def cards(package: str) -> dict[str, Card]:
    """The card of every method of ``package``, by file name. Imports them all."""
    return {name: find(package, name).card for name in names(package)}


def _is_method(value: type, module: ModuleType) -> bool:
    return value.__module__ == module.__name__ and isinstance(vars(value).get("card"), Card)
