"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from postgresql_server import running

# The same examples in every run: a test that fails here fails everywhere, and one that passes does not fail tomorrow.
# To look for new ones: pytest --hypothesis-profile=default --hypothesis-seed=random
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

WHOLE = {"test_accounts_proposals", "test_browser", "test_cli", "test_search", "test_search_steering"}
"""Files that read the site over all bundled papers, which takes half a minute to make: one process runs them all."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile`` a process takes a file at a time, and ``WHOLE`` as if it were one."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "whole" if Path(file).stem in WHOLE else file

    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file that makes that site where another process makes it too is told of."""
    reading = {item.path.stem for item in items if "whole_home" in getattr(item, "fixturenames", ())}
    if reading - WHOLE:
        raise pytest.UsageError(f"{', '.join(sorted(reading - WHOLE))}: name it in WHOLE of tests/conftest.py")


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
