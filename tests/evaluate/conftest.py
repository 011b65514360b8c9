"""Sets that may not be redistributed: a test that needs one skips, with the reason, where it is absent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nextvec.data.catalog import find


@pytest.fixture
def needs() -> Callable[[str], None]:
    def check(name: str) -> None:
        if find(name) is None:
            pytest.skip(f"the data set {name!r} is not on this machine (set NEXTVEC_DATA)")

    return check
