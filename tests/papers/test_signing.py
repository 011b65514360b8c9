"""The site's secret and what is signed with it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from nextvec.papers.signing import SECRET_VARIABLE, Signer, load_secret
from nextvec.types import InputError, StorageError


@pytest.fixture(autouse=True)
def _no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)


def test_a_secret_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    first = load_secret(tmp_path)
    assert len(first) >= 48
    assert load_secret(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    other = tmp_path / "other"
    other.mkdir()
    assert load_secret(other) != first


def test_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "x" * 40)
    assert load_secret(tmp_path) == b"x" * 40
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv(SECRET_VARIABLE, "short")
    with pytest.raises(InputError, match="has 5 bytes, at least 32"):
        load_secret(tmp_path)


def test_a_secret_that_others_can_read_or_guess_is_refused(tmp_path: Path) -> None:
    load_secret(tmp_path)
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(StorageError, match="can be read by others"):
        load_secret(tmp_path)
    (tmp_path / "secret").write_text("guess")
    (tmp_path / "secret").chmod(0o600)
    with pytest.raises(StorageError, match="has 5 bytes"):
        load_secret(tmp_path)


def test_a_home_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="absent"):
        load_secret(tmp_path / "absent")


def test_what_was_signed_comes_back_for_its_purpose_alone() -> None:
    signer = Signer(b"a" * 32)
    token = signer.sign("sign-in", {"email": "ada@example.org", "n": 3})
    assert signer.read("sign-in", token) == {"email": "ada@example.org", "n": 3}
    for purpose, text, by in [
        ("unsubscribe", token, signer),
        ("sign-in", token, Signer(b"b" * 32)),
        ("sign-in", token[:-1], signer),
        ("sign-in", "x" + token, signer),
        ("sign-in", "", signer),
        ("sign-in", "\ud800", signer),
    ]:
        with pytest.raises(InputError, match="not valid"):
            by.read(purpose, text)


def test_links_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer(b"a" * 32)
    token = signer.sign("sign-in", "ada")
    assert signer.read("sign-in", token, seconds=60) == "ada"
    import itsdangerous.timed

    now = itsdangerous.timed.time.time()
    monkeypatch.setattr(itsdangerous.timed.time, "time", lambda: now + 3_600)
    with pytest.raises(InputError, match="expired"):
        signer.read("sign-in", token, seconds=60)
    assert signer.read("sign-in", token) == "ada"
