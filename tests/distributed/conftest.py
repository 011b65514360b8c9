"""One pool of two processes for all files here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install 'nextvec[hf]'")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "engine")]

if TYPE_CHECKING:
    from pool import Pool


@pytest.fixture(scope="package")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Two Gloo processes."""
    from pool import Pool

    running = Pool(tmp_path_factory.mktemp("gloo"))
    yield running
    running.close()
