"""Who may do what: every route for everybody, against a table. A route that is not in the table fails the test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from people import SECRET, Mailbox, Person, copied, join, make_app, routes, state

from nextvec.papers.accounts import comments, interests, lists, readers, tokens, votes
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation, queue
from nextvec.papers.web import create_app

WHO = ("anonymous", "reader", "other", "moderator")
ALL = ("ok", "ok", "ok", "ok")
READERS = ("sign-in", "ok", "ok", "ok")
OWNER = ("sign-in", "ok", "404", "404")
AUTHOR = ("sign-in", "ok", "403", "403")
MODERATOR = ("sign-in", "403", "403", "ok")
BEARER = ("401", "401", "401", "401")  # only a token counts here, never a cookie: see test_a_token_gives_what_it_is_for
LETTER = ("400", "400", "400", "400")  # the word in the address decides, whoever asks: here a wrong one

_FEEDS = [
    f"{path}.{ending}"
    for path in (
        "/papers/date/{key}", "/papers/week/{key}", "/papers/month/{key}", "/papers/trending", "/papers/discussed",
        "/papers/new", "/papers/rising", "/papers/daily",
    )
    for ending in ("atom", "rss", "json")
]  # fmt: skip
_PAGES = [
    "/", "/papers", "/papers/daily", "/papers/date/{key}", "/papers/week/{key}", "/papers/month/{key}",
    "/papers/trending", "/papers/discussed", "/papers/new", "/papers/rising", "/papers/{identifier:path}", "/search",
    "/search.atom", "/search.rss", "/search.json", "/search/suggest", "/search/suggest.json",
    "/opensearch.xml", "/map", "/topics", "/about", "/api",
    "/health", "/healthz", "/readyz", "/robots.txt", "/favicon.ico", "/sign-in", "/sign-in/sent", "/shared/{address}",
]  # fmt: skip
_API = [
    "/api/openapi.json", "/api/daily_papers", "/api/papers", "/api/papers/search", "/api/papers/search/facets",
    "/api/papers/{id:path}/similar",
    "/api/papers/{id:path}", "/api/views/{view}",
]  # fmt: skip
FOR_TOKENS: dict[tuple[str, str], tuple[str, str]] = {  # the scope, and what another reader gets
    ("POST", "/api/papers/{id:path}/vote"): ("vote", "ok"),
    ("DELETE", "/api/papers/{id:path}/vote"): ("vote", "ok"),
    ("GET", "/api/lists"): ("lists", "ok"),
    ("POST", "/api/lists"): ("lists", "ok"),
    ("GET", "/api/lists/{list}"): ("lists", "404"),
    ("DELETE", "/api/lists/{list}"): ("lists", "404"),
    ("GET", "/api/lists/{list}/papers"): ("lists", "404"),
    ("POST", "/api/lists/{list}/papers"): ("lists", "404"),
    ("DELETE", "/api/lists/{list}/papers/{id:path}"): ("lists", "404"),
}
EXPECTED: dict[tuple[str, str], tuple[str, str, str, str]] = {
    **{("GET", path): ALL for path in (*_FEEDS, *_PAGES, *_API)},
    **dict.fromkeys(FOR_TOKENS, BEARER),
    ("GET", "/metrics"): ("404", "404", "404", "404"),  # not on a site that others reach, unless told to
    ("POST", "/theme"): ALL,  # changes a cookie of the browser that sends it, nothing else
    ("GET", "/subscribe"): ALL,
    ("POST", "/subscribe"): ALL,  # sends the one mail that asks
    ("GET", "/subscribe/confirm/{token}"): LETTER,
    ("POST", "/subscribe/confirm/{token}"): LETTER,
    ("GET", "/subscriptions/{token}"): LETTER,
    ("POST", "/subscriptions/{token}"): LETTER,
    ("GET", "/unsubscribe/{token}"): LETTER,
    ("POST", "/unsubscribe/{token}"): LETTER,
    ("GET", "/digest/preview"): ALL,
    ("GET", "/digest/preview/mail"): ALL,
    ("GET", "/submit"): ALL,
    ("POST", "/submit"): ALL,  # leaves an arXiv id in the queue
    ("GET", "/submit/{identifier:path}"): ("404", "404", "404", "404"),  # nobody has handed that one in
    # No topics were made of so few papers.
    **{("GET", f"/topics/{{slug}}{ending}"): ("404",) * 4 for ending in ("", ".atom", ".rss", ".json")},
    ("GET", "/sign-in/link"): ALL,
    ("POST", "/sign-in"): ALL,
    ("POST", "/sign-in/link"): ALL,
    ("POST", "/sign-out"): READERS,
    ("POST", "/sign-out/everywhere"): READERS,
    ("GET", "/account"): READERS,
    ("POST", "/account/name"): READERS,
    ("GET", "/account/data.json"): READERS,
    ("POST", "/account/delete"): READERS,
    ("POST", "/account/tokens"): READERS,
    ("POST", "/account/tokens/{identifier}/revoke"): OWNER,
    ("POST", "/vote"): READERS,
    ("POST", "/comments"): READERS,
    ("GET", "/comments/{identifier}/reply"): READERS,
    ("GET", "/comments/{identifier}/edit"): AUTHOR,
    ("POST", "/comments/{identifier}/edit"): AUTHOR,
    ("POST", "/comments/{identifier}/delete"): AUTHOR,
    ("POST", "/comments/{identifier}/hide"): MODERATOR,
    ("GET", "/lists"): READERS,
    ("POST", "/lists"): READERS,
    ("POST", "/save"): OWNER,
    ("GET", "/lists/{identifier}"): OWNER,
    ("POST", "/lists/{identifier}/name"): OWNER,
    ("POST", "/lists/{identifier}/share"): OWNER,
    ("POST", "/lists/{identifier}/delete"): OWNER,
    ("POST", "/lists/{identifier}/note"): OWNER,
    ("POST", "/lists/{identifier}/remove"): OWNER,
    ("GET", "/following"): READERS,
    ("POST", "/follow"): READERS,
    ("POST", "/unfollow"): READERS,
    ("GET", "/for-you"): READERS,
    ("GET", "/moderation"): MODERATOR,
    ("POST", "/moderation/hide"): MODERATOR,
    ("POST", "/moderation/show"): MODERATOR,
    ("POST", "/moderation/merge"): MODERATOR,
    ("POST", "/moderation/split"): MODERATOR,
    ("POST", "/moderation/decide"): MODERATOR,
}
OPEN = ("/theme", "/submit", *(path for _, path in EXPECTED if path.startswith(("/subscri", "/unsubscribe"))))
"""What anybody may send, signed in or not; its own tests say what it refuses."""
WRITING = sorted(path for method, path in EXPECTED if method == "POST" and path not in OPEN and "/api/" not in path)


@dataclass
class World:
    """A site with four people at it, and what belongs to the first of the readers."""

    site: Site
    people: dict[str, Person]
    comment: str
    list: str
    address: str
    link: str
    token: str

    def fields(self, path: str) -> dict[str, str]:
        """What the form at ``path`` sends; a list or a comment in it is the reader's."""
        return {
            "/sign-in": {"email": "new@example.org"},
            "/sign-in/link": {"link": self.link},
            "/account/name": {"name": "Somebody new"},
            "/account/delete": {"sure": "1"},
            "/account/tokens": {"name": "A program", "vote": "1", "ends_on": ""},
            "/subscribe": {
                "kind": "topic",
                "topic": "agents",
                "every": "day",
                "at": "08:00",
                "zone": "UTC",
                "weekend": "join",
            }
            | {"most": "2", "address": "new@example.org"},
            "/submit": {"link": "https://arxiv.org/abs/2501.00001"},
            "/vote": {"paper": "p1", "up": "1"},
            "/comments": {"paper": "p1", "text": "A comment.", "parent": self.comment},
            "/comments/{identifier}/edit": {"text": "Another text."},
            "/comments/{identifier}/hide": {"hidden": "1"},
            "/lists": {"name": "Another list"},
            "/save": {"paper": "p2", "list": self.list},
            "/lists/{identifier}/name": {"name": "Another name"},
            "/lists/{identifier}/share": {"on": "0"},
            "/lists/{identifier}/note": {"paper": "p1", "note": "Another note"},
            "/lists/{identifier}/remove": {"paper": "p1"},
            "/moderation/hide": {"paper": "p1", "reason": "posted twice"},
            "/moderation/show": {"paper": "p4"},
            "/moderation/merge": {"paper": "p1", "gone": "p2", "reason": "the same"},
            "/moderation/split": {"paper": "p5"},
            "/moderation/decide": {"paper": "2501.00002", "approve": "0", "reason": "not ours"},
            "/follow": {"kind": "topic", "said": "plans", "stance": "mute"},
            "/unfollow": {"kind": "author", "folded": "ada lovelace"},
        }.get(path, {})

    def word_of(self, path: str) -> str:
        """The id of something of the reader's."""
        return {"comments": self.comment, "account": self.token}.get(path.split("/")[1], self.list)

    def address_of(self, path: str) -> str:
        return {
            "/sign-in/link": f"/sign-in/link?token={self.link}",
            "/shared/{address}": f"/shared/{self.address}",
            "/api/views/{view}": "/api/views/trending",
            "/api/papers/search": "/api/papers/search?q=plans",
            "/api/papers/search/facets": "/api/papers/search/facets?q=plans",
            **{f"/search.{ending}": f"/search.{ending}?q=plans" for ending in ("atom", "rss", "json")},
        }.get(path) or (
            path.replace("{identifier}", self.word_of(path))
            .replace("{list}", self.list)
            .replace("/date/{key}", "/date/2025-03-01")
            .replace("/week/{key}", "/week/2025-W09")
            .replace("/month/{key}", "/month/2025-03")
            .replace("{identifier:path}", "p1")
            .replace("{id:path}", "p1")
        )


