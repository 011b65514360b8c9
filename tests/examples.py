"""How many examples hypothesis tries."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def examples(usual: int, thorough: int) -> int:
    """``usual``; with ``--thorough`` as many as ``thorough``."""
    return thorough if settings.default is settings.get_profile("thorough") else usual


def of_an_api(usual: int, thorough: int) -> settings:
    """For requests that a specification gives: each takes as long as it takes, and nothing is kept."""
    return settings(
        max_examples=examples(usual, thorough),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
