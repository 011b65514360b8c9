"""What strangers try: markup in what readers write, forged cookies, links of others, mails to others, long input."""

from __future__ import annotations

import hmac
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people import BASE, SECRET, Mailbox, Person, make_app, state
from test_web import Page

from nextvec.papers.accounts import comment_text, guard, lists, readers, signing_in
from nextvec.papers.accounts.tables import SESSIONS
from nextvec.papers.db import Database
from nextvec.papers.rate import RateLimit
from nextvec.papers.signing import Signer
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
from nextvec.types import InputError

EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)>{{7777*7777}}' OR 1=1 --"


@pytest.fixture
def app(site: Site) -> FastAPI:
    return make_app(site, Mailbox())


def mailbox_of(app: FastAPI) -> Mailbox:
    found = app.state.accounts.mailer
    assert isinstance(found, Mailbox)
    return found


# -- markup --------------------------------------------------------------------------------------------------------
class Elements(HTMLParser):
    """The elements of a piece of HTML with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def check_harmless(text: str) -> None:
    """Only the elements of a comment; links to http(s) only, marked as somebody else's word."""
    for tag, attributes in Elements(text).found:
        assert tag in {"p", "br", "em", "strong", "code", "pre", "blockquote", "ul", "ol", "li", "a", "hr"}, text
        if tag == "a":
            assert set(attributes) <= {"href", "rel"}, text
            if "href" in attributes:
                assert re.match(r"https?:", attributes["href"] or ""), text
            assert set((attributes.get("rel") or "").split()) == {"nofollow", "ugc", "noopener"}, text
        elif tag == "ol":
            assert set(attributes) <= {"start"}, text
        else:
            assert not attributes, text


@pytest.mark.parametrize(
    "text",
    [
        EVIL, "<script>alert(1)</script>", "<b onclick=x>b</b>", "![x](https://evil.example/pixel.gif)",
        "[a](javascript:alert(1))", "[a](JaVaScRiPt:alert(1))", "[a](data:text/html,x)", "[a](//evil.example)",
        "[a](/account/delete)", "<https://ok.example>", "<javascript:alert(1)>", "[a](https://ok.example 'onclick=x')",
        "[a]: javascript:alert(1)\n\n[a]", "```html onclick=x\n<script>\n```", "# Heading", "Heading\n===",
        "<!-- x -->", "<![CDATA[x]]>", "&lt;script&gt;", "[x](https://a.example/\"onmouseover=alert(1))",
        "> " * 300 + "deep", "- " * 200 + "deep", "*" * 4000, "[" * 4000, "`" * 3999,
    ],
)  # fmt: skip
def test_markdown_cannot_do_anything(text: str) -> None:
    html = str(comment_text.html(text))
    check_harmless(html)
    assert "<script" not in html and "<img" not in html and "<h1" not in html


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="[]()<>!*_`#\"'&;:/= \n-javscriptdthx", max_size=120))
def test_no_markdown_can(text: str) -> None:
    check_harmless(str(comment_text.html(text)))


def test_each_wall_holds_alone() -> None:
    """What reads Markdown makes no elements of HTML, images and headings; what cleans HTML needs no reader."""
    read = comment_text._reader().render
    for text in (EVIL, "<b>b</b>", "![x](https://evil.example/pixel.gif)", "# Heading", "Heading\n===", "<!-- x -->"):
        assert {tag for tag, _ in Elements(read(text)).found} <= {"p", "a", "br"}, text
    for text in (
        EVIL, "<p onclick=x style=color:red>p</p>", "<h1>h</h1><img src=x><iframe src=x></iframe><svg onload=x>",
        '<a href="javascript:x">a</a><a href="data:text/html,x">b</a><a href="/account">c</a><a href="https://ok.example">d',
    ):  # fmt: skip
        check_harmless(comment_text._cleaned(text))


