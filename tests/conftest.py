"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from postgresql_server import running

# The same examples in every run: a test that fails here fails everywhere, and one that passes does not fail tomorrow.
# To look for new ones: pytest --hypothesis-profile=default --hypothesis-seed=random
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--papers-database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="what the homes of the papers' tests keep their rows in",
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of an empty database of a PostgreSQL server; skips where there is none."""
    with running() as address:
        yield address
