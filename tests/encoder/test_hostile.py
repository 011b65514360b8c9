"""Folders and inputs from outside: one clear error each, never code that runs, never a half-loaded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nextvec import Encoder
from nextvec.types import InputError, NextvecError, NotFoundError, OfflineError, StorageError


@pytest.fixture
def copy(model_folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folders["bert"], tmp_path / "copy"))


@pytest.fixture
def static_copy(static_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(static_folder, tmp_path / "static-copy"))


def test_pickle_only_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    # A pickle that would leave a trace if anything ever loaded it.
    trace = copy / "ran"
    (copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR.")
    with pytest.raises(InputError, match="pickle"):
        Encoder.load(copy)
    assert not trace.exists()


@pytest.mark.parametrize("keep", [0, 7, 300, 0.5])
def test_truncated_weights(copy: Path, static_copy: Path, keep: float) -> None:
    for folder in (copy, static_copy):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep) if keep < 1 else int(keep)])
        with pytest.raises(InputError) as caught:
            Encoder.load(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_truncated_json(copy: Path, static_copy: Path, name: str) -> None:
    for folder in (copy, static_copy):
        (folder / name).write_text((folder / name).read_text()[:40])
        with pytest.raises(InputError):
            Encoder.load(folder)


def test_remote_code_is_never_run(copy: Path) -> None:
    trace = copy / "ran"
    (copy / "evil.py").write_text(f"open({str(trace)!r}, 'w')\n")
    config = json.loads((copy / "config.json").read_text())
    config["model_type"] = "evil"
    config["auto_map"] = {"AutoModel": "evil.EvilModel", "AutoConfig": "evil.EvilConfig"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        Encoder.load(copy)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([{"type": "x.Transformer", "path": "../../etc"}], "leaves the folder"),
        ([{"type": "x.Transformer", "path": "/etc"}], "leaves the folder"),
        ([{"type": "x.Evil", "path": ""}], "not supported"),
        ([{"type": "x.Transformer", "path": ""}, {"type": "os.System", "path": ""}], "not supported"),
        ([], "names no module"),
        ({"a": 1}, "expected a list"),
    ],
)
def test_hostile_modules(copy: Path, modules: object, message: str) -> None:
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=message):
        Encoder.load(copy)


def test_oversized_configuration(copy: Path) -> None:
    with (copy / "config.json").open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(InputError, match="refused"):
        Encoder.load(copy)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": np.zeros((3, 3), np.float32)}, "expected 'embedding.weight'"),
        ({"embedding.weight": np.zeros((3, 3), np.int8)}, "need 'embedding.scale'"),
        ({"embedding.weight": np.zeros((3, 3), np.float32)}, "tokens, the table has 3 rows"),
        ({"embedding.weight": np.full((99, 3), np.nan, np.float32)}, "NaN"),
        ({"embedding.weight": np.zeros(99, np.float32)}, "shape"),
    ],
)
def test_hostile_tables(static_copy: Path, tensors: dict[str, np.ndarray], message: str) -> None:
    from safetensors.numpy import save_file

    save_file(tensors, static_copy / "model.safetensors")
    with pytest.raises(InputError, match=message):
        Encoder.load(static_copy)


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'nextvec-mini'"):
        Encoder.load("nextvec-mni")
    with pytest.raises(NotFoundError):
        Encoder.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match=r"config\.json"):
        Encoder.load(tmp_path / "empty")
    with pytest.raises(OfflineError, match="model folder"):
        Encoder.load("nobody/nothing-at-all", local_files_only=True)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (["ok", 3], {}, "input 1 is int"),
        (["ok", None], {}, "input 1 is NoneType"),
        (["bad \ud800 text"], {}, "surrogate"),
        (["x"], {"dim": 0}, "dim is 0"),
        (["x"], {"dim": 17}, "gives 1 to 16"),
        (["x"], {"precision": "fp8"}, "precision"),
        (["x"], {"dtype": "int4"}, "dtype"),
        (["x"], {"dtype": "int8", "normalize": False}, "normalize"),
        (["x"], {"role": "Query"}, "did you mean 'query'"),
        (["x"], {"batch_tokens": 0}, "batch_tokens"),
        ("x", {"out": "v.npy"}, "list of texts"),
    ],
)
def test_bad_arguments(static_folder: Path, inputs: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Encoder.load(static_folder).encode(inputs, **options)  # type: ignore[arg-type]
    assert isinstance(caught.value, NextvecError) and "\n" not in str(caught.value)


def test_huge_text(static_folder: Path, model_folders: dict[str, Path]) -> None:
    text = "deep graph " * 100_000
    assert np.isfinite(Encoder.load(static_folder).encode(text)).all()
    assert np.isfinite(Encoder.load(model_folders["bert"], device="cpu").encode(text)).all()


def test_pickle_only_static_is_refused(static_copy: Path) -> None:
    (static_copy / "model.safetensors").unlink()
    (static_copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n.")
    with pytest.raises(InputError, match="pickle"):
        Encoder.load(static_copy)


@pytest.mark.parametrize(
    "change",
    [{"dim": "many"}, {"dim": 0}, {"dim": True}, {"max_length": -3}, {"nested_dims": 4}, {"nested_dims": ["x"]}],
)
def test_configuration_of_the_wrong_type(static_copy: Path, change: dict[str, object]) -> None:
    config = json.loads((static_copy / "config.json").read_text())
    (static_copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=next(iter(change))):
        Encoder.load(static_copy)


@pytest.mark.parametrize(
    "change", [{"similarity_fn_name": "hamming"}, {"default_prompt_name": 3}, {"truncate_dim": "x"}, {"prompts": [1]}]
)
def test_settings_of_the_wrong_type(copy: Path, change: dict[str, object]) -> None:
    (copy / "modules.json").write_text(json.dumps([{"type": "x.Transformer", "path": ""}]))
    (copy / "config_sentence_transformers.json").write_text(json.dumps(change))
    with pytest.raises(InputError):
        Encoder.load(copy)


@pytest.mark.parametrize("name", ["~nobody-of-that-name", "x" * 5000, "a\0b"])
def test_names_that_are_no_paths(name: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        Encoder.load(name)
    assert len(str(caught.value)) < 400


def test_out_never_replaces_a_device_or_pipe(static_folder: Path, tmp_path: Path) -> None:
    import os
    import stat

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(StorageError, match="device or pipe"):
        Encoder.load(static_folder).encode(["x"], out=pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_full_disk_while_writing_vectors(
    static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="disk is full"):
        Encoder.load(static_folder).encode(["x"], out=tmp_path / "v.npy")
    assert not (tmp_path / "v.npy").exists()


def test_without_torch_the_extra_is_named(model_folders: dict[str, Path]) -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from nextvec import Encoder\n"
        "from nextvec.types import MissingExtraError\n"
        f"try: Encoder.load({str(model_folders['bert'])!r})\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'nextvec[hf]'" in done.stdout, done.stderr
