"""What cannot be trained on is told in one line that says what came and what was expected."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_methods import Rows, Small
from torch import Tensor, nn

from nextvec.engine import checkpoint
from nextvec.engine.accumulate import backward
from nextvec.engine.engine import Engine, TrainConfig
from nextvec.engine.parallel import Parallel
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig
from nextvec.objectives.next_token import NextToken, predicted, text_of
from nextvec.types import Batch, InputError, Ragged, StorageError


class Language(nn.Module):
    """A tiny causal model with the outputs that ``NextToken`` reads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Transformer(TransformerConfig(vocab=7, dim=8, layers=1, heads=2))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        text, prompt = text_of(batch)
        return {"logits": self.backbone.logits(self.backbone(text)[predicted(text, prompt)])}


def text(*sequences: list[int], **more: Tensor) -> Batch:
    flat = torch.tensor([token for sequence in sequences for token in sequence], dtype=torch.int64)
    return Batch({"text": Ragged(flat, torch.tensor([len(sequence) for sequence in sequences])), **more})


def train(batch: Batch) -> None:
    backward(Parallel(Language()), NextToken(), [batch])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Batch({}), "a batch needs columns of one length"),
        (lambda: Batch({"a": torch.zeros(2), "b": torch.zeros(3)}), "columns of one length"),
        (lambda: Batch({"a": torch.zeros(0, 4)}), "an empty batch"),
        (lambda: Ragged(torch.zeros(3), torch.tensor([1, 1])), "lengths .* add up to 2, but there are 3"),
        (lambda: text([1, 2]).split([1, 1]), "do not divide a batch of 1"),
        (lambda: text([1, 2]).tensor("text"), "'text' is ragged"),
        (lambda: text([1, 2]).ragged("txet"), "lacks the column 'txet'"),
        (lambda: train(text([1, 9, 2])), "token id 9 is outside the vocabulary of 7"),
        (lambda: train(text([1, -1, 2])), "token id -1 is outside the vocabulary"),
        (lambda: train(text([1, 2], [])), "one token in each"),
        (lambda: train(text([1], [2])), "nothing in this step counts"),
        (lambda: train(text([1, 2, 3], prompt=torch.tensor([3]))), "nothing in this step counts"),
        (lambda: train(text([1, 2, 3], prompt=torch.tensor([4]))), "a prompt of 4 tokens and a text of 3"),
        (lambda: train(text([1, 2, 3], prompt=torch.tensor([1.0]))), "expected int64"),
        (lambda: train(Batch({"text": Ragged(torch.randn(3, 8), torch.tensor([3]))})), "token ids: Ragged, int64"),
        (lambda: train(Batch({"query": torch.zeros(2, 8)})), "need a batch column 'text'"),
        (lambda: NextToken()({"logits": torch.zeros(5, 7)}, text([1, 2, 3])), r"expected \[2, vocabulary\]"),
    ],
)
def test_batches_that_cannot_be(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_a_masked_row_among_others_is_only_left_out() -> None:
    torch.manual_seed(0)
    model = Language()
    with_row = backward(Parallel(model), NextToken(), [text([1, 2, 3], [4, 5], prompt=torch.tensor([1, 2]))]).loss
    without = backward(Parallel(model), NextToken(), [text([1, 2, 3], prompt=torch.tensor([1]))]).loss
    assert with_row == pytest.approx(without, rel=1e-5)


def test_a_full_disk_while_saving_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    engine = Engine(Small(Small.Config()), TrainConfig(steps=4, batch=4, save_every=1), device="cpu")
    engine.step(Rows(4).batch(0))
    engine.save(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "dcp_save", full)
    with pytest.raises(StorageError, match="the disk is full"):
        engine.fit(Rows(4), folder=tmp_path)
    monkeypatch.undo()
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    assert checkpoint.read_info(newest)["step"] == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


_LONG = """
import sys
sys.path.insert(0, sys.argv[1])
import torch; torch.set_num_threads(1)
import small_methods, nextvec.catalog
nextvec.catalog.find = lambda package, name: small_methods.Small
sys.argv = ["nextvec", "train", "small", "--data", ".", "--out", sys.argv[2], "--set", "steps=1000000"]
from nextvec.cli.main import main
main()
"""


def test_ctrl_c_saves_and_exits_with_130(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", _LONG, str(Path(__file__).parent), str(out)]
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    for _ in range(3000):
        if (out / "log.jsonl").exists() and (out / "log.jsonl").stat().st_size:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    newest = checkpoint.latest(out)
    assert newest is not None
    assert int(checkpoint.read_info(newest)["step"]) > 0
