"""Fixtures of the claims' tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from method_files import FIXED, PACKAGE, Methods


@pytest.fixture
def methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Methods]:
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Methods(tmp_path)
    yield made
    made.forget()
    sys.modules.pop(PACKAGE, None)


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed: where the plot does not matter it would take most of the time."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture
def fixed(methods: Methods) -> Callable[[], list[str]]:
    """The method "fake", whose arms return fixed numbers; gives the runs it did."""
    methods.write("fake", FIXED)
    return methods.runs