def test_markdown_does_what_it_should() -> None:
    html = str(
        comment_text.html("*a* **b** `c<d`\nline\n\n- one\n\n> said\n\n[x](https://ok.example/?a=1&b=2)\n\n1 < 2")
    )
    for part in (
        "<em>a</em>", "<strong>b</strong>", "<code>c&lt;d</code>", "<br>", "<li>one</li>", "<blockquote>", "1 &lt; 2",
        '<a href="https://ok.example/?a=1&amp;b=2" rel="nofollow ugc noopener">x</a>',
    ):  # fmt: skip
        assert part in html, html


def test_what_readers_write_is_never_markup(app: FastAPI) -> None:
    ada, bob = Person(app), Person(app)
    ada.enter("ada@example.org")
    bob.enter("bob@example.org")
    name = "<b>Ada</b> {{7777*7777}} \"'&"
    assert ada.post("/account/name", name=name).status_code == 303
    one = ada.comment("p1", EVIL)
    assert ada.post("/save", paper="p1", name=EVIL[:80], note=EVIL).status_code == 303
    held = re.search(r"/lists/([\w-]{22})", ada.get("/lists").text)
    assert held is not None
    assert ada.post(f"/lists/{held.group(1)}/share", on="1").status_code == 303
    page = ada.get(f"/lists/{held.group(1)}").text
    address = re.search(rf"{BASE}(/shared/[\w-]+)", page)
    assert address is not None
    assert ada.post("/follow", kind="topic", said="plans <script>", stance="follow").status_code == 303
    assert (
        ada.post("/follow", kind="search", said="q=" + "plans<script>alert(1)</script>", stance="follow").status_code
        == 303
    )
    pages = [
        (bob, "/papers/p1"), (ada, "/papers/p1"), (bob, address.group(1)), (ada, f"/lists/{held.group(1)}"),
        (ada, "/lists"), (ada, "/account"), (ada, "/following"), (ada, "/for-you"), (bob, f"/comments/{one}/reply"),
        (ada, f"/comments/{one}/edit"), (ada, "/following?kind=author&said=" + EVIL),
    ]  # fmt: skip
    for person, path in pages:
        answer = person.get(path)
        assert answer.status_code == 200, path
        parsed = Page(answer.text)
        assert len(parsed.ids) == len(set(parsed.ids)), path
        text = answer.text
        assert "<script>alert" not in text and "<img src=x" not in text and "<b>Ada" not in text, path
        assert str(7777 * 7777) not in text, path  # no template is made of it
        assert answer.headers["cache-control"] == "private, no-cache"
    assert ada.get(f"/lists/{held.group(1)}.json").json()["papers"][0]["note"] == EVIL
    assert bob.get(address.group(1) + ".bib").headers["content-type"].startswith("application/x-bibtex")


# -- cookies and links ---------------------------------------------------------------------------------------------
def test_the_way_in_and_out(app: FastAPI) -> None:
    ada = Person(app)
    page = ada.get("/sign-in?next=/papers/p1")
    cookie = page.headers["set-cookie"]
    assert (
        cookie.startswith("__Host-form=") and "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" in cookie
    )
    answer = ada.sign_in("Ada@Example.org", back="/papers/p1?comments=1#comments")
    assert answer.headers["location"] == "/papers/p1?comments=1#comments"
    cookies = answer.headers.get_list("set-cookie")
    session = next(cookie for cookie in cookies if cookie.startswith("__Host-session="))
    assert "HttpOnly" in session and "SameSite=lax" in session and "Secure" in session and "Path=/" in session
    assert mailbox_of(app).messages[0]["To"] == "ada@example.org"
    assert "ada@example.org" in ada.get("/account").text
    assert ada.get("/sign-in?next=/lists").headers["location"] == "/lists"
    assert ada.post("/sign-out").headers["location"] == "/"
    assert ada.get("/account").headers["location"] == "/sign-in?next=%2Faccount"


