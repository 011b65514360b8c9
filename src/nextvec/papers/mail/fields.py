"""What the forms of mail offer, and what an address has filled in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from nextvec.papers import languages
from nextvec.papers.mail.schedule import WEEKDAYS, WEEKENDS, zones
from nextvec.papers.mail.subscriptions import KINDS, MOST, USUAL

__all__ = ["address_of", "choices", "chosen"]


def choices() -> dict[str, Any]:
    """What there is to choose from. ``languages``: (tag, name) with a reader's own tag among them."""
    return {
        "languages": languages.names,
        "kinds": KINDS,
        "weekdays": WEEKDAYS,
        "weekends": WEEKENDS,
        "zones": zones(),
        "usual": USUAL,
        "most": MOST,
    }


def chosen(values: Mapping[str, str]) -> dict[str, Any]:
    """What was chosen, as the templates read it. ``about``: the address that says the same."""
    kind = values.get("kind") or next((name for name in ("topic", "author", "org") if values.get(name)), "digest")
    kind = "search" if values.get("q") and "kind" not in values else kind
    return {"values": defaultdict(str, values), "kind": kind, "about": address_of(values), **choices()}


def address_of(values: Mapping[str, str]) -> str:
    """The part of a query string that says which papers: it goes from the form to the preview and back."""
    names = ("kind", "q", "topic", "author", "org", "source", "category", "votes", "code", "every", "most")
    pairs = urlencode({name: values[name] for name in names if values.get(name)})
    return f"?{pairs}" if pairs else ""
