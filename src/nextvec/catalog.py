"""Names are files: what a folder of the package holds is what there is. No decorator, no list to edit."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from nextvec.types import NotFoundError, did_you_mean


def names(package: str) -> list[str]:
    """The modules of ``package`` ("nextvec.cli") in alphabetical order, found without importing them.

    Files that begin with an underscore are parts, not entries.
    """
    spec = find_spec(package)
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