NUMBERS = itertools.count()


def build(filled: Path, folder: Path) -> World:
    """A world over a copy of the home ``filled``."""
    site = copied(filled, folder)
    app = make_app(site, Mailbox())
    people = {who: Person(app) for who in WHO}
    ids = {who: people[who].enter(f"{who}@example.org").id for who in WHO[1:]}
    readers.set_role(site.db, "moderator@example.org", "moderator")
    mine = ids["reader"]
    comment = comments.write(site.db, mine, "p1", "The reader's.")
    held = lists.add(site.db, mine, None, "p1", name="The reader's", note="Note")
    address = lists.share(site.db, mine, held, on=True) or ""
    votes.give(site.db, mine, "p2")
    interests.choose(site.db, mine, "author", "Ada Lovelace", "follow")
    people["anonymous"].post("/sign-in", "/sign-in", email="anonymous@example.org", next="/")
    link = people["anonymous"].mailbox.link().partition("token=")[2]
    token, _ = tokens.make(site.db, mine, "The reader's", ["read"])
    moderation.hide(site.db, "p4", reason="by hand", actor="tests")
    moderation.merge(site.db, "p3", "p5", actor="tests")
    queue.submit(site.db, "2501.00002")
    return World(site, people, comment, held, address, link, token.id)


def copy(world: World, home: Path, folder: Path) -> World:
    """The same at a copy of ``home``, which the closed site of ``world`` left: everybody is signed in there too."""
    site = copied(home, folder)
    app = make_app(site, Mailbox())
    people = {who: Person(app) for who in WHO}
    for who, person in people.items():
        person.http.cookies.update(world.people[who].http.cookies)
    return replace(world, site=site, people=people)


