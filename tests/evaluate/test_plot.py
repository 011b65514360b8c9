"""Quality against bytes and layers: what is averaged, and that the picture shows it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nextvec.evaluate.leaderboard import leaderboard
from nextvec.evaluate.plot import draw, points
from nextvec.types import InputError


def result(
    task: str,
    value: float,
    *,
    dim: int | None = 64,
    layers: int | None = None,
    dtype: str = "float32",
    kind: str = "sts",
) -> Any:
    record = {
        "model": "m" if dim else "bm25",
        "dtype": dtype,
        "dim": dim,
        "layers": layers,
        "bytes": None if dim is None else dim * (4 if dtype == "float32" else 1),
        "measures": {"spearman": {"mean": value, "low": value - 0.1, "high": value + 0.1}},
    }
    return SimpleNamespace(task=SimpleNamespace(name=task, slug=task, kind=kind, main="spearman"), record=record)


def test_a_point_is_the_mean_over_the_tasks_of_a_kind() -> None:
    found = [[result("a", 0.2), result("b", 0.6), result("c", 0.5, kind="words"), result("a", 0.3, dim=32)]]
    one, other = points(found)  # 32 values were measured on a alone: no mean like the others
    assert (one.kind, one.dim, one.bytes, one.low) == ("sts", 64, 256, None)
    assert one.value == pytest.approx(0.4)
    assert (other.kind, other.value, other.low, other.high) == ("words", 0.5, 0.4, 0.6)


def test_what_has_no_vectors_is_no_point(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to plot"):
        pytest.importorskip("matplotlib")
        draw([[result("a", 0.2, dim=None)]], tmp_path / "p.png")


def test_the_picture_names_its_lines(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sizes = [{"dim": dim, "dtype": code} for dim in (32, 64) for code in ("float32", "int8")]
    found = [[result("a", 0.1 + i / 10, **size) for i, size in enumerate(sizes)], [result("a", 0.9, layers=2)]]
    draw(found, tmp_path / "p.svg")
    shown = (tmp_path / "p.svg").read_text()
    for words in ("sts: a, spearman", "m, all layers, int8", "m, 2 layers, float32", "bytes of a vector", ">layers<"):
        assert words in shown
    with pytest.raises(InputError, match=r"'p.gif'; expected one that ends in \.png or \.svg"):
        draw(found, tmp_path / "p.gif")
    assert not (tmp_path / "p.gif").exists()


def test_a_table_marks_the_best_and_what_reaches_it() -> None:
    found = [[result("a", 0.50, dim=32), result("b", 0.3, dim=32)], [result("a", 0.55), result("b", 0.8)]]
    text = leaderboard([*found, [result("a", 0.2, dim=None)]])
    assert "| model | bytes | a (spearman) | b (spearman) | mean |" in text
    assert "| m, 32 values | 128 | **50.0 ± 10.0** | 30.0 ± 10.0 | 40.0 |" in text
    assert "| m, 64 values | 256 | **55.0 ± 10.0** | **80.0 ± 10.0** | 67.5 |" in text
    assert "| bm25 |  | 20.0 ± 10.0 |  |  |" in text  # no mean over a part of the tasks
