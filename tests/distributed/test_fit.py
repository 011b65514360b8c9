"""A whole run in two processes: who prepares the data, who writes, and that the weights are those of one process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import small_methods
import torch
import work
from safetensors.torch import load_file

if TYPE_CHECKING:
    from pool import Pool


def test_two_processes_train_what_one_does(pool: Pool, tmp_path: Path) -> None:
    """DDP, micro-batches, a checkpoint in the middle: the weights of one process, to rounding."""
    package = tmp_path / "dropped_methods"
    package.mkdir()
    (package / "__init__.py").write_text("")
    shutil.copy(small_methods.__file__, package / "small.py")
    settings = ["steps=6", "dropout=0", "save_every=3", "micro=2", "batch=7"]
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert work.fit_small(str(tmp_path), one, settings) == 6
    assert pool.run("work", "fit_small", str(tmp_path), two, settings) == [6, 6]
    left, right = (load_file(Path(folder) / "model" / "weights.safetensors") for folder in (one, two))
    assert left.keys() == right.keys()
    assert all(torch.allclose(left[name], right[name], atol=1e-6) for name in left)
    assert len(list(Path(two).glob("step-*"))) == 2