@pytest.fixture(scope="module")
def first(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    """A world that is copied, its site closed, and its home."""
    home = tmp_path_factory.mktemp("worlds") / "first"
    made = build(filled, home)
    made.site.close()
    return made, home


@pytest.fixture
def world(first: tuple[World, Path], tmp_path: Path) -> Iterator[Callable[[], World]]:
    """Makes worlds to change."""
    made: list[World] = []

    def make() -> World:
        made.append(copy(*first, tmp_path / str(next(NUMBERS))))
        return made[-1]

    yield make
    for one in made:
        one.site.close()


@pytest.fixture(scope="module")
def standing(first: tuple[World, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world that is only looked at."""
    made = copy(*first, tmp_path_factory.mktemp("standing") / "site")
    yield made
    made.site.close()


def test_the_table_names_every_route(small: Site) -> None:
    found = set(routes(create_app(small)))
    assert len(found) > 60
    assert found - set(EXPECTED) == set(), "new routes need a line in EXPECTED"
    assert set(EXPECTED) - found == set(), "lines of EXPECTED without a route"


@pytest.mark.parametrize("route", sorted(EXPECTED), ids=" ".join)
def test_everybody_gets_what_is_expected(route: tuple[str, str], world: Callable[[], World], standing: World) -> None:
    method, path = route
    here = standing if method == "GET" else None
    before = state(here.site) if here else None
    for who, expected in zip(WHO, EXPECTED[route], strict=True):
        if here is None:
            here = world()
            before = state(here.site)
        person = here.people[who]
        address = here.address_of(path)
        page = "/sign-in/link?token=" + here.link if path.startswith("/sign-in") and who == "anonymous" else "/account"
        if method == "GET" or path.startswith("/api/"):
            answer = person.http.request(method, address)
        else:
            answer = person.post(address, page, **here.fields(path))
        got = str(answer.status_code)
        if answer.status_code == 303 and answer.headers["location"].startswith("/sign-in?"):
            got = "sign-in"
        elif answer.status_code < 400:
            got = "ok"
        assert got == expected, (route, who, answer.status_code, answer.headers.get("location"), answer.text[:2000])
        if got != "ok" or method == "GET":
            assert state(here.site) == before, (route, who, "nothing may change")
        elif path != "/theme":
            here = None


@pytest.mark.parametrize("path", WRITING)
def test_a_form_from_elsewhere_changes_nothing(path: str, world: Callable[[], World]) -> None:
    here: World = world()
    who = "moderator" if EXPECTED["POST", path] == MODERATOR else "reader"
    person = here.people[who]
    address, fields = here.address_of(path), here.fields(path) | {"next": "/"}
    token, foreign = person.token(), here.people["other"].token()
    before = state(here.site)
    sent: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        ({"token": ""}, {}),
        ({"token": foreign}, {}),
        ({"token": token[:-1]}, {}),
        ({"token": token}, {"origin": "https://evil.example"}),
        ({"token": token}, {"origin": "https://papers.example.org.evil.example"}),
        ({"token": token}, {"origin": "http://papers.example.org"}),
        ({"token": token}, {"origin": "null"}),
        ({"token": token}, {"sec-fetch-site": "cross-site"}),
    ]
    for more, headers in sent:
        answer = person.http.post(address, data=fields | more, headers=headers)
        assert answer.status_code == 403, (more, headers, answer.text)
        assert state(here.site) == before
    wrong_kind = person.http.post(address, json=fields | {"token": token})
    assert wrong_kind.status_code == 400 and state(here.site) == before
    too_large = person.http.post(address, data=fields | {"token": token, "x": "y" * 70_000})
    assert too_large.status_code == 413 and state(here.site) == before
    answer = person.http.post(address, data=fields | {"token": token}, headers={"origin": "https://papers.example.org"})
    assert answer.status_code in (200, 303), "the same form from the site's own page"


@pytest.mark.parametrize("route", sorted(FOR_TOKENS), ids=" ".join)
def test_a_token_gives_what_it_is_for(route: tuple[str, str], world: Callable[[], World]) -> None:
    """Its reader, with the scope; another reader, with the scope; and nobody with all other scopes."""
    method, path = route
    scope, others = FOR_TOKENS[route]
    here: World = world()
    bodies = {"/api/lists": {"name": "By a program"}, "/api/lists/{list}/papers": {"id": "p2"}}
    ids = {who: join(here.site.db, f"{who}@example.org").id for who in ("reader", "other")}
    asked = {"json": bodies[path]} if method == "POST" and path in bodies else {}
    stranger = Person(here.people["reader"].http.app)  # type: ignore[arg-type]

    def ask(reader: str, scopes: list[str]) -> Any:
        _, word = tokens.make(here.site.db, reader, f"Token {next(NUMBERS)}", scopes)
        headers = {"authorization": f"Bearer {word}"}
        return stranger.http.request(method, here.address_of(path), headers=headers, **asked)

    rest = [one for one in tokens.SCOPES if one != scope]
    before = without_tokens(here.site)
    refused = ask(ids["reader"], rest)
    assert refused.status_code == 403 and f'scope="{scope}"' in refused.headers["www-authenticate"], refused.text
    assert without_tokens(here.site) == before
    answer = ask(ids["other"], [scope])
    assert ("ok" if answer.status_code < 400 else str(answer.status_code)) == others, answer.text
    if others != "ok":
        assert without_tokens(here.site) == before
    answer = ask(ids["reader"], [scope])
    assert answer.status_code < 400, answer.text
    assert "set-cookie" not in answer.headers


def without_tokens(site: Site) -> dict[str, Any]:
    """The state of everything but the tokens themselves."""
    return {name: rows for name, rows in state(site).items() if name != "tokens"}


def test_a_site_without_accounts_has_none_of_it(small: Site) -> None:
    person = Person(create_app(small, secret=SECRET))
    for method, path in EXPECTED:
        if "sign-in" in EXPECTED[method, path] or path in ("/sign-in/link", "/sign-in/sent"):
            answer = person.http.request(
                method, path.replace("{identifier}", "x"), data={} if method == "POST" else None
            )
            assert answer.status_code == 404 and "this site has no accounts" in answer.text.lower(), (method, path)
    page = person.get("/sign-in")
    assert page.status_code == 200 and "--local-reader" in page.text and '<form class="fields"' not in page.text
    assert "Sign in" not in person.get("/").text and "accounts.css" not in person.get("/").text
