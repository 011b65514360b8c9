"""Mixed hard negatives, beside NumPy and by what they must do."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="objectives need torch: pip install 'nextvec[hf]'")

from nextvec.objectives.info_nce import InfoNCE  # noqa: E402
from nextvec.objectives.mixing import MixedNegatives  # noqa: E402
from nextvec.types import InputError  # noqa: E402

B, D = 4, 6
HARD = ("neg0", "neg1", "neg2")


def made(**options: object) -> MixedNegatives:
    inner = InfoNCE(own_negatives=HARD, temperature=0.2, in_batch=False, symmetric=False)
    return MixedNegatives(inner.double(), temperature=0.2, **options)


def outputs() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {n: torch.randn(B, D, generator=random, dtype=torch.float64) for n in ("query", "document", *HARD)}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_loss_is_that_of_the_formulas() -> None:
    out, objective = outputs(), made(pairs=2)
    q, d, *n = (unit(out[name].numpy()) for name in ("query", "document", *HARD))
    near = [unit(share * n[j] + (1 - share) * n[k]) for j, k, share in objective.draw()]
    cosines = np.stack([(q * rows).sum(1) for rows in n], 1) / 0.2
    weights = np.exp(cosines) / np.exp(cosines).sum(1, keepdims=True)
    near.append(unit(sum(weights[:, [h]] * n[h] for h in range(3))))
    scores = np.stack([(q * rows).sum(1) for rows in (d, *n, *near)], 1) / 0.2
    expected = (np.log(np.exp(scores).sum(1)) - scores[:, 0]).mean()
    assert float(objective(out, {}).mean) == pytest.approx(expected)


def test_mixtures_have_length_one_and_lie_between() -> None:
    out, objective = outputs(), made(pairs=3)
    mixtures = objective.mixtures(out["query"], [out[name] for name in HARD])
    assert len(mixtures) == 4
    near = {h: torch.nn.functional.normalize(out[f"neg{h}"], dim=-1) for h in range(3)}
    for rows, (j, k, share) in zip(mixtures, objective.draw(), strict=False):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(B, dtype=torch.float64))
        assert j != k and 0 < share < 1
        least = (near[j] * near[k]).sum(1)
        assert bool(((rows * near[j]).sum(1) >= least - 1e-12).all())
        assert bool(((rows * near[k]).sum(1) >= least - 1e-12).all())


def test_they_make_the_task_harder_and_none_leaves_it_as_it_is() -> None:
    out = outputs()
    plain = InfoNCE(own_negatives=HARD, temperature=0.2, in_batch=False, symmetric=False).double()
    assert float(made(pairs=2)(out, {}).mean) > float(plain(out, {}).mean)
    none = made(pairs=0, whole=False)
    torch.testing.assert_close(none(out, {}).mean, plain(out, {}).mean)


def test_draws_depend_on_seed_and_step_alone() -> None:
    one, other = made(seed=3), made(seed=3)
    first = one.draw()
    assert first == other.draw() == one.draw()
    one.commit()
    assert one.draw() != first
    other.load_state_dict(one.state_dict())  # as a resumed run does
    assert other.draw() == one.draw()
    assert made(seed=4).draw() != first


def test_gradients() -> None:
    objective, out = made(pairs=1, whole=False), outputs()
    names = list(out)
    leaves = [x.requires_grad_() for x in out.values()]
    assert torch.autograd.gradcheck(lambda *x: objective(dict(zip(names, x, strict=True)), {}).mean, leaves)


@pytest.mark.parametrize("given", [{"pairs": -1}, {"temperature": 0.0}])
def test_what_makes_no_sense_is_refused(given: dict[str, float]) -> None:
    inner = InfoNCE(own_negatives=HARD, symmetric=False)
    with pytest.raises(InputError):
        MixedNegatives(inner, **given)
    with pytest.raises(InputError, match="a pair needs two"):
        MixedNegatives(InfoNCE(own_negatives=("neg0",), symmetric=False), pairs=1)
