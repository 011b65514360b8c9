"""Tokens of readers' programs: made and shown once, checked, counted, refused, revoked; votes and lists with them."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import open_database, raw
from fastapi.testclient import TestClient
from people import BASE, SECRET, Person, join, make_app, state

from nextvec.papers.accounts import guard, tokens, votes
from nextvec.papers.accounts.readers import LOCAL
from nextvec.papers.accounts.tables import TOKENS, now
from nextvec.papers.db import Database
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.rate import RateLimit
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
from nextvec.types import InputError, NotFoundError, StorageError

pytestmark = pytest.mark.both

ADA = "ada@example.org"


@pytest.fixture
def ada(site: Site) -> str:
    return join(site.db, ADA).id


def program(site: Site, word: str = "", **more: Any) -> TestClient:
    """A program that asks with ``word``, from nowhere in particular."""
    headers = {"authorization": f"Bearer {word}"} if word else {}
    return TestClient(make_app(site, **more), base_url=BASE, headers=headers, raise_server_exceptions=False)


def made(site: Site, reader: str, *scopes: str, name: str = "A program", **more: Any) -> str:
    return tokens.make(site.db, reader, name, scopes, **more)[1]


# -- what is kept --------------------------------------------------------------------------------------------------
def test_only_a_hash_is_kept(site: Site, ada: str) -> None:
    word = made(site, ada, "read", "vote")
    assert re.fullmatch(r"nvp_[\w-]{22}\.[\w-]{43}", word)
    token, owner = tokens.check(site.db, word)
    assert (owner.email, token.scopes, token.ends_on, token.ended) == (ADA, ("read", "vote"), None, False)
    held = str(state(site))
    assert word not in held and word.partition(".")[2] not in held
    assert made(site, ada, "read", name="Another").partition(".")[0] != word.partition(".")[0]


def test_only_the_whole_word_works(site: Site, ada: str) -> None:
    word, other = made(site, ada, "read"), made(site, ada, "read", name="Another")
    swapped = f"{word.partition('.')[0]}.{other.partition('.')[2]}"
    wrong = [
        "", "nvp_", word[:-1], word + "A", word[4:], word.upper(), word.replace(".", ""), f" {word}", f"{word}\n",
        swapped, word.replace("nvp_", "nvq_"), "nvp_" + "A" * 22 + "." + "A" * 43, f"nvp_{'٣' * 22}.{'٣' * 43}",
        "' OR '1'='1", "x" * 10_000,
    ]  # fmt: skip
    for text in wrong:
        with pytest.raises(InputError, match="not known here: it was revoked, or cut short"):
            tokens.check(site.db, text)
    assert tokens.check(site.db, word)


def test_every_comparison_is_of_whole_hashes(site: Site, ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    original = tokens.hmac.compare_digest
    monkeypatch.setattr(tokens.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or original(a, b))
    word = made(site, ada, "read")
    tokens.check(site.db, word)
    for text in ("nvp_" + "A" * 22 + "." + "A" * 43, "nonsense"):
        with pytest.raises(InputError):
            tokens.check(site.db, text)
    assert len(compared) == 3 and all(len(a) == len(b) == 64 for a, b in compared), "where there is no row, too"


def test_the_last_day_is_a_whole_day(site: Site, ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    today = now().date()
    word = made(site, ada, "read", ends_on=today)
    assert tokens.check(site.db, word)[0].ends_on == today
    later = now() + timedelta(days=1)
    monkeypatch.setattr(tokens, "now", lambda: later)
    with pytest.raises(InputError, match=f"this token ended on {today}: its owner makes another"):
        tokens.check(site.db, word)
    (one,) = tokens.of_reader(site.db, ada)
    assert one.ended and one.used_on == today
    with pytest.raises(InputError, match=f"the last day of the token is {today}, which is over"):
        made(site, ada, "read", name="Late", ends_on=today)


def test_the_day_of_use_is_written_once_a_day(site: Site, ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    word = made(site, ada, "read")
    assert tokens.of_reader(site.db, ada)[0].used_on is None
    writes = []
    original = Database.write
    monkeypatch.setattr(Database, "write", lambda self: writes.append(1) or original(self))
    for _ in range(5):
        tokens.check(site.db, word)
    assert len(writes) == 1 and tokens.of_reader(site.db, ada)[0].used_on == now().date()

    def refuse(self: Database) -> Any:
        raise StorageError("the database is locked")

    later = now() + timedelta(days=3)
    monkeypatch.setattr(tokens, "now", lambda: later)
    monkeypatch.setattr(Database, "write", refuse)
    assert tokens.check(site.db, word)[0].id, "a read does not fail because the day cannot be written down"


def test_what_cannot_be_a_token(site: Site, ada: str) -> None:
    for name, scopes, message in (
        ("", ["read"], "has 0 characters; expected 1 to 60"),
        ("x" * 61, ["read"], "has 61 characters"),
        ("A", [], "tick at least one of read, vote, lists"),
        ("A", ["read", "admin"], "scope 'admin' is not known; expected some of read, vote, lists"),
    ):
        with pytest.raises(InputError, match=message):
            tokens.make(site.db, ada, name, scopes)
    for number in range(tokens.MAX_TOKENS):
        made(site, ada, "read", name=f"Token {number}")
    with pytest.raises(InputError, match="20 tokens, the most there can be"):
        made(site, ada, "read", name="One more")
    bob = join(site.db, "bob@example.org").id
    made(site, bob, "read")
    with pytest.raises(InputError, match="called 'A program' already"):
        made(site, bob, "vote")
    with pytest.raises(NotFoundError, match="account was deleted"):
        made(site, "nobody", "read")


def test_from_the_version_before(tmp_path: Path) -> None:
    with raw(tmp_path) as connection:
        migrate(connection, [step for step in MIGRATIONS if step.number < 8])
        assert not sa.inspect(connection).has_table(TOKENS.name)
    with open_database(tmp_path) as db:
        reader = join(db, ADA).id
        _, word = tokens.make(db, reader, "A program", ["lists"])
        assert tokens.check(db, word)[1].id == reader


# -- the page ------------------------------------------------------------------------------------------------------
def test_a_token_is_shown_once(site: Site) -> None:
    person = Person(make_app(site))
    person.enter(ADA)
    page = person.get("/account").text
    assert "nvp_" not in page.partition("Tokens")[2] and 'name="read" value="1" checked' in page
    answer = person.post("/account/tokens", name="Laptop <b>", lists="1", vote="1", ends_on="")
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    (word,) = re.findall(r"nvp_[\w-]{22}\.[\w-]{43}", answer.text)
    assert "shown this once" in answer.text and "Laptop &lt;b&gt;" in answer.text and "<b>Laptop <b>" not in answer.text
    assert tokens.check(site.db, word)[0].scopes == ("vote", "lists")
    page = person.get("/account").text
    assert word not in page and "vote, lists · made" in page and "last used" in page
    again = person.post("/account/tokens", name="Laptop <b>", lists="1", ends_on="")
    assert again.status_code == 400 and "nvp_" not in again.text, "sent again, as by a reload"
    revoke = unescape(re.findall(r'action="(/account/tokens/[\w-]+/revoke)"', page)[0])
    answer = person.post(revoke)
    assert answer.headers["location"] == "/account?saved=token#tokens"
    assert "it no longer works" in person.get("/account?saved=token").text
    with pytest.raises(InputError, match="not known"):
        tokens.check(site.db, word)
    assert person.post(revoke).status_code == 404


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "A", "ends_on": ""}, "would be for nothing"),
        ({"name": "A", "read": "1", "ends_on": "soon"}, "last day: &#39;soon&#39; is not a day"),
        ({"name": "A", "read": "1", "ends_on": "2020-01-01"}, "which is over"),
        ({"name": "", "read": "1", "ends_on": ""}, "has 0 characters"),
        ({"name": "A", "admin": "1", "ends_on": ""}, "would be for nothing"),
    ],
)
def test_the_form_says_what_is_wrong(site: Site, fields: dict[str, str], message: str) -> None:
    person = Person(make_app(site))
    person.enter(ADA)
    answer = person.post("/account/tokens", **fields)
    assert answer.status_code == 400 and message in answer.text
    assert "<li" not in person.get("/account").text.partition('id="tokens"')[2].partition("<form")[0]


def test_the_local_reader_has_tokens(site: Site) -> None:
    app = create_app(site, local_reader=True, secret=SECRET)
    word = made(site, LOCAL, "vote")
    http = TestClient(app, base_url="http://127.0.0.1:8000")
    assert http.post("/api/papers/p1/vote").status_code == 401, "being at this machine is not enough for a program"
    assert http.post("/api/papers/p1/vote", headers={"authorization": f"Bearer {word}"}).json()["voted"]


# -- who is refused ------------------------------------------------------------------------------------------------
def test_a_token_that_does_not_work_is_told(site: Site, ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    word = made(site, ada, "read", "lists", ends_on=now().date())
    revoked = made(site, ada, "read", name="Another")
    tokens.revoke(site.db, ada, next(one.id for one in tokens.of_reader(site.db, ada) if one.name == "Another"))
    for wrong in (revoked, word[:-1], "nonsense", "a b", 'x", error="none'):
        for path in ("/api/papers", "/api/lists", "/api/papers/p1", "/api/openapi.json"):
            answer = program(site, wrong).get(path)
            assert answer.status_code == 401 and "not known here" in answer.json()["error"], (wrong, path)
            header = answer.headers["www-authenticate"]
            assert header.startswith('Bearer realm="nextvec papers", error="invalid_token", error_description="this')
            assert wrong not in header + answer.text and answer.headers["cache-control"] == "no-store"
    later = now() + timedelta(days=1)
    monkeypatch.setattr(tokens, "now", lambda: later)
    answer = program(site, word).get("/api/papers")
    assert answer.status_code == 401 and "this token ended on" in answer.json()["error"]


def test_without_a_token_one_is_asked_for(site: Site) -> None:
    answer = program(site).post("/api/papers/p1/vote")
    assert answer.status_code == 401 and "needs a token with the scope 'vote'" in answer.json()["error"]
    assert answer.headers["www-authenticate"] == 'Bearer realm="nextvec papers"'
    assert answer.headers["access-control-allow-origin"] == "*"


def test_another_scheme_and_a_token_of_the_hub_are_nobodys(site: Site, ada: str) -> None:
    """A proxy's password, and what the Hub's client sends to every endpoint, ask this site for nothing."""
    http = program(site)
    for header in ("Basic YTpi", "Bearer hf_abcdefghijklmnop", "bearer hf_x", "Bearer", "Bearer  ", "Digest x", ""):
        assert http.get("/api/papers", headers={"authorization": header}).status_code == 200, header
        assert http.get("/api/lists", headers={"authorization": header}).status_code == 401, header
    word = made(site, ada, "lists")
    for header in (f"bearer {word}", f"BEARER   {word} "):
        assert http.get("/api/lists", headers={"authorization": header}).status_code == 200, header


def test_a_deleted_account_takes_its_tokens_along(site: Site, ada: str) -> None:
    from nextvec.papers.accounts import personal

    word = made(site, ada, "read")
    document = personal.export(site.db, join(site.db, ADA))
    assert document["tokens"][0]["name"] == "A program" and "token_hash" not in json.dumps(document)
    personal.delete_account(site.db, join(site.db, ADA))
    assert program(site, word).get("/api/papers").status_code == 401


def test_a_site_without_accounts_knows_no_token(small: Site) -> None:
    http = TestClient(create_app(small), headers={"authorization": "Bearer nvp_x"})
    answer = http.get("/api/papers")
    assert answer.status_code == 401 and "no token is known here: this site has no accounts" in answer.json()["error"]
    answer = TestClient(create_app(small)).get("/api/lists")
    assert answer.status_code == 404 and "this site has no accounts" in answer.json()["error"]


def test_pages_and_forms_do_not_know_tokens(site: Site, ada: str) -> None:
    http = program(site, made(site, ada, "read", "vote", "lists"))
    for path in ("/account", "/lists"):
        answer = http.get(path, follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/sign-in"), path
    assert http.post("/vote", data={"paper": "p1", "up": "1"}, follow_redirects=False).status_code == 303
    assert not votes.voted(site.db, ada, ["p1"])


def test_other_origins_may_not_write(site: Site, ada: str) -> None:
    ask = {"origin": "https://else.where", "access-control-request-method": "POST"}
    answer = program(site).options("/api/papers/p1/vote", headers=ask)
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD"


# -- limits --------------------------------------------------------------------------------------------------------
def test_a_token_that_may_read_has_a_limit_of_its_own(site: Site, ada: str) -> None:
    app = make_app(site, rate=2, token_rate=5)
    words = [made(site, ada, "read"), made(site, ada, "read", name="B"), made(site, ada, "vote", name="C")]
    http = TestClient(app, base_url=BASE)

    def ask(word: str, count: int) -> list[Any]:
        headers = {"authorization": f"Bearer {word}"} if word else {}
        return [http.get("/api/papers?limit=1", headers=headers) for _ in range(count)]

    first = ask(words[0], 6)
    assert [answer.status_code for answer in first] == [200] * 5 + [429]
    assert [answer.headers["ratelimit-limit"] for answer in first] == ["5"] * 6
    assert [answer.headers["ratelimit-remaining"] for answer in first] == ["4", "3", "2", "1", "0", "0"]
    assert 1 <= int(first[-1].headers["retry-after"]) <= 12
    assert [answer.status_code for answer in ask(words[1], 5)] == [200] * 5, "each token has its own"
    nobody = [*ask("", 1), *ask("nvp_wrong", 1), *ask("nvp_wrong", 1), *ask(words[2], 1)]
    assert [answer.status_code for answer in nobody] == [200, 401, 429, 429], "all others count as their client"
    assert all(answer.headers["ratelimit-limit"] == "2" for answer in nobody)
    free = TestClient(make_app(site, rate=2), base_url=BASE, headers={"authorization": f"Bearer {words[0]}"})
    assert "ratelimit-limit" not in free.get("/api/papers").headers
    for rates, limit in (({"rate": 9, "token_rate": 5}, "9"), ({"rate": 0, "token_rate": 5}, None)):
        answer = program(site, words[0], **rates).get("/api/papers")
        assert answer.headers.get("ratelimit-limit") == limit, "a token is no disadvantage"


def test_what_a_reader_may_write_is_limited_however_it_comes(
    site: Site, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "RateLimit", partial(RateLimit, clock=lambda: 0.0))  # nothing is filled up meanwhile
    person = Person(make_app(site))
    person.enter(ADA)
    word = made(site, ada, "vote")
    headers = {"authorization": f"Bearer {word}"}
    statuses = [person.http.post("/api/papers/p1/vote", headers=headers).status_code for _ in range(61)]
    assert statuses == [200] * 60 + [429]
    assert person.post("/vote", paper="p2", up="1").status_code == 429, "forms and programs share it"
    answer = person.http.delete("/api/papers/p1/vote", headers=headers)
    assert answer.headers["ratelimit-limit"] == "60" and int(answer.headers["retry-after"]) >= 1


def test_a_token_that_cannot_be_looked_up(
    site: Site, ada: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    word = made(site, ada, "read")

    def lost(*_: object) -> None:
        raise StorageError("cannot use the paper database '/srv/papers.db': the disk is full")

    asking = program(site, word)
    monkeypatch.setattr(tokens, "check", lost)
    answer = asking.get("/api/daily_papers")
    assert answer.status_code == 503 and "/srv" not in answer.text
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.json()["error"].endswith(f"(error {answer.headers['x-error-id']})")
    assert "'/srv/papers.db': the disk is full" in caplog.text and answer.headers["x-error-id"] in caplog.text
