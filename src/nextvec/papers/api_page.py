"""The page for people about the interface for programs, read out of its specification: the two cannot disagree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from nextvec.papers.api import specification

__all__ = ["Endpoint", "Parameter", "endpoints"]

_EXAMPLES = {
    "/daily_papers": ("/api/daily_papers?week=2025-W09&sort=trending&limit=10", "list_daily_papers(week='2025-W09')"),
    "/papers": ("/api/papers?limit=100", None),
    "/papers/search": ("/api/papers/search?q=latent+reasoning&code=1", "list_papers(query='latent reasoning')"),
    "/papers/search/facets": ("/api/papers/search/facets?q=robots&year=2026", None),
    "/papers/{id}": ("/api/papers/2412.06769", "paper_info('2412.06769')"),
    "/papers/{id}/similar": ("/api/papers/2412.06769/similar?limit=5", None),
    "/papers/{id}/vote": ("/api/papers/2412.06769/vote", None),
    "/views/{view}": ("/api/views/trending?half=7&category=cs.CL", None),
    "/lists": ("/api/lists", None),
    "/lists/{list}": ("/api/lists/LIST", None),
    "/lists/{list}/papers": ("/api/lists/LIST/papers", None),
    "/lists/{list}/papers/{id}": ("/api/lists/LIST/papers/2412.06769", None),
}
"""By path: an address to ask, and the call of the Hub's client for the same thing, where it has one."""
_BODIES = {"/lists": {"name": "To read"}, "/lists/{list}/papers": {"id": "2412.06769", "note": "See figure 3"}}
"""By path: what a POST there sends."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as the page shows it. ``default`` is empty where there is none."""

    name: str
    values: str
    default: str
    about: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of the interface as the page shows it. ``call``: a method of ``HfApi``, or None; ``scope``: of the
    token that it needs, or None; ``body``: an example of what it takes, or None."""

    method: str
    path: str
    title: str
    about: str
    parameters: list[Parameter]
    example: str
    call: str | None
    scope: str | None
    body: str | None


def endpoints() -> list[Endpoint]:
    """What the interface offers, in the order of its specification."""
    return [
        Endpoint(
            method.upper(),
            f"/api{path}",
            operation["summary"],
            operation["description"],
            [_parameter(parameter) for parameter in operation.get("parameters", [])],
            *_EXAMPLES[path],
            None if {} in operation["security"] else operation["security"][0]["token"][0],
            json.dumps(_BODIES[path]) if "requestBody" in operation else None,
        )
        for path, operations in specification()["paths"].items()
        for method, operation in operations.items()
    ]


def _parameter(parameter: dict[str, Any]) -> Parameter:
    schema = parameter["schema"]
    default = schema.get("default")
    return Parameter(
        parameter["name"],
        _values(schema),
        "" if default in (None, "", []) else str(default).lower() if isinstance(default, bool) else str(default),
        parameter.get("description", ""),
    )


def _values(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(filter(None, [", ".join(schema["enum"][:-1]), schema["enum"][-1]]))
    if "minimum" in schema:
        return f"{schema['minimum']:,} to {schema['maximum']:,}"
    if schema.get("type") == "boolean":
        return "true or false"
    if "maxLength" in schema:
        return f"up to {schema['maxLength']} characters"
    return f"such as {schema['examples'][0]}" if schema.get("examples") else "text"
