"""The engine's tests share small models; torch is needed for all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the engine needs torch: pip install 'nextvec[hf]'")
sys.path.insert(0, str(Path(__file__).parent))
