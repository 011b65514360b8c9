"""Whether a library is there, without importing it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def need(module: str, reason: str = "") -> None:
    """Skip the file that says so where ``module`` is not installed. ``pytest.importorskip`` imports it, for seconds, in
    each process that reads the file: all do, and one runs it."""
    if find_spec(module) is None:
        pytest.skip(reason or f"{module} is not installed", allow_module_level=True)
