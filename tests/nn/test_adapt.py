"""Checkpoints as trainable backbones: equal to transformers, causal or not as asked, adapters merged when saved."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="backbones need torch: pip install 'nextvec[hf]'")
transformers = pytest.importorskip("transformers", reason="backbones need transformers: pip install 'nextvec[hf]'")

sys.path.insert(0, str(Path(__file__).parents[1] / "encoder"))

from tiny_models import configs, make_tokenizer  # noqa: E402
from torch import Tensor  # noqa: E402

from nextvec import Encoder  # noqa: E402
from nextvec.extras import available  # noqa: E402
from nextvec.nn.backbones.adapt import Adapted, LoRAConfig  # noqa: E402
from nextvec.types import (  # noqa: E402
    ConflictError,
    InputError,
    MissingExtraError,
    NextvecError,
    NotFoundError,
    Ragged,
)

needs_peft = pytest.mark.skipif(not available("peft"), reason="needs peft: pip install 'nextvec[lora]'")
CAUSAL = ("llama", "qwen3", "gpt2", "mistral", "gemma3")
BOTH_WAYS = ("bert", "roberta", "modernbert")


def more_configs() -> dict[str, Any]:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    grouped = {"vocab_size": 64, "num_key_value_heads": 2, **small}
    return {
        "gpt2": transformers.GPT2Config(
            vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0
        ),
        "mistral": transformers.MistralConfig(sliding_window=4, **grouped),
        "gemma3": transformers.Gemma3TextConfig(head_dim=8, sliding_window=4, **grouped),
        "experts": transformers.Qwen3MoeConfig(
            head_dim=8, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, **grouped
        ),
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, made = tmp_path_factory.mktemp("checkpoints"), {}
    transformers.utils.logging.disable_progress_bar()
    for name, config in {**configs(), **more_configs()}.items():
        torch.manual_seed(7)
        model = transformers.AutoModel.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.mul_(4)  # so that tokens do look at one another
        made[name] = root / name
        model.save_pretrained(made[name])
        make_tokenizer(made[name], special=name in BOTH_WAYS)
    return made


IDS, LENGTHS = [5, 9, 22, 7, 31, 8, 11, 40, 41, 6, 17, 33], [6, 1, 5]


def ragged(ids: list[int] | None = None, lengths: list[int] | None = None) -> Ragged:
    return Ragged(torch.tensor(IDS if ids is None else ids), torch.tensor(LENGTHS if lengths is None else lengths))


def one_by_one(folder: Path, **options: Any) -> list[list[Tensor]]:
    """All states of each text by transformers itself, one text at a time: no padding anywhere."""
    model = transformers.AutoModel.from_pretrained(folder, dtype="float32", **options)
    with torch.no_grad():
        return [
            [s[0] for s in model(input_ids=text[None], output_hidden_states=True).hidden_states]
            for text in torch.tensor(IDS).split(LENGTHS)
        ]


@pytest.mark.parametrize("name", [*CAUSAL, *BOTH_WAYS, "experts"])
def test_states_are_those_of_transformers(folders: dict[str, Path], name: str) -> None:
    adapted = Adapted.load(folders[name])
    assert not adapted.training and not adapted.model.training and adapted.dim == 32
    expected = one_by_one(folders[name])
    with torch.no_grad():
        states = adapted(ragged(), all_states=True)
        last = adapted(ragged())
    assert len(states) == 3 and last.shape == (len(IDS), 32)
    for layer, state in enumerate(states):
        torch.testing.assert_close(state, torch.cat([text[layer] for text in expected]), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(last, states[-1])
    with torch.no_grad():  # equal lengths, no padding
        torch.testing.assert_close(adapted(ragged(IDS[:6], [6])), expected[0][-1], atol=2e-5, rtol=1e-4)


def change_by_last_token(adapted: Adapted, lengths: list[int]) -> Tensor:
    """How far each state of the first text before its last token moves when that token changes, [T - 1]."""
    total, end = sum(lengths), lengths[0] - 1
    other = [*IDS[:end], 50, *IDS[end + 1 :]]
    with torch.no_grad():
        a, b = (adapted(ragged(ids[:total], lengths)) for ids in (IDS, other))
    return (a - b)[:end].abs().amax(1)


@pytest.mark.parametrize("lengths", [[6], [6, 1, 5], [5, 5]], ids=str)
@pytest.mark.parametrize("name", CAUSAL)
def test_future_tokens_change_past_states_only_where_asked(
    folders: dict[str, Path], name: str, lengths: list[int]
) -> None:
    for kept in (None, False):
        assert float(change_by_last_token(Adapted.load(folders[name], bidirectional=kept), lengths).max()) == 0
    moved = change_by_last_token(Adapted.load(folders[name], bidirectional=True), lengths)
    assert float(moved[-3:].min()) > 1e-3  # within every window
    assert name in ("mistral", "gemma3") or float(moved.min()) > 1e-3


def test_both_ways_stays_so_where_it_is_opened(folders: dict[str, Path], tmp_path: Path) -> None:
    adapted = Adapted.load(folders["qwen3"], bidirectional=True)
    assert adapted.save(tmp_path / "saved") == tmp_path / "saved"
    with torch.no_grad():
        mine = adapted(ragged())
        torch.testing.assert_close(Adapted.load(tmp_path / "saved")(ragged()), mine)
    torch.testing.assert_close(torch.cat([s[-1] for s in one_by_one(tmp_path / "saved")]), mine, atol=2e-5, rtol=1e-4)
    encoder = Encoder.load(tmp_path / "saved", device="cpu")
    vectors = encoder.encode(["large language model", "search", "graph"], precision="fp32")
    ids = [encoder.backbone.tokenize([text])[0] for text in ("large language model", "search", "graph")]
    with torch.no_grad():
        states = adapted(ragged([token for text in ids for token in text], [len(text) for text in ids]))
    means = torch.stack([s.mean(0) for s in states.split([len(text) for text in ids])])
    expected = torch.nn.functional.normalize(means, dim=1)
    torch.testing.assert_close(torch.from_numpy(vectors), expected, atol=1e-5, rtol=1e-4)


def test_an_architecture_that_does_not_obey_is_refused(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"\(bert\) with bidirectional=False: its tokens see those after them"):
        Adapted.load(folders["bert"], bidirectional=False)
    assert Adapted.load(folders["bert"], bidirectional=True)
    # As an older transformers, which does not know the setting.
    forward = transformers.LlamaModel.forward.__wrapped__
    monkeypatch.setattr(transformers.LlamaModel, "forward", forward)
    with pytest.raises(InputError, match="bidirectional=True"):
        Adapted.load(folders["llama"], bidirectional=True)
    transformers.T5Config(vocab_size=64, d_model=16, num_layers=1).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"encoder-decoder \(t5\)"):
        Adapted.load(tmp_path)


# ---------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", ["bert", "modernbert", "qwen3", "gpt2"])
def test_gradients_are_those_of_the_texts_alone(folders: dict[str, Path], name: str) -> None:
    adapted = Adapted.load(folders[name]).double()
    torch.manual_seed(0)
    target = torch.randn(len(IDS), 32, dtype=torch.float64)
    ((adapted(ragged()) - target) ** 2).sum().backward()
    together = {n: p.grad.clone() for n, p in adapted.named_parameters() if p.requires_grad}
    adapted.zero_grad()
    for ids, goal in zip(torch.tensor(IDS).split(LENGTHS), target.split(LENGTHS), strict=True):
        ((adapted(Ragged(ids, torch.tensor([len(ids)]))) - goal) ** 2).sum().backward()
    assert together
    for parameter, grad in together.items():  # no trained weight is left without a gradient
        torch.testing.assert_close(grad, adapted.get_parameter(parameter).grad, atol=1e-8, rtol=1e-6)


def train(adapted: Adapted, steps: int) -> list[float]:
    """Fit the mean of each text to a fixed vector; the loss of every step."""
    torch.manual_seed(1)
    target = torch.randn(len(LENGTHS), 32)
    optimiser = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    losses = []
    adapted.train()
    for _ in range(steps):
        means = torch.stack([s.mean(0) for s in adapted(ragged()).split(LENGTHS)])
        loss = ((means - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    adapted.eval()
    return losses


def test_it_trains_saves_and_opens(folders: dict[str, Path], tmp_path: Path) -> None:
    adapted = Adapted.load(folders["qwen3"])
    losses = train(adapted, 30)
    assert losses[-1] < 0.5 * losses[0]
    adapted.save(tmp_path / "trained")
    again = Adapted.load(tmp_path / "trained")
    with torch.no_grad():
        assert torch.equal(again(ragged()), adapted(ragged()))


@needs_peft
@pytest.mark.parametrize("name", ["qwen3", "bert", "gpt2", "experts"])
def test_adapters_train_alone_and_are_saved_merged(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    adapted = Adapted.load(folders[name], lora=LoRAConfig(rank=4, alpha=8))
    with torch.no_grad():
        torch.testing.assert_close(adapted(ragged()), Adapted.load(folders[name])(ragged()))
    frozen = {n: p.detach().clone() for n, p in adapted.named_parameters() if not p.requires_grad}
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert trained and all(".lora_" in n for n in trained) and not any("pooler" in n for n in trained)
    losses = train(adapted, 25)
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(adapted.get_parameter(n), value) for n, value in frozen.items())
    with torch.no_grad():
        before = adapted(ragged())
        adapted.save(tmp_path / "merged")
        assert torch.equal(adapted(ragged()), before)
        torch.testing.assert_close(Adapted.load(tmp_path / "merged")(ragged()), before, atol=2e-5, rtol=1e-4)
    assert keys(tmp_path / "merged") == keys(folders[name])
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [n for n in names if "adapter" in n or n.endswith((".bin", ".pt"))]
    assert list(tmp_path.iterdir()) == [tmp_path / "merged"]


def keys(folder: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@needs_peft
def test_adapters_go_where_they_are_asked(folders: dict[str, Path]) -> None:
    adapted = Adapted.load(folders["llama"], bidirectional=True, lora=LoRAConfig(rank=2, targets=("q_proj", "v_proj")))
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * 2 and all("q_proj" in n or "v_proj" in n for n in trained)
    assert float(change_by_last_token(adapted, [6]).min()) > 1e-3
    with pytest.raises(InputError, match=r"cannot adapt query; its linear layers: down_proj, gate_proj, k_proj"):
        Adapted.load(folders["llama"], lora=LoRAConfig(targets=("query",)))


@pytest.mark.parametrize("bad", [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("nan")}, {"dropout": 1.0}], ids=str)
def test_bad_lora_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected a rank"):
        LoRAConfig(**bad)


def test_without_peft_the_extra_is_named(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nextvec\[lora\]'"):
        Adapted.load(folders["llama"], lora=LoRAConfig())


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "ids", "lengths", "message"),
    [
        ("llama", [1, 64], [2], "token id 64 is outside the vocabulary of 64"),
        ("llama", [-1], [1], "token id -1"),
        ("llama", [], [], "at least one text"),
        ("llama", [1, 2], [2, 0], "at least one text"),
        ("bert", [1] * 65, [65], "a text of 65 tokens, but learned positions end at 64"),
        ("roberta", [1] * 70, [70], "learned positions end at 69"),
        ("gpt2", [1] * 65, [65], "learned positions end at 64"),
    ],
)
def test_bad_ids(folders: dict[str, Path], name: str, ids: list[int], lengths: list[int], message: str) -> None:
    adapted = Adapted.load(folders[name])
    with pytest.raises(InputError, match=message) as caught:
        adapted(Ragged(torch.tensor(ids, dtype=torch.long), torch.tensor(lengths, dtype=torch.long)))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="expected int64"):
        adapted(Ragged(torch.zeros(3, 32), torch.tensor([3])))


def test_the_longest_text_that_positions_allow(folders: dict[str, Path]) -> None:
    for name, length in (("bert", 64), ("roberta", 69), ("gpt2", 64)):
        with torch.no_grad():
            assert Adapted.load(folders[name])(ragged([7] * length, [length])).shape == (length, 32)


def test_hostile_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(folders["llama"], tmp_path / name))

    pickled = copy("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    code = copy("code")
    trace = code / "ran"
    (code / "evil.py").write_text(f"open({str(trace)!r}, 'w')\n")
    config = json.loads((code / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}}
    (code / "config.json").write_text(json.dumps(config))
    adapter = copy("adapter")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(pickled)}))
    torn = copy("torn")
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:300])
    for folder, message in (
        (pickled, "pickle"),
        (code, "custom code"),
        (adapter, "holds an adapter"),
        (torn, "cannot"),
    ):
        for load in (Adapted.load, Encoder.load):
            with pytest.raises(InputError, match=message) as caught:
                load(folder)
            assert "\n" not in str(caught.value)
    assert not trace.exists()
    with pytest.raises(NotFoundError):
        Adapted.load(tmp_path / "nowhere")


def test_saving_where_it_cannot_be(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = Adapted.load(folders["llama"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(ConflictError, match="not empty"):
        adapted.save(tmp_path / "full")

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapted.model, "save_pretrained", no_space)
    with pytest.raises(NextvecError, match="the disk is full"):
        adapted.save(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