def test_plain_http_has_plain_cookies(site: Site) -> None:
    mailbox = Mailbox()
    app = create_app(site, base="http://papers.example.org", mailer=mailbox, secret=SECRET)
    page = Person(app, base="http://papers.example.org").get("/sign-in")
    cookie = page.headers["set-cookie"]
    assert cookie.startswith("form=") and "Secure" not in cookie and "HttpOnly" in cookie


def test_opening_the_link_does_not_sign_in(app: FastAPI) -> None:
    ada, scanner = Person(app), Person(app)
    ada.post("/sign-in", "/sign-in", email="ada@example.org", next="/")
    link = mailbox_of(app).link()
    for _ in range(3):
        answer = scanner.get(link)
        assert answer.status_code == 200 and "session=" not in answer.headers.get("set-cookie", "")
        assert answer.headers["referrer-policy"] == "same-origin" and answer.headers["cache-control"] == "no-store"
        assert scanner.get("/account").status_code == 303
    token = link.partition("token=")[2]
    assert ada.post("/sign-in/link", link, link=token).status_code == 303
    assert ada.get("/account").status_code == 200
    again = Person(app)
    answer = again.post("/sign-in/link", "/sign-in", link=token)
    assert answer.status_code == 400 and "used already" in answer.text and again.get("/account").status_code == 303


def test_known_and_unknown_addresses_get_the_same_answer(app: FastAPI) -> None:
    Person(app, "ada@example.org")
    stranger = Person(app)
    answers = [stranger.post("/sign-in", "/sign-in", email=email) for email in ("ada@example.org", "eve@example.org")]
    told = [(answer.status_code, answer.headers["location"], answer.text) for answer in answers]
    assert told[0] == told[1]
    assert [message["To"] for message in mailbox_of(app).messages] == [
        "ada@example.org", "ada@example.org", "eve@example.org",
    ]  # fmt: skip


def test_signing_out_everywhere(app: FastAPI) -> None:
    home, work = Person(app, "ada@example.org"), Person(app, "ada@example.org")
    other = Person(app, "bob@example.org")
    assert work.post("/sign-out/everywhere").status_code == 303
    assert home.get("/account").status_code == work.get("/account").status_code == 303
    assert other.get("/account").status_code == 200


def test_a_changed_cookie_is_nobody(app: FastAPI) -> None:
    ada, eve = Person(app), Person(app)
    ada.enter("ada@example.org")
    good = ada.http.cookies["__Host-session"]
    value, stamp, signature = good.split(".")  # not its last letter, some of whose bits are none of the signature's
    with app.state.accounts.site.db.read() as connection:
        session = connection.execute(sa.select(SESSIONS.c.id)).scalar_one()
    forged = [
        f"{value}.{stamp}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        "A" + good, value, session, "", "x" * 5_000,
        Signer(b"another secret of thirty-two bytes").sign("session", session),
        Signer(SECRET).sign("form", session), Signer(SECRET).sign("session", "somebody"),
        Signer(SECRET).sign("session", ["x"]), Signer(SECRET).sign("session", None),
    ]  # fmt: skip
    for value in forged:
        eve.http.cookies.clear()
        eve.http.cookies.set("__Host-session", value, domain="papers.example.org")
        assert eve.get("/account").status_code == 303, value[:60]
        assert eve.get("/").status_code == 200
    eve.http.cookies.set("__Host-session", good, domain="papers.example.org")
    assert eve.get("/account").status_code == 200, "the whole one is Ada's"


def test_a_deleted_account_is_out_at_once(app: FastAPI) -> None:
    ada = Person(app, "ada@example.org")
    token = ada.token()
    assert ada.post("/account/delete").status_code == 400 and ada.get("/account").status_code == 200
    assert ada.post("/account/delete", sure="1").status_code == 303
    assert ada.get("/account").status_code == 303
    assert ada.http.post("/vote", data={"token": token, "paper": "p1", "up": "1"}).status_code == 303
    assert "ada@example.org" not in str(state(app.state.accounts.site))


