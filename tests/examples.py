"""How many examples hypothesis tries."""

from __future__ import annotations

from hypothesis import settings


def examples(usual: int, thorough: int) -> int:
    """``usual``; with ``--thorough`` as many as ``thorough``."""
    return thorough if settings.default is settings.get_profile("thorough") else usual
