"""The results of all claims as one Markdown page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nextvec.claims.results import inequality, interval, read_results, table_rows
from nextvec.files import atomic_write
from nextvec.types import NotFoundError

__all__ = ["render", "write_report"]

_HEAD = """\
# Results

Made by `nextvec report` from the JSON files of the claims; [claims](claims.md) says how a verdict is computed. Every
claim is a paper's central figure at a size that runs here: the method, its baselines and a control, each with several
seeds. Figures are means over seeds with their 95 % t interval in brackets; the paper's own, made at the paper's size,
stand in parentheses.
"""


def write_report(results: Path, out: Path) -> int:
    """Write the page ``out`` from the claims below ``results``; how many there were. NotFoundError for none."""
    found = read_results(results)
    if not found:
        raise NotFoundError(f"{str(results)!r} holds no result of a claim: make one with nextvec reproduce NAME --out")
    with atomic_write(out, "w") as stream:
        stream.write(render(found, beside=out.parent))
    return len(found)


def render(results: Mapping[Path, Mapping[str, Any]], *, beside: Path) -> str:
    """The page; pictures are named relative to the folder ``beside``, where it will lie."""
    rows = [
        [
            f"[{result['card']['name']}](#{_anchor(result)})",
            _cell(result["card"]["family"]),
            _cell(result["statement"]),
            result["scale"],
            str(len(result["seeds"])),
            f"**{result['verdict']}**",
        ]
        for result in results.values()
    ]
    parts = [_HEAD, _table(["method", "family", "claim", "scale", "seeds", "verdict"], rows)]
    parts += [_section(result, path, beside) for path, result in results.items()]
    return "\n".join(parts)


def _section(result: Mapping[str, Any], path: Path, beside: Path) -> str:
    card = result["card"]
    paper = f", [arXiv:{card['arxiv']}](https://arxiv.org/abs/{card['arxiv']})" if card["arxiv"] else ""
    headers, rows = table_rows(result)
    parts = [
        f'<a id="{_anchor(result)}"></a>\n',
        f"## {card['name']} ({result['scale']} scale)\n",
        f"*{card['title']}*, {card['year']}{paper}.\n",
        f"{result['statement']}\n",
        f"**Verdict: {result['verdict']}.**\n",
        _checks(result["checks"]),
        _table([_cell(header) for header in headers], [[_cell(cell) for cell in row] for row in rows]),
    ]
    if result.get("plot"):
        place = Path(os.path.relpath(path.parent / result["plot"], beside)).as_posix()
        parts.append(f"![{card['name']}: means with intervals, per arm]({place})\n")
    if card["differs"]:
        parts.append("Not as in the paper:\n")
        parts.append("".join(f"- {text}\n" for text in card["differs"]))
    parts += [f"{_origin(result)}\n", f"    {result['command']}\n"]
    return "\n".join(parts)


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    """A row per check; where there were seeds enough for a rank test, a column of its p."""
    tested = any("wilcoxon" in check for check in checks)
    headers = ["what the paper says", "here it must hold that", "difference", "verdict"]
    rows = []
    for check in checks:
        verdict = f"{check['verdict']} ({check['note']})" if check["note"] else str(check["verdict"])
        row = [_cell(check["says"]), f"`{_cell(inequality(check))}`", interval(check["difference"]) or "–"]
        p = [f"{check['wilcoxon']:.2g} ({check['holm']:.2g})" if "wilcoxon" in check else "–"] if tested else []
        rows.append([*row, *p, _cell(verdict)])
    return _table([*headers[:3], *(["Wilcoxon's p (Holm)"] if tested else []), headers[3]], rows)


def _origin(result: Mapping[str, Any]) -> str:
    """Where and when it was made, in a sentence."""
    hardware, commit = result["hardware"], result["commit"]
    machine = f"{hardware['cpu']}, {hardware['cores']} core{'' if hardware['cores'] == 1 else 's'}"
    machine += f", {', '.join(hardware['gpu'])}" if hardware["gpu"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    source = f"; commit `{commit['hash'][:12]}`{' with changes' if commit['dirty'] else ''}" if commit else ""
    seeds = ", ".join(map(str, result["seeds"]))
    return (
        f"Seeds {seeds}; {duration(result['run_seconds'])} of runs on {machine}; {versions}{source}; "
        f"{result['date'][:10]}. To make it again:"
    )


def duration(seconds: float) -> str:
    """``42 s``, ``12 min``, ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _anchor(result: Mapping[str, Any]) -> str:
    return f"{result['method']}-{result['scale']}"


def _cell(text: str) -> str:
    """Text that cannot break out of its cell."""
    return " ".join(text.replace("|", "\\|").split())


def _table(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
