"""KaLM-Embedding-V2: the loss is the sum of its parts, the teacher's vectors stay with their texts, nested weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.encoder import Encoder  # noqa: E402
from nextvec.methods.kalm import WEIGHTS, Kalm, taught_columns, teach  # noqa: E402
from nextvec.objectives.distill import DistillSimilarities  # noqa: E402
from nextvec.objectives.info_nce import InfoNCE, ReweightedInfoNCE  # noqa: E402
from nextvec.objectives.mixing import MixedNegatives  # noqa: E402
from nextvec.text_method import toy_pairs  # noqa: E402
from nextvec.types import InputError  # noqa: E402

NAMES = ("query", "document", "neg0", "neg1")


def given() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    out = {name: torch.randn(5, 32, generator=random) for name in NAMES}
    return out, {f"teacher_{name}": torch.randn(5, 7, generator=random) for name in NAMES}


def made(**options: object) -> Kalm:
    method, _ = Kalm.toy(0)
    return Kalm(replace(method.config, **{"dims": (), **options}))


def test_without_ingredients_it_is_info_nce_with_hard_negatives() -> None:
    out, batch = given()
    plain = InfoNCE(temperature=0.05, own_negatives=("neg0", "neg1"), symmetric=False)
    ours = made(gamma=0.0, pairs=0, whole=False, teacher="").objective()
    torch.testing.assert_close(ours(out, batch).mean, plain(out, batch).mean)


def test_with_all_it_is_the_sum_of_its_parts_on_every_width() -> None:
    out, batch = given()
    inner = ReweightedInfoNCE(focal=0.5, temperature=0.05, own_negatives=("neg0", "neg1"), symmetric=False)
    contrast = MixedNegatives(inner, pairs=2, whole=True, temperature=0.05, seed=0)
    follow = DistillSimilarities(negatives=("neg0", "neg1"), temperature=0.05)
    expected = 0.0
    for width, weight in zip((32, 8), WEIGHTS, strict=False):
        cut = {name: x[:, :width] for name, x in out.items()}
        expected += weight * float(0.5 * contrast(cut, batch).mean + 2.0 * follow(cut, batch).mean)
    method = made(dims=(8,), contrast=0.5, distil=2.0)
    assert float(method.objective()(out, batch).mean) == pytest.approx(expected, rel=1e-5)
    assert method.nested() == ([8, 32], [])


def test_the_teachers_vectors_stay_with_their_texts(tmp_path: Path) -> None:
    pairs = toy_pairs()
    rows = [{"query": q, "document": d} for q, d in zip(pairs.queries, pairs.documents, strict=True)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = Kalm.Config(depth=1, vocab=300, hard=2, teacher="nextvec-mini")
    method, source = Kalm.prepare(path, config, batch=5, seed=0, folder=tmp_path)
    batch, teacher = source.batch(0), Encoder.load("nextvec-mini")
    for name in NAMES:
        ids = [x.tolist() for x in torch.split(batch.ragged(name).values, batch.ragged(name).lengths.tolist())]
        texts = method.text_tokenizer().decode(ids)
        np.testing.assert_allclose(batch.tensor(f"teacher_{name}").numpy(), teacher.encode(texts), atol=1e-5)
    # What the teacher mined answers another query.
    assert not (batch.tensor("teacher_neg0") == batch.tensor("teacher_document")).all(1).any()


def test_no_teacher_no_columns() -> None:
    assert taught_columns(None, np.zeros((3, 2), dtype=np.int64)) == {}
    assert sorted(teach("nextvec-mini", toy_pairs())) == ["document", "query"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": (32,)}, r"dims \[32\] must be from 1 to below the base's width, 32"),
        ({"dims": (1, 2, 3, 4, 5)}, "5 nested widths; expected at most 4"),
        ({"contrast": 0.0, "teacher": ""}, "expected weights of which one is positive"),
        ({"gamma": -1.0}, "focal -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        made(**options)
