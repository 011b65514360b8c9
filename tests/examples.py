"""How many examples hypothesis tries."""

from __future__ import annotations

from hypothesis import settings


def examples(usual: int, thorough: int) -> int:
    """``usual``; with ``--thorough`` as many as ``thorough``."""
    return thorough if settings.get_current_profile_name() == "thorough" else usual
