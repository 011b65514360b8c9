"""SESA: what its loss is, concepts read from records, explanations that add up, and the synthetic world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.engine.engine import Engine, TrainConfig  # noqa: E402
from nextvec.engine.optim import OptimConfig  # noqa: E402
from nextvec.methods._sesa_claim import SCALES, Data, World, _measures, jaccard, make  # noqa: E402
from nextvec.methods.sesa import Sesa  # noqa: E402
from nextvec.objectives.info_nce import InfoNCE  # noqa: E402
from nextvec.types import InputError  # noqa: E402

SKILLS = {
    "python": "snakes and scripts",
    "law": "courts and contracts",
    "music": "songs and tunes",
    "farming": "corn and cows",
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"query": f"{number} {words}", "document": f"they want {words} {number}", "concepts": [name]}
        for name, words in SKILLS.items()
        for number in ("one", "two", "three")
    ]
    del rows[0]["concepts"]
    rows[1]["query_concepts"] = ["python", "law", "python"]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(**changes: object) -> Sesa.Config:
    return Sesa.Config(depth=2, vocab=300, max_length=24, **changes)


def test_concepts_are_read_where_they_are_known(data: Path, tmp_path: Path) -> None:
    method, source = Sesa.prepare(data, settings(), batch=12, seed=0, folder=tmp_path)
    assert method.config.concepts == ("farming", "law", "music", "python")
    batch = source.batch(0)
    query, document = (batch.tensor(f"{kind}_concepts") for kind in ("query", "document"))
    assert int((query < 0).all(1).sum()) == int((document < 0).all(1).sum()) == 1
    assert sorted(query.sum(1).tolist()) == [-4.0, *[1.0] * 10, 2.0]
    few, _ = Sesa.prepare(data, settings(most=2), batch=12, seed=0, folder=tmp_path)
    assert few.config.concepts == ("farming", "law")


def test_the_loss_is_ranking_and_concepts(data: Path, tmp_path: Path) -> None:
    method, source = Sesa.prepare(data, settings(weight=0.5), batch=12, seed=0, folder=tmp_path)
    batch = source.batch(0)
    out = method(batch)
    expected = float(InfoNCE(temperature=0.05)(out, batch).mean.detach())
    for kind in ("query", "document"):
        z, y = out[f"{kind}_logits"].detach().numpy(), batch.tensor(f"{kind}_concepts").numpy()
        rows = [
            np.log1p(np.exp(-a[b == 1])).mean() + np.log1p(np.exp(a[b == 0])).mean()
            for a, b in zip(z, y, strict=True)
            if b.min() >= 0
        ]
        expected += 0.5 * np.mean(rows)
    terms = method.objective().parts()
    total = sum(weight * float(part(out, batch).mean.detach()) for weight, part in terms)
    assert total == pytest.approx(expected, rel=1e-5)


def test_axes_learn_their_names_and_explain_a_match(data: Path, tmp_path: Path) -> None:
    method, source = Sesa.prepare(data, settings(), batch=12, seed=0, folder=tmp_path)
    Engine(method, TrainConfig(steps=120, batch=12, optim=OptimConfig(lr=3e-3))).fit(source)
    method.eval()
    found = method.concepts(list(SKILLS.values()))
    names = [method.config.concepts[i] for i in found.argmax(1)]
    assert names == list(SKILLS)
    why = method.explain("two courts and contracts", "they want courts and contracts one", k=4)
    assert why[0][0] == "law" and why[0][1] > 0.5
    one, two = method.concepts(["two courts and contracts", "they want courts and contracts one"])
    cosine = float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
    assert sum(share for _, share in why) == pytest.approx(cosine, rel=1e-5)
    np.testing.assert_allclose(
        method.encoder().encode(["songs and tunes"], normalize=False, precision="fp32"),
        method.concepts(["songs and tunes"]),
        atol=1e-5,
    )


def test_what_cannot_be_used_is_named(data: Path, tmp_path: Path) -> None:
    rows = [{"query": f"a {i}", "document": f"b {i}"} for i in range(4)]
    for changed, words in (
        ({}, "no record has 'concepts'"),
        ({"concepts": "law"}, r"pairs\.jsonl:1: concepts are 'law'; expected a list"),
        ({"concepts": [3]}, "expected a list of names"),
    ):
        data.write_text("".join(json.dumps({**row, **changed}) + "\n" for row in rows))
        with pytest.raises(InputError, match=words):
            Sesa.prepare(data, settings(), batch=4, seed=0, folder=tmp_path)
    with pytest.raises(InputError, match="expected at least one, each once"):
        Sesa(settings(concepts=("a", "a")))


def test_the_world_is_what_it_says() -> None:
    world = World(SCALES["smoke"], 0)
    made = make(world, np.random.default_rng(0), np.arange(40) % 2 == 0)
    for one, two, yes in zip(made.concepts["query"], made.concepts["document"], made.relevant, strict=True):
        assert (jaccard(one, two) >= 0.3) == yes
    words = set(made.texts.queries[0].split())
    of_its_own = {word for k in made.concepts["query"][0] for word in world.words[k]}
    assert words <= of_its_own | set(world.noise) and words & of_its_own and words & set(world.noise)
    of_all = [word for own in world.words for word in own]
    assert len(of_all) == 12 * 9 and len(set(of_all)) <= 40, "several concepts have a word"
    assert len(set(world.noise)) == 40 and not set(world.noise) & set(of_all)


def test_measures_by_hand() -> None:
    """Three pairs: the relevant ones score 1 and 0, the other one 0.6; axes right for half of what there is."""
    sides = [np.array([[1.0, 0, 0], [1, 0, 0], [3, 4, 0]]), np.array([[2.0, 0, 0], [0, 1, 0], [1, 0, 0]])]
    own = [np.array([0]), np.array([0]), np.array([0])]
    tests = Data(None, {"query": own, "document": own}, np.array([True, True, False]))
    assert _measures(sides, tests) == pytest.approx({"auc": 50.0, "axes": 100 * 4 / 6})
