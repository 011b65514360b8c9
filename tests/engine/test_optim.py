"""Optimisers: who goes where, bit-equal continuation from saved state, and Muon against two references."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine needs torch: pip install 'nextvec[hf]'")

from torch import nn  # noqa: E402

from nextvec.config import from_mapping  # noqa: E402
from nextvec.engine.optim import (  # noqa: E402
    Muon,
    OptimConfig,
    Optimizers,
    is_table,
    make_optimizer,
    orthogonalise,
    uses_muon,
)
from nextvec.types import InputError  # noqa: E402


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.inner = nn.Linear(8, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)
        self.frozen = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(torch.tanh(self.inner(self.tokens(ids)))))


def made(name: str = "adamw", **settings: float) -> tuple[Small, Optimizers]:
    torch.manual_seed(0)
    model = Small()
    return model, make_optimizer(model.named_parameters(), from_mapping(OptimConfig, {"name": name, **settings}))


def train(model: Small, optimizers: Optimizers, steps: range) -> list[float]:
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 11, (16,), generator=generator)
        loss = nn.functional.cross_entropy(model(ids), ids % 3)
        optimizers.zero_grad()
        loss.backward()
        optimizers.set_lr(1 / (1 + step / 20))
        optimizers.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_saved_state_continues_bit_for_bit(name: str) -> None:
    whole, optimizers = made(name, lr=0.05)
    train(whole, optimizers, range(8))
    first, optimizers = made(name, lr=0.05)
    train(first, optimizers, range(4))
    weights = {k: v.clone() for k, v in first.state_dict().items()}
    state = {k: v.clone() for k, v in optimizers.state_tensors().items()}
    second, optimizers = made(name, lr=0.05)
    second.load_state_dict(weights)
    optimizers.load_state_tensors(state)
    train(second, optimizers, range(4, 8))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_made_early_changes_nothing(name: str) -> None:
    plain, optimizers = made(name)
    train(plain, optimizers, range(3))
    early, optimizers = made(name)
    before = set(optimizers.state_tensors())
    train(early, optimizers, range(3))
    assert set(optimizers.state_tensors()) == before
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), early.parameters(), strict=True))


def test_state_goes_by_the_names_of_what_is_trained() -> None:
    _, optimizers = made("muon")
    keys = set(optimizers.state_tensors())
    assert {"optim.tokens.weight.exp_avg", "optim.tokens.weight.step", "optim.inner.weight.momentum_buffer"} <= keys
    assert not any("frozen" in key or key.startswith("optim.inner.weight.exp_avg") for key in keys)


def test_state_is_taken_up_strictly() -> None:
    _, optimizers = made()
    state = {k: v.clone() for k, v in optimizers.state_tensors().items()}
    key = "optim.inner.weight.exp_avg"
    with pytest.raises(InputError, match=r"lacks 'optim\.inner\.weight\.exp_avg'"):
        optimizers.load_state_tensors({k: v for k, v in state.items() if k != key})
    with pytest.raises(InputError, match=r"\[6, 7\]; expected \[6, 8\]"):
        optimizers.load_state_tensors(state | {key: torch.zeros(6, 7)})
    with pytest.raises(InputError, match=r"optim\.other\.step"):
        optimizers.load_state_tensors(state | {"optim.other.step": torch.zeros(())})
    wrong = {k: v + 1 for k, v in state.items()}
    with pytest.raises(InputError):
        optimizers.load_state_tensors({**wrong, "optim.norm.bias.exp_avg_sq": torch.zeros(1)})
    assert all(torch.equal(v, state[k]) for k, v in optimizers.state_tensors().items())


def test_first_step_of_adamw_by_hand() -> None:
    # After one step both moments are bias-corrected to g and g^2: w <- w (1 - lr wd) - lr g / (|g| + eps).
    matrix, vector, table = (nn.Parameter(torch.tensor(v)) for v in ([[2.0, -4.0]], [2.0, -4.0], [[2.0, -4.0]]))
    named = [("inner.weight", matrix), ("inner.bias", vector), ("embed.weight", table)]
    optimizers = make_optimizer(named, OptimConfig(lr=0.1, weight_decay=0.5, eps=1e-12))
    for parameter in (matrix, vector, table):
        parameter.grad = torch.tensor([3.0, -0.1]).view_as(parameter)
    optimizers.step()
    np.testing.assert_allclose(matrix.detach(), [[2 * 0.95 - 0.1, -4 * 0.95 + 0.1]], rtol=1e-6)
    np.testing.assert_allclose(vector.detach(), [2 - 0.1, -4 + 0.1], rtol=1e-6)  # no decay on vectors
    np.testing.assert_allclose(table.detach(), [[2 - 0.1, -4 + 0.1]], rtol=1e-6)  # nor on tables


def test_the_factor_multiplies_each_groups_own_rate() -> None:
    _, optimizers = made("muon", lr=0.01, muon_lr=0.2)
    for factor in (0.5, 0.25):
        optimizers.set_lr(factor)
        rates = {type(o).__name__: {g["lr"] for g in o.param_groups} for o in optimizers.optimisers}
        assert rates == {"AdamW": {0.01 * factor}, "Muon": {0.2 * factor}}
    _, optimizers = made("muon", lr=0.01)
    assert {g["lr"] for o in optimizers.optimisers for g in o.param_groups} == {0.01}


@pytest.mark.parametrize(
    ("name", "shape", "muon"),
    [
        ("blocks.0.qkv.weight", (6, 8), True),
        ("blocks.0.head_mix.weight", (6, 8), True),
        ("tokens.weight", (11, 8), False),
        ("model.embed_tokens.weight", (11, 8), False),
        ("positions.table.weight", (11, 8), False),
        ("transformer.wte.weight", (11, 8), False),
        ("lm_head.weight", (11, 8), False),
        ("head.weight", (3, 6), False),
        ("blocks.0.norm.weight", (8,), False),
        ("scorer.weight", (1, 8), False),
        ("stem.weight", (4, 3, 2, 2), False),
    ],
)
def test_muon_takes_hidden_matrices_only(name: str, shape: tuple[int, ...], muon: bool) -> None:
    assert uses_muon(name, torch.zeros(shape)) is muon


def test_muon_splits_the_model_and_reduces_the_loss() -> None:
    model, optimizers = made("muon", lr=0.05)
    by_kind = {type(o): {id(p) for g in o.param_groups for p in g["params"]} for o in optimizers.optimisers}
    assert by_kind[Muon] == {id(model.inner.weight)}
    assert len(by_kind[torch.optim.AdamW]) == 6
    before = model.inner.weight.detach().clone()
    losses = train(model, optimizers, range(60))
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])
    assert not torch.equal(before, model.inner.weight)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (8, 8)])
def test_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(3).standard_normal(shape)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(torch.tensor(matrix, dtype=torch.float32)).double().numpy()
    diagonal = u.T @ found @ vt.T  # the same singular vectors, so this is diagonal
    values = np.diag(diagonal)
    assert s.max() / s.min() > 2
    assert values.min() > 0.6 and values.max() < 1.25
    np.testing.assert_allclose(diagonal, np.diag(values), atol=1e-4)
    assert orthogonalise(torch.zeros(shape)).abs().max() == 0


@pytest.mark.parametrize("shape", [(10, 4), (4, 10)])
def test_muon_follows_torch_up_to_its_bfloat16(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.02, momentum=0.9, weight_decay=0.1)
    peer = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        mine.step()
        peer.step()
    moved = (theirs - start).norm()
    assert moved > 0.05
    assert (ours - theirs).norm() < 0.03 * moved


def test_update_of_muon_is_as_large_as_adamws() -> None:
    torch.manual_seed(0)
    matrix = nn.Parameter(torch.zeros(40, 20))
    matrix.grad = torch.randn(40, 20)
    Muon([matrix], lr=1.0, momentum=0.95, weight_decay=0.0).step()
    assert 0.15 < matrix.detach().square().mean().sqrt() < 0.25  # 0.2, as arXiv 2502.16982 has it


def test_bad_input_is_named() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(InputError, match="two parameters are named 'a'"):
        make_optimizer([("a", weight), ("a", nn.Parameter(torch.zeros(2)))], OptimConfig())
    with pytest.raises(InputError, match="'b' and 'a' are one parameter"):
        make_optimizer([("a", weight), ("b", weight)], OptimConfig())
    with pytest.raises(InputError, match="none of 0 parameters"):
        make_optimizer([], OptimConfig())
    with pytest.raises(InputError, match="none of 1 parameters"):
        make_optimizer([("a", nn.Parameter(torch.zeros(2), requires_grad=False))], OptimConfig())
    with pytest.raises(InputError, match="did you mean 'adamw'"):
        OptimConfig(name="adam")
    for settings in ({"lr": -1.0}, {"lr": math.nan}, {"betas": (0.9, 1.0)}, {"betas": (0.9,)}, {"momentum": 1.0}):
        with pytest.raises(InputError, match=next(iter(settings))):
            OptimConfig(**settings)
    with pytest.raises(InputError, match="takes matrices"):
        Muon([nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.9, weight_decay=0.0)


def test_tables_are_known_by_name() -> None:
    assert is_table("shared.weight") and is_table("word_embeddings.weight") and is_table("positions.table.weight")
    assert not is_table("blocks.3.mlp.up.weight") and not is_table("stable.weight") and not is_table("head.weight")
