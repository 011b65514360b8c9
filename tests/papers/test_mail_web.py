"""The pages of mail: nothing is sent before a link's button, one click ends it, and nobody learns who is known here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from mail_fakes import BASE, MORNING, SECRET, SENDER, link, made_post, parsed, states, subscribe
from people import copied
from test_mail_digest import tree

from nextvec.papers.mail.sending import Post
from nextvec.papers.mail.tables import READERS, SUBSCRIPTIONS
from nextvec.papers.mail.transport import TracedMailer, open_mailer
from nextvec.papers.signing import Signer
from nextvec.papers.web import create_app

FORM = {"kind": "topic", "topic": "agents", "every": "day", "at": "08:00", "zone": "Europe/Berlin", "weekend": "join",
        "most": "2", "address": "Ada@example.org"}  # fmt: skip


class Desk:
    """A site with mail, a browser without JavaScript at it, and the mails that leave."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.folder = folder / "out"
        self.site = copied(home, folder / "site")
        self.mailer: TracedMailer = open_mailer(f"file://{self.folder}", sender=SENDER)
        self.post: Post = made_post(self.site)
        self.client = TestClient(
            create_app(self.site, base=BASE, mailer=self.mailer, secret=SECRET),
            follow_redirects=False,
            raise_server_exceptions=False,
        )

    def mails(self) -> list[EmailMessage]:
        """Send what waits; everything that left so far."""
        from datetime import UTC, datetime

        self.post.send(self.mailer, datetime.now(UTC).replace(tzinfo=None))
        return [parsed(path.read_bytes()) for path in sorted(self.folder.glob("*.eml"))]

    def rows(self) -> list[Any]:
        with self.site.db.read() as connection:
            return list(connection.execute(sa.select(SUBSCRIPTIONS).order_by(SUBSCRIPTIONS.c.created_at)))

    def digest(self) -> EmailMessage:
        """A digest that Ada has."""
        subscribe(self.site, "ada@example.org", kind="digest", most="2")
        self.post.prepare(MORNING)
        self.post.send(self.mailer, MORNING)
        return parsed(next(self.folder.glob("digest*.eml")).read_bytes())


