"""The words every room speaks: lazy imports, files, extras, catalogue of names, settings."""

from __future__ import annotations

import dataclasses
import errno
import subprocess
import sys
from pathlib import Path

import pytest

from nextvec import catalog, config, extras, files
from nextvec.types import InputError, MissingExtraError, NotFoundError, StorageError, did_you_mean


def test_every_test_file_has_a_name_of_its_own() -> None:
    """pytest imports them by their bare names: two of one name stop the whole run."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_import_is_light() -> None:
    code = "import nextvec, sys; assert not {'torch', 'lance', 'numpy', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_resolve() -> None:
    import nextvec

    assert nextvec.Encoder.__name__ == "Encoder"
    assert nextvec.Collection.__name__ == "Collection"
    with pytest.raises(AttributeError, match="Encoder"):
        _ = nextvec.Encodr


def test_did_you_mean() -> None:
    assert did_you_mean("yeer", ["year", "venue"]) == "; did you mean 'year'?"
    assert did_you_mean("zzz", ["year"]) == ""


def test_atomic_write_replaces_only_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with files.atomic_write(target, "w") as stream:
        stream.write("one")
    with pytest.raises(RuntimeError), files.atomic_write(target, "w") as stream:
        stream.write("two, half wri")
        raise RuntimeError
    assert target.read_text() == "one"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="disk is full") as caught, files.atomic_write(tmp_path / "f") as stream:
        stream.write(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_inside_confines_paths(tmp_path: Path) -> None:
    assert files.inside(tmp_path, "a/b") == (tmp_path / "a" / "b").resolve()
    (tmp_path / "out").symlink_to("/")
    for name in ("../x", "/etc/passwd", "a/../../x", "out/etc"):
        with pytest.raises(InputError, match="leaves the folder"):
            files.inside(tmp_path, name)


def test_sizes_and_hashes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert files.sha256(tmp_path / "f").startswith("ba7816bf8f01cfea")
    assert files.human_bytes(999) == "999 B"
    assert files.human_bytes(83_506_384) == "83.5 MB"


def test_homes_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEXTVEC_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("NEXTVEC_CACHE", str(tmp_path / "c"))
    assert (files.data_home(), files.cache_home()) == (tmp_path / "h", tmp_path / "c")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "moon", ("no_such_module",))
    with pytest.raises(MissingExtraError, match=r"pip install 'nextvec\[moon\]'"):
        extras.require("no_such_module.part", why="landing")
    assert not extras.available("no_such_module")


def test_catalog_finds_files() -> None:
    assert {"demo", "doctor", "embed", "data", "collection", "papers"} <= set(catalog.names("nextvec.cli"))
    assert catalog.load("nextvec.search.indexes", "exact").__name__ == "nextvec.search.indexes.exact"
    with pytest.raises(NotFoundError, match="did you mean 'exact'"):
        catalog.load("nextvec.search.indexes", "exct")


@dataclasses.dataclass(kw_only=True)
class Optim:
    lr: float = 0.1
    betas: tuple[float, ...] = (0.9, 0.95)


@dataclasses.dataclass(kw_only=True)
class Run:
    steps: int = 10
    name: str | None = None
    out: Path = Path("runs")
    optim: Optim = dataclasses.field(default_factory=Optim)


def test_settings_round_trip(tmp_path: Path) -> None:
    run = config.override(Run(), ["steps=5", "optim.lr=1e-3", "name=mini", "optim.betas=[0.8, 0.9]", "out=elsewhere"])
    assert run == Run(steps=5, name="mini", out=Path("elsewhere"), optim=Optim(lr=0.001, betas=(0.8, 0.9)))
    config.save(run, tmp_path / "run.yaml")
    assert config.load(Run, tmp_path / "run.yaml") == run
    assert config.load(Run, tmp_path / "run.yaml", overrides=["name=null"]).name is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stepz=5", "did you mean 'steps'"),
        ("optim.lrr=5", r"'optim\.lrr'.*did you mean 'lr'"),
        ("optimm.lr=5", "did you mean 'optim'"),
        ("steps=many", "expected int"),
        ("steps=true", "expected int"),
        ("steps", "key=value"),
        ("steps=[1", "not valid YAML"),
    ],
)
def test_bad_settings(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.override(Run(), [change])


def test_bad_settings_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="expected keys"):
        config.load(Run, tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("a: [\n")
    with pytest.raises(InputError, match="not valid YAML"):
        config.load(Run, tmp_path / "b.yaml")
    with pytest.raises(InputError, match="cannot read"):
        config.load(Run, tmp_path / "none.yaml")