@pytest.mark.parametrize(
    "target", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "\t//evil.example",
               "/ /x", "/x\r\nSet-Cookie: a=b", "evil", "/" + "x" * 3_000, "\\\\evil.example"],
)  # fmt: skip
def test_no_address_leads_away(app: FastAPI, target: str) -> None:
    ada = Person(app)
    assert ada.post("/sign-in", "/sign-in", email="ada@example.org", next=target).status_code == 303
    link = mailbox_of(app).link()
    answer = ada.post("/sign-in/link", link, link=link.partition("token=")[2])
    assert answer.headers["location"] == "/" and "a=b" not in str(answer.headers)
    assert ada.get("/sign-in", params={"next": target}).headers["location"] == "/"
    followed = ada.post("/follow", kind="topic", said="plans", stance="follow", next=target)
    assert followed.headers["location"] == "/"
    assert ada.http.post("/theme", params={"next": target}).headers["location"] == "/"
    for paper in ("//evil.example", "../..//evil.example"):
        assert ada.post("/vote", paper=paper, up="0").status_code == 404


# -- mail ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("email", ["a@b.org\r\nBcc: eve@evil.example", "a@b.org, c@d.org", "a@b.org\x00", "<a@b.org>"])
def test_one_form_sends_to_one_address(app: FastAPI, email: str) -> None:
    answer = Person(app).post("/sign-in", "/sign-in", email=email)
    assert answer.status_code == 400 and mailbox_of(app).messages == []


def test_a_link_never_follows_the_host_header(app: FastAPI) -> None:
    ada = Person(app)
    token = ada.token("/sign-in")
    answer = ada.http.post(
        "/sign-in", data={"email": "ada@example.org", "token": token}, headers={"host": "evil.example"}
    )
    assert answer.status_code == 303
    assert "evil.example" not in mailbox_of(app).messages[0].as_string() and mailbox_of(app).link()


def test_a_mail_that_cannot_be_sent_leaves_no_link(app: FastAPI) -> None:
    mailbox_of(app).broken = True
    for _ in range(4):
        answer = Person(app).post("/sign-in", "/sign-in", email="ada@example.org")
        assert answer.status_code == 500 and "no route" not in answer.text
    assert state(app.state.accounts.site)["sign_ins"] == []


def test_limits_on_links_and_on_writing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "RateLimit", partial(RateLimit, clock=lambda: 0.0))  # nothing is filled up meanwhile
    app = make_app(site, Mailbox())
    ada = Person(app)
    answers = [ada.post("/sign-in", "/sign-in", email="ada@example.org").status_code for _ in range(7)]
    assert answers == [303] * 5 + [429] * 2 and len(mailbox_of(app).messages) == 3, "and three open links at most"
    assert ada.post("/sign-in", "/sign-in", email="bob@example.org").status_code == 303
    answers = [ada.post("/sign-in", "/sign-in", email=f"r{i}@example.org").status_code for i in range(30)]
    assert answers[:12] == [303] * 12 and answers[-1] == 429
    limited = ada.post("/sign-in", "/sign-in", email="new@example.org")
    assert int(limited.headers["retry-after"]) > 0 and "try again" in limited.text.lower()
    ada.enter("new@example.org")
    token = ada.token()
    codes = [ada.http.post("/vote", data={"token": token, "paper": "p1", "up": "1"}).status_code for _ in range(90)]
    assert codes == [303] * 60 + [429] * 30


def test_a_client_may_send_so_many_forms_whoever_it_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "RateLimit", partial(RateLimit, clock=lambda: 0.0))
    stranger = Person(make_app(site, Mailbox()))
    codes = [stranger.http.post("/sign-in", data={"token": "x"}).status_code for _ in range(124)]
    assert codes == [403] * 120 + [429] * 4, "each was read and refused, until there were too many"


