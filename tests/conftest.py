"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: a test that fails here fails everywhere, and one that passes does not fail tomorrow.
# To look for new ones: pytest --hypothesis-profile=default --hypothesis-seed=random
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
