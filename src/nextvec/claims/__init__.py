"""Claims: a paper's central figure, run here with baselines and seeds, and judged by intervals.

``reproduce`` runs the claim of one method; ``methods`` lists the cards of all. See docs/claims.md.
"""

from __future__ import annotations

from nextvec import catalog
from nextvec.claims.reproduction import METHODS, reproduce
from nextvec.types import Card

__all__ = ["METHODS", "methods", "reproduce"]


def methods(package: str = METHODS) -> list[Card]:
    """The card of every method, in alphabetical order of their files."""
    return list(catalog.cards(package).values())