def test_words_that_are_secret_are_compared_in_constant_time(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or original(a, b))
    site = app.state.accounts.site
    link = signing_in.make_link(site.db, "ada@example.org", "/")
    assert signing_in.check_link(site.db, link or "") == "ada@example.org"
    for text in ("A" * 22 + "." + "A" * 43, "nonsense"):
        with pytest.raises(InputError):
            signing_in.check_link(site.db, text)
    assert len(compared) == 3 and all(len(a) == len(b) == 64 for a, b in compared), "where there is no row, too"
    ada = Person(app)
    ada.enter("ada@example.org")
    form = {"token": ada.token(), "paper": "p1", "up": "1"}
    compared.clear()
    assert ada.http.post("/vote", data=form).status_code == 303
    with site.db.read() as connection:
        session = connection.execute(sa.select(SESSIONS.c.id)).scalar_one().encode()
    assert (session, session) in compared, "what a form's token was given to, with the session that sends it"


def test_over_long_input_is_refused(app: FastAPI) -> None:
    ada = Person(app)
    ada.enter("ada@example.org")
    before = state(app.state.accounts.site)
    for path, fields in (
        ("/comments", {"paper": "p1", "text": "x" * 5_001}),
        ("/comments", {"paper": "x" * 60_000, "text": "x"}),
        ("/account/name", {"name": "x" * 51}),
        ("/lists", {"name": "x" * 81}),
        ("/save", {"paper": "p1", "name": "n", "note": "x" * 1_001}),
        ("/save", {"paper": "p1"}),
        ("/follow", {"kind": "topic", "said": "x" * 251, "stance": "follow"}),
        ("/follow", {"kind": "author", "said": "x" * 301, "stance": "follow"}),
        ("/follow", {"kind": "search", "said": "q=" + "x" * 251, "stance": "follow"}),
        ("/vote", {"paper": "p1", "up": "2"}),
        ("/vote", {"paper": "p" * 9_000, "up": "1"}),
        ("/comments", {"paper": "p1", "text": "x", **{f"f{i}": "1" for i in range(60)}}),
    ):
        answer = ada.post(path, **fields)
        assert answer.status_code in (400, 404), (path, answer.status_code)
        assert state(app.state.accounts.site) == before, path
    raw = ada.http.post(
        "/comments",
        content=f"token={ada.token()}&paper=p1&text=%ff%fe".encode(),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert raw.status_code == 400 and state(app.state.accounts.site) == before


# -- the local reader ----------------------------------------------------------------------------------------------
def test_the_local_reader(site: Site) -> None:
    app = create_app(site, local_reader=True)
    me = Person(app, base="http://127.0.0.1:8000")
    assert "local reader" in me.get("/account").text and "Sign out" not in me.get("/account").text
    assert me.post("/vote", paper="p1", up="1").status_code == 303
    assert '<b>2</b><span class="hidden">: take back your vote' in me.get("/papers/p1").text
    assert (site.home / "secret").stat().st_mode & 0o077 == 0
    assert me.post("/sign-out").status_code == 403
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[", ""):
        answer = me.get("/account", headers={"host": host})
        assert answer.status_code in (303, 400), "a name that leads here from elsewhere is a stranger"
    answer = me.http.post(
        "/vote", data={"token": me.token(), "paper": "p2", "up": "1"}, headers={"origin": "http://evil.example"}
    )
    assert answer.status_code == 403
    again = Person(create_app(site, local_reader=True), base="http://localhost:8000")
    assert "take back your vote" in again.get("/papers/p1").text, "the same reader after a restart"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "papers.example.org", ""])
def test_a_local_reader_needs_a_loopback_address(host: str) -> None:
    with pytest.raises(InputError, match="can be reached by others: leave --host"):
        guard.check_loopback(host)
    for good in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        guard.check_loopback(good)


def test_links_in_mails_need_the_address_of_the_site(site: Site) -> None:
    with pytest.raises(InputError, match="need the site's own address"):
        create_app(site, mailer=Mailbox(), secret=SECRET)