@pytest.fixture
def desk(week_home: Path, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(week_home, tmp_path)
    yield made
    made.site.close()


def heading(text: str) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", text)
    return found.group(1) if found else ""


# -- opting in -------------------------------------------------------------------------------------------------------
def test_nothing_but_one_mail_before_the_button(desk: Desk) -> None:
    answer = desk.client.post("/subscribe", data=FORM | {"day": "0"})
    assert answer.status_code == 200 and heading(answer.text) == "Look into your mailbox"
    assert answer.headers["cache-control"] == "no-store"
    (mail,) = desk.mails()
    assert mail["To"] == "Ada@example.org" and mail["Subject"] == "Confirm your subscription to nextvec papers"
    assert desk.post.prepare(MORNING) == 0 and len(desk.mails()) == 1
    page = link(mail, "/subscribe/confirm/")
    for _ in range(2):  # programs that look at mails follow the link
        shown = desk.client.get(page)
        assert shown.status_code == 200 and "Daily papers about agents, on Monday at 08:00" in shown.text
    assert desk.rows()[0].state == "pending" and desk.post.prepare(MORNING) == 0
    done = desk.client.post(page)
    assert heading(done.text) == "You are subscribed" and desk.rows()[0].state == "active"
    row = desk.rows()[0]
    assert (row.kind, row.query, row.days, row.at, row.zone, row.most) == (
        "topic", "topic=agents", "0", "08:00", "Europe/Berlin", 2,
    )  # fmt: skip
    assert heading(desk.client.post(page).text) == "You are subscribed", "twice does no harm"
    assert len(desk.mails()) == 1


def test_an_old_mail_ends_what_was_subscribed_to_anew(desk: Desk) -> None:
    old = link(desk.digest(), "/unsubscribe/")
    desk.client.post("/subscribe", data=FORM | {"kind": "digest", "topic": "", "address": "ada@example.org"})
    page = link(next(mail for mail in desk.mails() if "Confirm" in mail["Subject"]), "/subscribe/confirm/")
    for _ in range(2):
        assert heading(desk.client.post(page).text) == "You are subscribed"
    assert heading(desk.client.get(page).text) == "You are subscribed"
    assert [(row.state, row.zone) for row in desk.rows()] == [("active", "Europe/Berlin")]
    assert desk.client.post(old).status_code == 200 and desk.rows() == []
    assert desk.client.post(page).status_code == 404, "and its confirmation starts nothing again"


def test_a_link_works_for_three_days_and_for_its_purpose(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.client.post("/subscribe", data=FORM)
    page = link(desk.mails()[0], "/subscribe/confirm/")
    assert desk.client.post(page[:-9] + ("A" if page[-9] != "A" else "B") + page[-8:]).status_code == 400
    token = page.rpartition("/")[2]
    for path in ("/unsubscribe/", "/subscriptions/"):
        answer = desk.client.get(path + token)
        assert answer.status_code == 400 and "not valid" in answer.text
    import itsdangerous.timed

    now = itsdangerous.timed.time.time()
    monkeypatch.setattr(itsdangerous.timed.time, "time", lambda: now + 3 * 86_400 + 60)
    answer = desk.client.post(page)
    assert answer.status_code == 400 and "expired" in answer.text and desk.rows()[0].state == "pending"


def test_the_answer_is_the_same_whether_or_not_an_address_is_known(desk: Desk) -> None:
    first = desk.client.post("/subscribe", data=FORM)
    subscribe(desk.site, "bob@example.org", topic="agents")
    known = desk.client.post("/subscribe", data=FORM | {"address": "bob@example.org"})
    often = [desk.client.post("/subscribe", data=FORM) for _ in range(5)]
    for answer in (known, *often):
        assert answer.status_code == 200
        assert answer.text.replace("bob@example.org", "Ada@example.org") == first.text
    assert sum(mail["To"] == "Ada@example.org" for mail in desk.mails()) == 3, "and no mailbox is filled"
    assert sum(mail["To"] == "bob@example.org" for mail in desk.mails()) == 1


def test_a_client_may_ask_twenty_times(desk: Desk) -> None:
    for i in range(20):
        assert desk.client.post("/subscribe", data=FORM | {"address": f"r{i}@example.org"}).status_code == 200
    answer = desk.client.post("/subscribe", data=FORM | {"address": "r20@example.org"})
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0 and "try again in" in answer.text
    assert len(desk.rows()) == 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"address": "ada"}, "expected the form name@example.org"),
        ({"address": ""}, "expected the form"),
        ({"address": "ada@example.org\r\nBcc: eve@example.org"}, "expected the form"),
        ({"topic": ""}, "Topic is empty"),
        ({"zone": "Mars/Phobos"}, "no time zone"),
        ({"at": "25:00"}, "such as 08:00"),
        ({"most": "1000"}, "1 to 40"),
        ({"kind": "x"}, "The kind of mail is"),
        ({"votes": "many"}, "Votes is"),
        ({"every": "minute"}, "day or week"),
    ],
)
def test_a_form_that_cannot_be_comes_back_filled_in(desk: Desk, change: dict[str, str], said: str) -> None:
    answer = desk.client.post("/subscribe", data=FORM | change)
    assert answer.status_code == 400 and said in answer.text.replace("&#39;", "'")
    assert 'role="alert"' in answer.text and (change.get("topic") == "" or 'value="agents"' in answer.text)
    assert '<form method="post" action="/subscribe" class="by-mail" aria-describedby="problem">' in answer.text
    assert 'id="problem"' in answer.text
    assert ('aria-invalid="true"' in answer.text) == ("address" in change), "the field that is wrong says so"
    assert desk.rows() == [] and desk.mails() == []


def test_hostile_forms(desk: Desk) -> None:
    evil = '"><script>alert(1)</script>'
    answer = desk.client.post("/subscribe", data=FORM | {"topic": evil, "address": evil})
    assert answer.status_code == 400 and "<script>alert" not in answer.text
    assert desk.client.post("/subscribe", content=b"x" * 30_000).status_code == 400
    assert desk.client.post("/subscribe", content=b"a=1&" * 200).status_code == 400
    assert desk.client.post("/subscribe", content=b"\xff\xfe&a=%00&=&&&address=%E0").status_code == 400
    unknown = desk.client.post("/subscribe", data=FORM | {"kind": "author", "topic": "", "author": "Ada Lovelacy"})
    assert unknown.status_code == 200 and "Did you mean Ada Lovelace?" in unknown.text


def test_without_a_mailer_it_is_said_how_to_get_one(desk: Desk) -> None:
    client = TestClient(create_app(desk.site), follow_redirects=False)
    page = client.get("/subscribe")
    assert page.status_code == 200 and "nextvec papers serve --mail" in page.text and "disabled" in page.text
    assert client.post("/subscribe", data=FORM).status_code == 503 and desk.rows() == []
    assert "in your inbox" not in client.get("/papers/trending").text
    assert client.get("/digest/preview").status_code == 200, "a look at one needs no mailer"


