"""The examples of docs/search.md run and print what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_examples(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"```python\n(.*?)```", page[page.index("## Words and meaning") :], re.DOTALL))
    promised = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert len(promised) == 5
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == promised