def test_a_local_reader_gets_no_links_even_where_mail_can_be_sent(site: Site) -> None:
    mailbox = Mailbox()
    app = create_app(site, mailer=mailbox, secret=SECRET, local_reader=True)
    me = Person(app, base="http://127.0.0.1:8000")
    assert me.get("/account").status_code == 200
    assert me.post("/sign-in", email="ada@example.org").status_code == 400 and mailbox.messages == []
    stranger = Person(app, base="http://evil.example")
    assert "serves one local reader" in stranger.get("/sign-in").text and stranger.get("/account").status_code == 303


def test_a_home_that_cannot_be_written_is_served_without_accounts(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guard.os, "access", lambda *_: False)
    person = Person(make_app(site, Mailbox()))
    assert person.get("/papers/p1").status_code == 200
    assert "cannot be written to" in person.get("/sign-in").text
    assert person.get("/account").status_code == 404 and not (site.home / "secret").exists()


def test_moderators_hide_and_readers_do_not_see(app: FastAPI) -> None:
    ada, mod = Person(app), Person(app)
    ada.enter("ada@example.org")
    mod.enter("mod@example.org")
    readers.set_role(app.state.accounts.site.db, "mod@example.org", "moderator")
    one = ada.comment("p1", "Something rude.")
    assert mod.post(f"/comments/{one}/hide", hidden="1").status_code == 303
    for person in (ada, Person(app)):
        text = person.get("/papers/p1").text
        assert "Something rude" not in text and "Hidden by a moderator" in text
    assert "Something rude" in mod.get("/papers/p1").text
    assert ada.get(f"/comments/{one}/reply").status_code == 404
    assert mod.post(f"/comments/{one}/hide", hidden="0").status_code == 303
    assert "Something rude" in ada.get("/papers/p1").text


def test_a_shared_list_is_found_by_its_address_alone(app: FastAPI) -> None:
    ada = Person(app)
    reader = ada.enter("ada@example.org")
    db: Database = app.state.accounts.site.db
    held = lists.create(db, reader.id, "Mine")
    assert Person(app).get(f"/lists/{held}").status_code == 303
    assert Person(app).get(f"/shared/{held}").status_code == 404
    address = lists.share(db, reader.id, held, on=True)
    answer = Person(app).get(f"/shared/{address}")
    assert answer.status_code == 200 and answer.headers["x-robots-tag"] == "noindex"
    assert f"/lists/{held}" not in answer.text and "ada@example.org" not in answer.text


def test_scripts_get_the_button_and_pages_the_page(app: FastAPI) -> None:
    ada = Person(app)
    ada.enter("ada@example.org")
    answer = ada.post("/vote", headers={"HX-Request": "true"}, paper="p1", up="1")
    assert (
        answer.status_code == 200
        and "<html" not in answer.text
        and '<b>2</b><span class="hidden">: take back your vote' in answer.text
    )
    assert ada.post("/vote", paper="p1", up="0").headers["location"] == "/papers/p1#vote"
    stranger: Any = Person(app).http.post(
        "/vote", data={"paper": "p1", "up": "1", "next": "/papers/p1"}, headers={"HX-Request": "true"}
    )
    assert stranger.status_code == 401 and stranger.headers["hx-redirect"] == "/sign-in?next=%2Fpapers%2Fp1"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60), name=st.text(max_size=60))
def test_any_text_is_taken_or_refused(app: FastAPI, text: str, name: str) -> None:
    app.state.accounts._limits = {limit: guard.RateLimit(10_000) for limit in app.state.accounts._limits}
    ada = Person(app)
    ada.enter("ada@example.org")
    token = ada.token()
    for path, fields in (
        ("/comments", {"paper": "p1", "text": text}),
        ("/lists", {"name": name}),
        ("/account/name", {"name": name}),
    ):
        encoded = {key: value.encode("utf-8", "replace").decode() for key, value in fields.items()}
        assert ada.http.post(path, data=encoded | {"token": token}).status_code in (303, 400)
    assert ada.get("/papers/p1").status_code == ada.get("/lists").status_code == 200
