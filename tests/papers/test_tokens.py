"""Tokens of readers' programs: made and shown once, checked, counted, refused, revoked; votes and lists with them."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people import BASE, SECRET, Person, join, make_app, of, state

from nextvec.papers.accounts import lists, tokens, votes
from nextvec.papers.accounts.readers import LOCAL
from nextvec.papers.accounts.tables import TOKENS, now
from nextvec.papers.api import specification
from nextvec.papers.db import Database
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation
from nextvec.papers.web import create_app
from nextvec.types import InputError, NotFoundError, StorageError

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
    path = tmp_path / "x.sqlite"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        migrate(connection, [step for step in MIGRATIONS if step.number < 8])
        assert not sa.inspect(connection).has_table(TOKENS.name)
    with Database(path) as db:
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


def test_what_a_reader_may_write_is_limited_however_it_comes(site: Site, ada: str) -> None:
    person = Person(make_app(site))
    person.enter(ADA)
    word = made(site, ada, "vote")
    headers = {"authorization": f"Bearer {word}"}
    statuses = [person.http.post("/api/papers/p1/vote", headers=headers).status_code for _ in range(61)]
    assert statuses == [200] * 60 + [429]
    assert person.post("/vote", paper="p2", up="1").status_code == 429, "forms and programs share it"
    answer = person.http.delete("/api/papers/p1/vote", headers=headers)
    assert answer.headers["ratelimit-limit"] == "60" and int(answer.headers["retry-after"]) >= 1


# -- votes and lists -----------------------------------------------------------------------------------------------
def test_votes(site: Site, ada: str) -> None:
    http = program(site, made(site, ada, "vote"))
    before = of(site.db, "p1").upvotes
    for _ in range(2):
        assert http.post("/api/papers/p1/vote").json() == {"id": "p1", "upvotes": before + 1, "voted": True}
    assert http.get("/api/papers/p1").json()["upvotes"] == before + 1
    for _ in range(2):
        assert http.delete("/api/papers/p1/vote").json() == {"id": "p1", "upvotes": before, "voted": False}
    for method in ("POST", "DELETE"):
        for path in ("nowhere", "..%2f..%2fetc", "x" * 200):
            answer = http.request(method, f"/api/papers/{path}/vote")
            assert answer.status_code == 404 and "there is no paper" in answer.json()["error"]
    answer = http.put("/api/papers/p1/vote")
    assert answer.status_code == 405 and "POST or DELETE" in answer.json()["error"], answer.text


def test_a_vote_finds_a_paper_that_became_another(site: Site, ada: str) -> None:
    http = program(site, made(site, ada, "vote"))
    moderation.merge(site.db, "p1", "p2", actor="somebody")
    answer = http.post("/api/papers/p2/vote")
    assert answer.json()["id"] == "p1" and votes.voted(site.db, ada, ["p1"])
    moderation.hide(site.db, "p3", reason="posted twice", actor="somebody")
    assert http.post("/api/papers/p3/vote").status_code == 410


def test_lists(site: Site, ada: str) -> None:
    http = program(site, made(site, ada, "lists"))
    assert http.get("/api/lists").json() == []
    answer = http.post("/api/lists", json={"name": "To read"})
    new = answer.json()
    assert answer.status_code == 201 and (new["name"], new["papers"], new["shared"]) == ("To read", 0, False)
    at = f"/api/lists/{new['id']}"
    entry = http.post(f"{at}/papers", json={"id": "p1", "note": "See figure 3"}).json()
    assert (entry["paper"]["id"], entry["note"]) == ("p1", "See figure 3") and entry["addedAt"].endswith("Z")
    http.post(f"{at}/papers", json={"id": "p2"})
    assert http.post(f"{at}/papers", json={"id": "p1", "note": "Read it"}).json()["note"] == "Read it"
    found = http.get(f"{at}/papers").json()
    assert [(one["paper"]["id"], one["note"]) for one in found] == [("p2", ""), ("p1", "Read it")]
    assert http.get(at).json()["papers"] == 2 == http.get("/api/lists").json()[0]["papers"]
    lines = http.get(f"{at}/papers?format=jsonl")
    assert lines.headers["content-type"] == "application/jsonl"
    assert [json.loads(line) for line in lines.text.splitlines()] == found
    text = http.get(f"{at}/papers?format=bibtex")
    assert text.headers["content-type"] == "application/x-bibtex; charset=utf-8"
    assert text.text == lists.as_bibtex(lists.entries(site.db, new["id"])) and text.text.count("@misc{") == 2
    assert http.delete(f"{at}/papers/p2").status_code == 204 == http.delete(f"{at}/papers/p2").status_code
    assert [one["paper"]["id"] for one in http.get(f"{at}/papers").json()] == ["p1"]
    assert http.head(f"{at}/papers").status_code == 200
    assert http.delete(at).status_code == 204 and http.get(at).status_code == 404
    assert http.get(f"{at}/papers").headers["cache-control"] == "no-store"


def test_what_is_not_kept_by_anybody_on_the_way(site: Site, ada: str) -> None:
    held = lists.create(site.db, ada, "To read")
    http = program(site, made(site, ada, "lists"))
    for path in (
        "/api/lists",
        f"/api/lists/{held}",
        f"/api/lists/{held}/papers",
        f"/api/lists/{held}/papers?format=bibtex",
    ):
        headers = http.get(path).headers
        assert headers["cache-control"] == "private, no-store" and "Authorization" in headers["vary"], path


def test_a_paper_that_is_gone_can_be_taken_out(site: Site, ada: str) -> None:
    held = lists.add(site.db, ada, None, "p3", name="To read")
    moderation.hide(site.db, "p3", reason="posted twice", actor="somebody")
    http = program(site, made(site, ada, "lists"))
    assert http.get(f"/api/lists/{held}").json()["papers"] == 1 and http.get(f"/api/lists/{held}/papers").json() == []
    assert http.delete(f"/api/lists/{held}/papers/p3").status_code == 204
    assert http.get(f"/api/lists/{held}").json()["papers"] == 0


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"{}", "application/json", "name is {}; Field required"),
        (b'{"name": ""}', "application/json", "name is ''"),
        (b'{"name": "  "}', "application/json", "expected 1 to 80"),
        (b'{"name": 3}', "application/json", "name is 3; it should be a valid string"),
        (b'{"name": "a", "reader": "local"}', "application/json", "reader is 'local'"),
        (b"[]", "application/json", "the body is"),
        (b"{", "application/json", "the body is"),
        (b"\xff\xfe", "application/json", "the body is"),
        (b"name=a", "application/x-www-form-urlencoded", "expected application/json"),
        (b"", "", "expected application/json"),
    ],
)
def test_a_body_that_is_none(site: Site, ada: str, body: bytes, kind: str, message: str) -> None:
    http = program(site, made(site, ada, "lists"))
    answer = http.post("/api/lists", content=body, headers={"content-type": kind})
    assert answer.status_code == 400 and message in answer.json()["error"], answer.text
    assert lists.of_reader(site.db, ada) == []


def test_a_body_that_is_too_large(site: Site, ada: str) -> None:
    http = program(site, made(site, ada, "lists"))
    answer = http.post("/api/lists", json={"name": "x" * 70_000})
    assert answer.status_code == 413 and "larger than 64 kB" in answer.json()["error"]
    refused = program(site).post("/api/lists", content=b"x" * 70_000, headers={"content-type": "application/json"})
    assert refused.status_code == 401, "who may not write is not even listened to"


# -- the specification ---------------------------------------------------------------------------------------------
WRITING = [
    (path, method)
    for path, operations in specification()["paths"].items()
    for method, operation in operations.items()
    if {} not in operation["security"]
]


def test_the_specification_tells_of_tokens() -> None:
    document = specification()
    scheme = document["components"]["securitySchemes"]["token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer") and all(
        one in scheme["description"] for one in tokens.SCOPES
    )
    scopes = {f"{method} {path}": document["paths"][path][method]["security"][0]["token"] for path, method in WRITING}
    assert len(scopes) == 9 and scopes["delete /papers/{id}/vote"] == ["vote"]
    for path, method in WRITING:
        assert {"401", "403", "404", "429"} <= set(document["paths"][path][method]["responses"])


@pytest.mark.parametrize(("path", "method"), WRITING)
def test_answers_are_those_of_the_specification(site: Site, ada: str, path: str, method: str) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    app = make_app(site)
    app.state.accounts._limits["reader"].rate = 10_000
    schema: Any = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    held = lists.add(site.db, ada, None, "p1", name="To read")
    headers = {"Authorization": f"Bearer {made(site, ada, 'lists', 'vote')}"}
    statuses = set()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=schema[path][method.upper()].as_strategy(), known=st.booleans(), paper=st.sampled_from(["p1", "p2"]))
    def ask(case: Any, known: bool, paper: str) -> None:
        if known:
            for name, value in (("id", paper), ("list", held)):
                if name in case.path_parameters:
                    case.path_parameters[name] = value
            if known and path == "/lists/{list}/papers" and isinstance(case.body, dict):
                case.body["id"] = paper
        response = case.call(headers=headers)
        statuses.add(response.status_code)
        assert response.status_code in (200, 201, 204, 400, 404), response.text
        conforming = [
            not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
            checks.response_schema_conformance,
        ]  # fmt: skip
        case.validate_response(response, checks=conforming)

    ask()
    assert statuses & {200, 201, 204}, "what it generated was not only refused"
