"""The catalogue: complete, consistent with the data folder, and honest about what can be fetched."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nextvec.cli.data import app
from nextvec.data.catalog import dataset, datasets, fetch, find, locate, verify
from nextvec.types import NotFoundError, OfflineError

RUNNER = CliRunner()
NEEDS_DATA = pytest.mark.skipif("NEXTVEC_DATA" not in os.environ, reason="needs the data folder: set NEXTVEC_DATA")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NEXTVEC_DATA", raising=False)
    monkeypatch.setenv("NEXTVEC_CACHE", str(tmp_path))


def test_every_entry_is_complete() -> None:
    assert len(datasets()) == 30
    for name, entry in datasets().items():
        assert re.fullmatch(r"[a-z0-9_-]+", name)
        assert entry.redistribute in {"yes", "attribution", "share-alike", "no"}
        assert entry.rows > 0
        assert entry.files
        for file in entry.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert not Path(file.path).is_absolute()
            assert ".." not in Path(file.path).parts
        # Either the files are the repository's own, or the entry says how they were made.
        assert (entry.upstream is None) != (entry.made is None), name
        assert (entry.url(entry.files[0]) is None) == (entry.made is not None)


def test_addresses_are_pinned_to_a_commit() -> None:
    entry = dataset("gsm8k")
    urls = {file.path: entry.url(file) for file in entry.files}
    base = "https://github.com/openai/grade-school-math/raw/3101c7d5072418e28b9008a6636bde82a006892c/"
    assert urls["train.jsonl"] == base + "grade_school_math/data/train.jsonl"
    assert urls["LICENSE"] == base + "LICENSE"


def test_bundled_set_is_the_catalogued_file(nowhere: None) -> None:
    assert find("daily_papers") == ("bundled", locate("daily_papers"))
    assert verify("daily_papers") == fetch("daily_papers")


def test_unknown_name() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'gsm8k'"):
        dataset("gsm8")


def test_absent_sets_say_what_to_do(nowhere: None) -> None:
    with pytest.raises(NotFoundError, match="run 'nextvec data fetch gsm8k'"):
        locate("gsm8k")
    with pytest.raises(OfflineError, match=r"no public address .* set NEXTVEC_DATA"):
        fetch("arxiv_daily")


@NEEDS_DATA
def test_data_folder_holds_every_set() -> None:
    assert {name for name in datasets() if find(name) is None} == set()
    verify("wordsim")
    verify("limit")


def test_list(nowhere: None) -> None:
    answer = RUNNER.invoke(app, ["list", "--json"])
    facts = {fact["name"]: fact for fact in json.loads(answer.stdout)}
    assert facts["daily_papers"]["where"] == "bundled"
    assert facts["gsm8k"]["where"] == "absent"
    assert facts["ml-100k"]["redistribute"] == "no"
    lines = RUNNER.invoke(app, ["list"]).stdout.splitlines()
    assert len(lines) == 2 + len(facts)


def test_show(nowhere: None) -> None:
    facts = json.loads(RUNNER.invoke(app, ["show", "daily_papers", "--check", "--json"]).stdout)
    assert facts["verified"] is True
    assert facts["files"][0]["bytes"] == 3_994_163
    text = RUNNER.invoke(app, ["show", "wsi_semeval2013_t13"]).stdout
    assert "more files (--json shows all)" in text


def test_fetch_of_a_set_that_is_here() -> None:
    answer = RUNNER.invoke(app, ["fetch", "daily_papers"])
    assert answer.exit_code == 0
    assert "found in bundled, nothing to fetch" in answer.stdout
