"""Samples: written once, read by the readers of their formats, and never over what is there. That every method learns
from its own is a contract of the methods."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from command_line import run
from nextvec.data.dictionary import read_dictionary
from nextvec.data.ehr import read_ehr
from nextvec.data.judged import read_judged
from nextvec.data.pairs import read_pairs
from nextvec.data.reasoning import read_chains
from nextvec.data.samples import KINDS, write_sample
from nextvec.types import ConflictError, InputError, StorageError


def test_each_is_read_as_what_it_is(tmp_path: Path) -> None:
    written = {kind: write_sample(kind, tmp_path / kind) for kind in KINDS if kind not in ("pictures", "thoughts")}
    assert all(path.name == f"{kind}.jsonl" for kind, path in written.items())
    assert len(read_chains(written["chains"])) == 64
    assert len(read_pairs(written["pairs"]).queries) == 64
    assert read_judged(written["judged"]).kind == "score"
    assert len(read_dictionary(written["words"]).entries) == 9
    assert len(read_ehr(written["patients"]).patients) == 8
    again = write_sample("chains", tmp_path / "again.jsonl")
    assert again.read_bytes() == written["chains"].read_bytes()


def test_pictures_lie_beside_what_names_them(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="the extra 'images' is not installed")
    assert len(list(write_sample("pictures", tmp_path / "pictures").glob("*.png"))) == 64
    records = [json.loads(line) for line in write_sample("thoughts", tmp_path / "t").read_text().splitlines()]
    named = [part["image"] for one in records for part in one["thoughts"] if isinstance(part, dict)]
    assert named and all((tmp_path / "t" / name).is_file() for name in named)


def test_pictures_are_all_there_or_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    whole, saved = image.Image.save, 0

    def save(*given: Any) -> None:
        nonlocal saved
        saved += 1
        if saved == 10:
            raise OSError(errno.ENOSPC, "no space left")
        whole(*given)

    monkeypatch.setattr(image.Image, "save", save)
    for kind in ("pictures", "thoughts"):
        saved = 0
        with pytest.raises(StorageError, match="the disk is full"):
            write_sample(kind, tmp_path / "new" / kind)
        assert not list((tmp_path / "new").iterdir())
    assert write_sample("thoughts", tmp_path / "new" / "t") == tmp_path / "new" / "t" / "thoughts.jsonl"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sample of kind 'nothing'; there are: texts"):
        write_sample("nothing", tmp_path / "a")
    with pytest.raises(InputError, match=r"'a\.csv' ends in '\.csv'"):
        write_sample("texts", tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text("mine")
    with pytest.raises(ConflictError, match="nothing is written over"):
        write_sample("texts", tmp_path / "a")
    assert (tmp_path / "a.jsonl").read_text() == "mine"


def test_the_command_takes_a_method_and_says_what_to_try(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nextvec.cli.main", "data", "sample", "colar", "--out", str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"nextvec train colar --data {tmp_path / 'c.jsonl'} --out runs/colar" in done.stdout
    assert len(read_chains(tmp_path / "c.jsonl")) == 64
    assert "exists" in run(*command[3:], code=1).stderr
