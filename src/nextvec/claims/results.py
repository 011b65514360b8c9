"""Results of claims as files: reading them back, and as rows for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nextvec.files import storage_error
from nextvec.types import InputError, NotFoundError

__all__ = [
    "KIND",
    "NOT_RUN",
    "SCHEMA",
    "Scale",
    "best",
    "inequality",
    "interval",
    "number",
    "read_result",
    "read_results",
    "table_rows",
]

Scale: TypeAlias = Literal["smoke", "cpu", "gpu"]
KIND = "claim"
SCHEMA = 1
NOT_RUN = "not run here"
_ORDER = ("gpu", "cpu", "smoke")
_FIELDS = ("method", "card", "statement", "scale", "seeds", "verdict", "checks", "arms", "command")


def read_result(path: Path) -> dict[str, Any] | None:
    """The claim's result at ``path``; None where there is no such file or it holds something else (a benchmark).

    InputError for a file that is damaged or of another version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not valid JSON ({error}): remove it, or make it again") from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        return None
    lacking = [name for name in _FIELDS if name not in found]
    if found.get("schema") != SCHEMA or lacking:
        what = f"lacks {lacking[0]!r}" if lacking else f"has schema {found.get('schema')!r}"
        raise InputError(f"{str(path)!r} {what}; expected a claim of schema {SCHEMA}: reproduce it again")
    return found


def read_results(folder: Path) -> dict[Path, dict[str, Any]]:
    """All claims' results below ``folder`` by path, sorted by method and scale; the runs they were made from and files
    of other kinds are passed over."""
    if not folder.is_dir():
        raise NotFoundError(f"no folder {str(folder)!r} with results: name it with --results")
    found = {}
    for path in sorted(folder.rglob("*.json")):
        if any(part.endswith(".runs") for part in path.relative_to(folder).parts):
            continue
        if (result := read_result(path)) is not None:
            found[path] = result
    return dict(sorted(found.items(), key=lambda item: (item[1]["method"], _ORDER.index(item[1]["scale"]))))


def best(results: Mapping[Path, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each method its result at the largest scale."""
    found: dict[str, dict[str, Any]] = {}
    for result in results.values():
        found.setdefault(result["method"], result)
    return found


def interval(values: Mapping[str, Any] | None) -> str:
    """``0.912 [0.88, 0.944]``; without the brackets where one seed gives no interval."""
    if values is None:
        return ""
    mean = number(values["mean"])
    return mean if values["low"] is None else f"{mean} [{number(values['low'])}, {number(values['high'])}]"


def number(value: float) -> str:
    """Four significant digits at most, whole numbers whole."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def table_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: one row per measure, one column per arm, the paper's figure in parentheses."""
    arms = result["arms"]
    names = dict.fromkeys(name for arm in arms.values() for kind in ("measures", "paper") for name in arm[kind])
    rows = []
    for name in names:
        cells = []
        for arm in arms.values():
            ours = interval(arm["measures"].get(name))
            paper = f"(paper {number(arm['paper'][name])})" if name in arm["paper"] else ""
            cells.append(" ".join(filter(None, (ours, paper))) or "–")
        rows.append([name, *cells])
    return ["measure", *arms], rows


def inequality(check: Mapping[str, Any]) -> str:
    """``nextlat.accuracy - gpt.accuracy > 0.05``."""
    worse = check["worse"] if isinstance(check["worse"], str) else number(check["worse"])
    if isinstance(check["worse"], str):
        return f"{check['better']} - {worse} > {number(check['margin'])}"
    return f"{check['better']} > {number(check['worse'] + check['margin'])}"