def test_a_read_only_site_serves_and_says_so(desk: Desk) -> None:
    desk.site.db.read_only = True
    page = desk.client.get("/subscribe")
    assert page.status_code == 200 and "read-only" in page.text
    assert desk.client.post("/subscribe", data=FORM).status_code == 503
    assert "in your inbox" not in desk.client.get("/").text


# -- ending ----------------------------------------------------------------------------------------------------------
def test_one_click_without_cookie_or_question(desk: Desk) -> None:
    mail = desk.digest()
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    path = str(mail["List-Unsubscribe"]).strip("<>").removeprefix(BASE)
    assert path == link(mail, "/unsubscribe/"), "the visible link is the same"
    page = desk.client.get(path)
    assert page.status_code == 200 and f'action="{path}"' in page.text and len(desk.rows()) == 1
    assert desk.client.head(path).status_code == 200 and len(desk.rows()) == 1
    strange = TestClient(desk.client.app)  # another client: no cookie, an origin of its own
    headers = {"Origin": "https://mail.example.com", "Content-Type": "application/x-www-form-urlencoded"}
    answer = strange.post(path, content="List-Unsubscribe=One-Click", headers=headers)
    assert answer.status_code == 200 and heading(answer.text) == "You are unsubscribed" and desk.rows() == []
    assert strange.post(path, files={"List-Unsubscribe": (None, "One-Click")}).status_code == 200
    assert heading(desk.client.get(path).text) == "You are unsubscribed"
    assert desk.post.prepare(MORNING + timedelta(days=1)) == 0
    with desk.site.db.read() as connection:
        assert connection.execute(sa.select(READERS)).all() == [], "an address without subscriptions is not kept"


def test_a_forged_link_ends_nothing(desk: Desk) -> None:
    desk.digest()
    for token in ("x", "", Signer(b"y" * 32).sign("mail-unsubscribe", desk.rows()[0].id)):
        assert desk.client.post(f"/unsubscribe/{token}").status_code in (400, 404, 405)
    assert len(desk.rows()) == 1


def test_change_pause_resume_end_and_forget(desk: Desk) -> None:
    path = link(desk.digest(), "/subscriptions/")
    subscribe(desk.site, "ada@example.org", topic="agents")
    page = desk.client.get(path)
    assert (
        "a…@example.org" in page.text
        and "ada@example.org" not in page.text
        and "Daily papers about agents" in page.text
    )
    first, second = (row.id for row in desk.rows())

    def do(action: str, subscription: str = first, **form: Any) -> Any:
        return desk.client.post(path, data={"do": action, "subscription": subscription} | form)

    changed = do("change", every="week", weekday="4", at="21:15", zone="Asia/Tokyo", most="7")
    assert "Weekly trending papers will come every Friday at 21:15 (Asia/Tokyo)." in changed.text
    row = next(row for row in desk.rows() if row.id == first)
    assert (row.every, row.days, row.at, row.zone, row.most, row.stream) == (
        "week", "4", "21:15", "Asia/Tokyo", 7, "digest week",
    )  # fmt: skip
    assert do("change", at="99:99").status_code == 400
    assert "is paused" in do("pause").text and "Paused; before that" in desk.client.get(path).text
    assert desk.post.prepare(MORNING + timedelta(days=4)) <= 1
    assert "goes on" in do("resume").text
    assert do("dance").status_code == 400
    other = subscribe(desk.site, "bob@example.org", kind="digest")
    assert do("end", other.id).status_code == 400 and len(desk.rows()) == 3, "a link is for one reader"
    assert "has ended" in do("end", second).text
    assert heading(do("forget").text) == "Forgotten" and [row.id for row in desk.rows()] == [other.id]
    gone = desk.client.get(path)
    assert gone.status_code == 404 and "has been forgotten" in gone.text
    assert all(state == "sent" for state in states(desk.site)) or states(desk.site) == {}


