"""PEG: beta = 0 is InfoNCE, weights grow as told, and the claim's world is what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.methods import _peg_claim as parts  # noqa: E402
from nextvec.methods.peg import Peg  # noqa: E402
from nextvec.objectives.info_nce import InfoNCE  # noqa: E402
from nextvec.types import InputError  # noqa: E402


def outputs(hard: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    names = ("query", "document", *(f"neg{i}" for i in range(hard)))
    return {name: torch.randn(4, 6, generator=random, dtype=torch.float64) for name in names}


def made(**options: object) -> Peg:
    method, _ = Peg.toy(0)
    return Peg(replace(method.config, **options))


def test_without_hardness_it_is_info_nce() -> None:
    out = outputs(2)
    ours = made(hardness=0.0).objective().double()(out, {}).mean
    plain = InfoNCE(temperature=0.05, own_negatives=("neg0", "neg1"), symmetric=False).double()(out, {}).mean
    torch.testing.assert_close(ours, plain)


def test_the_weights_are_those_of_the_formula() -> None:
    """Beside NumPy: three negatives of the batch and one of its own, weighed by how near they are."""
    out = outputs(1)
    unit = {name: (x / x.norm(dim=1, keepdim=True)).numpy() for name, x in out.items()}
    scores = np.concatenate([unit["query"] @ unit["document"].T, (unit["query"] * unit["neg0"]).sum(1)[:, None]], 1)
    losses = []
    for i in range(4):
        others = np.delete(scores[i], i)
        weights = len(others) * np.exp(2.0 * others) / np.exp(2.0 * others).sum()
        right = np.exp(scores[i, i] / 0.05)
        losses.append(-np.log(right / (right + (weights * np.exp(others / 0.05)).sum())))
    found = made(hard=1, hardness=2.0, ramp=0).objective().double()(out, {}).mean
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-6)


def test_hardness_grows_over_the_ramp() -> None:
    objective, out = made(hardness=3.0, ramp=4).objective().double(), outputs(2)
    seen = []
    for _ in range(6):
        seen.append(objective(out, {}).logs["hardness"])
        objective.commit()
    assert seen == pytest.approx([0.0, 0.75, 1.5, 2.25, 3.0, 3.0])


def test_the_share_of_wrong_negatives_is_the_document_itself() -> None:
    scale = replace(parts.SCALES["smoke"], wrong=0.5, noise=0.0, hard=1)
    world = parts.World(scale, 3)
    batch = world.batch(np.random.default_rng(0), 400, pool=400)
    latent = [(batch.tensor(n).double().numpy() @ world.turns[1].T)[:, :16] for n in ("document", "neg0")]
    same = np.abs(latent[0] - latent[1]).max(1) < 1e-5
    assert 0.4 < same.mean() < 0.6
    # The others lie near the same centre: nearer than documents of other rows.
    apart = (latent[0] * latent[1]).sum(1)[~same].mean()
    assert apart > (latent[0] * np.roll(latent[1], 1, axis=0)).sum(1).mean() + 0.2


def test_the_pool_adds_documents_and_no_queries() -> None:
    scale = replace(parts.SCALES["smoke"], hard=0)
    batch = parts.World(scale, 0).batch(np.random.default_rng(0), 64, pool=256)
    assert batch.tensor("pool").shape == (64, 3, 64)
    method = parts.Towers(parts.Towers.Config(hard=0, pool=True))
    out = method(batch)
    assert out["pool"].shape == (192, 24)
    fewer = {**out, "pool": out["pool"][:1]}
    losses = [method.objective()(given, batch).mean.item() for given in (out, fewer)]
    assert losses[0] > losses[1]  # more to be told apart


def test_training_on_the_world_finds_documents() -> None:
    from pathlib import Path

    from nextvec.types import Run

    scale = replace(parts.SCALES["smoke"], steps=150, hard=0)
    run = Run(0, Path(), Path(), lambda done, total: None)
    trained = parts._arm(run, scale=scale, pool=64)
    untrained = parts._arm(run, scale=replace(scale, steps=1, lr=0.0), pool=64)
    assert trained["mrr"] > untrained["mrr"] + 10


@pytest.mark.parametrize(("given", "words"), [({"hard": -1}, "hard is -1"), ({"hardness": -1.0}, "hardness -1.0")])
def test_settings_that_make_no_sense_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        made(**given)