def test_the_language_is_the_browsers_until_the_reader_chooses_another(desk: Desk) -> None:
    german = {"accept-language": "de-AT,de;q=0.9,en;q=0.5"}
    assert '<option value="de-AT" selected>' in desk.client.get("/subscribe", headers=german).text
    assert '<option value="en" selected>' in desk.client.get("/subscribe").text
    assert desk.client.post("/subscribe", data=FORM, headers=german).status_code == 200
    path = link(desk.mails()[0], "/subscribe/confirm/")
    page = desk.client.post(path, headers=german).text
    assert re.search(r'comes on <time datetime="[0-9-]+" lang="de-AT">\w+, \d+\. ', page)
    manage = re.search(r'href="(/subscriptions/[^"]+)"', page)
    assert manage and [row.language for row in desk.rows()] == ["de-AT"]

    def change(**values: str) -> int:
        form = {name: FORM[name] for name in ("every", "at", "zone", "weekend", "most")} | values
        form |= {"do": "change", "subscription": desk.rows()[0].id}
        return int(desk.client.post(manage[1], data=form, headers={"accept-language": "fr"}).status_code)

    assert change(at="07:00") == 200 and desk.rows()[0].language == "de-AT"  # nothing said: as it was
    assert change(language="en-US") == 200 and desk.rows()[0].language == "en-US"
    assert change(language="tlh") == 400 and desk.rows()[0].language == "en-US"
    assert change(language="en") == 200 and desk.rows()[0].language == ""
    assert desk.client.post("/subscribe", data={**FORM, "language": "<b>"}).status_code == 400


def test_a_suspended_reader_is_told(desk: Desk) -> None:
    path = link(desk.digest(), "/subscriptions/")
    desk.post.store.suspend(desk.rows()[0].reader, "550 no such user", MORNING)
    assert "Mails to this address came back" in desk.client.get(path).text


# -- a look at one ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "query",
    ["", "?kind=digest&every=week&most=40", "?kind=topic&topic=agents", "?author=Ada+Lovelace", "?org=Lab+A&code=1",
     "?kind=search&q=latent+planning", "?votes=60"],
)  # fmt: skip
def test_a_preview_of_every_kind(desk: Desk, query: str) -> None:
    page = desk.client.get(f"/digest/preview{query}")
    assert page.status_code == 200
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "frame-src 'self'" in page.headers["content-security-policy"]
    frame = re.search(r'<iframe[^>]* src="([^"]+)"[^>]* sandbox', page.text)
    if frame is None:
        assert "No papers, no mail" in page.text and "code=1" in query
        return
    mail = desk.client.get(frame.group(1).replace("&amp;", "&"))
    policy = mail.headers["content-security-policy"]
    assert "sandbox" in policy and "default-src 'none'" in policy and mail.headers["x-frame-options"] == "SAMEORIGIN"
    found = tree(mail.text)
    assert "h1" in found.tags and all(not address.startswith("javascript") for address in found.addresses)
    assert "Paper " in page.text and 'class="mail-text"' in page.text


def test_previews_that_cannot_be(desk: Desk) -> None:
    page = desk.client.get("/digest/preview?kind=topic")
    assert page.status_code == 400 and "Topic is empty" in page.text
    assert desk.client.get("/digest/preview/mail?kind=topic").status_code == 400
    moved = desk.client.get("/digest/preview?kind=topic&topic=agents&author=")
    assert moved.status_code == 303 and moved.headers["location"] == "/digest/preview?kind=topic&topic=agents"
    none = desk.client.get("/digest/preview?kind=topic&topic=zebra")
    assert none.status_code == 200 and "No papers, no mail" in none.text
    link_in = re.search(r'href="[^"]*(/unsubscribe/[^"]+)"', desk.client.get("/digest/preview/mail").text)
    assert link_in and desk.client.post(link_in.group(1)).status_code == 400, "its links end nothing"


# -- the way there ---------------------------------------------------------------------------------------------------
def test_the_views_lead_to_the_form_with_their_filters(desk: Desk) -> None:
    assert '<a href="/subscribe">Get trending papers in your inbox</a>' in desk.client.get("/").text
    text = desk.client.get("/papers/new?topic=agents&org=Lab+A").text
    found = re.search(r'href="(/subscribe\?[^"]+)">Get papers like these in your inbox', text)
    assert found and "topic=agents" in found.group(1) and "org=Lab+A" in found.group(1)
    form = desk.client.get(found.group(1).replace("&amp;", "&")).text
    assert 'value="agents"' in form and 'value="Lab A"' in form and '<option value="topic" selected>' in form
    assert desk.client.get("/about").text.count("subscribe by mail") == 1


def test_pages_are_strict_and_light(desk: Desk) -> None:
    path = link(desk.digest(), "/subscriptions/")
    for address in ("/subscribe", "/subscribe?kind=search&q=x", "/digest/preview", path):
        page = desk.client.get(address)
        assert page.status_code == 200 and len(page.content) < 60_000
        assert "unsafe" not in page.headers["content-security-policy"] and "style=" not in page.text
        assert page.headers["x-frame-options"] == "DENY" and not re.search(r"<script(?![^>]*src=)", page.text)
        labels = len(re.findall(r"<label", page.text))
        fields = len(re.findall(r"<(?:select|input(?![^>]*hidden))\b", page.text))
        assert labels >= fields - 1, "the search field of the head has its label too"
