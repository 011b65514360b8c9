"""Which papers a digest has, and what the mail looks like that holds them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fakes import EVIL
from mail_fakes import BASE, MONDAY, MORNING, made_post, made_site, paper, parsed, subscribe, text_of, week

from nextvec.papers import trending
from nextvec.papers.ingest import ingest
from nextvec.papers.mail.choose import Candidate, Chooser
from nextvec.papers.mail.compose import CLIP
from nextvec.papers.mail.outbox import Outbox, Outgoing, Planned
from nextvec.papers.mail.schedule import Schedule
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.subscriptions import About, read_about
from nextvec.papers.mail.transport import POLICY
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.types import InputError, NotFoundError

pytestmark = pytest.mark.both

HOSTILE = Paper(
    id="2603.99999",
    title="Ω: <script>alert(1)</script> $O(n^{2})$ & {{ 7*7 }}\u2028" + "漢" * 240,
    summary="<img src=https://eve.example/x.png> $\\alpha \\leq 10^{-3}$ <!--why--> " + "字" * 2_000,
    authors=tuple(f"<b>Mallory {i}</b>" + "&" * 100 for i in range(50)),
    organization="O'Brien & <Sons> " + "&" * 200,
    github_repo="https://github.com/a/b?x=1&y=2",
    upvotes=1_234_567,
    listed_at=datetime(2026, 3, 2, 12),
    daily_date=MONDAY,
)
VOID = {"base", "meta", "br", "img", "hr", "link", "input"}


class Tree(HTMLParser):
    """Checks that every element is closed in its place, and collects elements and addresses."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "background", "srcset", "action"):
                self.addresses.append(value or "")
            if name == "style":
                assert "url(" not in (value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def tree(html: str) -> Tree:
    parsed_tree = Tree()
    parsed_tree.feed(html)
    parsed_tree.close()
    assert not parsed_tree.open
    return parsed_tree


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two weeks of three papers a day, one that was never in the feed, and two that mean harm."""
    papers = [*week(days=14), HOSTILE, replace(EVIL, daily_date=MONDAY, listed_at=datetime(2026, 3, 2, 13))]
    papers.append(paper(500, MONDAY, daily_date=None, title="Robots that fold", authors=("Grace Hopper",)))
    made = made_site(tmp_path_factory.mktemp("digest"), papers)
    yield made
    made.close()


def names(site: Site, start: datetime, at: datetime, schedule: Schedule | None = None, **about: str) -> list[str]:
    wish, _ = read_about(about, site.db)
    return [found.id for found in Chooser(site).candidates(wish, schedule or Schedule(), start, at)]


# -- which papers ----------------------------------------------------------------------------------------------------
def test_the_order_is_that_of_the_trending_view(site: Site) -> None:
    at = datetime(2026, 3, 11, 8)
    found = names(site, at - timedelta(days=1), at)
    rows = site.db.votes_since(date(2026, 3, 8))
    ranked = [trend.id for trend in trending.rank(rows, at=at, half_life=2.0) if 0 < trend.age < 3]
    assert found == ranked and len(found) == 9


def test_alerts_have_papers_that_were_never_in_the_feed(site: Site) -> None:
    at = datetime(2026, 3, 3, 8)
    assert names(site, at - timedelta(days=1), at, topic="robots") == ["2603.00500"]
    assert names(site, at - timedelta(days=1), at, kind="digest", topic="robots") == []
    assert names(site, at - timedelta(days=1), at, author="grace hopper") == ["2603.00500"]
    assert names(site, at - timedelta(days=1), at, org="lab b") == ["2603.00500", "2603.00002"]
    assert names(site, at - timedelta(days=1), at, org="Lab B", votes="100") == ["2603.00500"]
    assert names(site, at - timedelta(days=1), at, topic="zebra") == []


def test_a_saved_search_has_what_the_search_lists(site: Site) -> None:
    about, _ = read_about({"kind": "search", "q": "robots that fold"}, site.db)
    at = datetime(2026, 3, 3, 8)
    found = Chooser(site).candidates(about, Schedule(), at - timedelta(days=1), at)
    first = next(candidate for candidate in found if candidate.id == "2603.00500")
    assert first.why.startswith("you saved the search “robots that fold”, whose words ") and "robot" in first.why


def test_reasons_name_the_topics_that_matched(site: Site) -> None:
    about, _ = read_about({"topic": "latent planning, agents, robots"}, site.db)
    at = datetime(2026, 3, 3, 8)
    why = {c.id: c.why for c in Chooser(site).candidates(about, Schedule(), at - timedelta(days=1), at)}
    assert why["2603.00001"] == "you follow the topics “latent planning” and “agents”"
    assert why["2603.00500"] == "you follow the topics “agents” and “robots”"
    about, _ = read_about({"author": "ada lovelace"}, site.db)
    assert {c.why for c in Chooser(site).candidates(about, Schedule(), at - timedelta(days=1), at)} == {
        "you follow Ada Lovelace"
    }


def test_a_skipped_weekend_is_left_out_and_a_joined_one_is_not(site: Site) -> None:
    friday, monday = datetime(2026, 3, 6, 8), datetime(2026, 3, 9, 8)
    weekend = {f"2603.000{10 * i + j + 1:02d}" for i in (5, 6) for j in range(3)}
    joined = set(names(site, friday, monday, Schedule(weekend="join")))
    skipped = set(names(site, friday, monday, Schedule(weekend="skip")))
    assert weekend <= joined and skipped == joined - weekend and skipped


def test_a_weekend_is_that_of_the_reader(site: Site) -> None:
    friday, monday = datetime(2026, 3, 6, 8), datetime(2026, 3, 9, 8)
    # Friday noon in UTC is Saturday in Kiritimati, Sunday noon is Monday.
    far = set(names(site, friday, monday, Schedule(weekend="skip", zone="Pacific/Kiritimati")))
    assert "2603.00041" not in far and "2603.00061" in far


def test_what_was_taken_in_late_is_not_lost(tmp_path: Path) -> None:
    site = made_site(tmp_path, week(days=1))
    post, store = made_post(site), MailStore(site.db)
    subscribe(site, "ada@example.org", kind="digest")
    assert post.prepare(MORNING) == 1
    late = paper(99, MONDAY)  # of Monday, taken in after Tuesday's digest was made
    site.db.upsert([late])
    assert post.prepare(MORNING + timedelta(days=1)) == 1
    sent = [mail.papers for mail in Outbox(store).in_state("queued")]
    assert [name for name, _ in sent[1]] == ["2603.00099"]
    assert post.prepare(MORNING + timedelta(days=1, minutes=5)) == 0
    site.close()


def test_no_reader_gets_a_paper_twice_whatever_was_subscribed_to(tmp_path: Path) -> None:
    site = made_site(tmp_path, week(days=7, each=5))
    post = made_post(site)
    subscribe(site, "ada@example.org", kind="digest", most="4")
    subscribe(site, "ada@example.org", kind="digest", every="week", weekday="4", most="10")
    subscribe(site, "ada@example.org", topic="agents", most="3")
    subscribe(site, "bob@example.org", kind="digest", most="4")
    for day in range(8):
        for hour in (7, 8, 9):
            post.prepare(datetime(2026, 3, 3 + day, hour))
    sent: dict[str, list[str]] = {}
    for mail in Outbox(post.store).in_state("queued"):
        assert len(mail.papers) <= mail.subscription.most
        sent.setdefault(mail.reader.address, []).extend(name for name, _ in mail.papers)
    assert set(sent) == {"ada@example.org", "bob@example.org"}
    for found in sent.values():
        assert len(found) == len(set(found)) > 15
    site.close()


def test_an_empty_digest_is_noted_and_not_queued(tmp_path: Path) -> None:
    site = made_site(tmp_path, week(days=1))
    post = made_post(site)
    subscribe(site, "ada@example.org", topic="zebra")
    assert post.prepare(MORNING) == 0 and post.outbox.states() == {"empty": 1}
    ingest(site, [paper(77, MONDAY, title="A zebra")])
    assert post.prepare(MORNING + timedelta(hours=1)) == 0, "the period was looked at"
    assert post.prepare(MORNING + timedelta(days=1)) == 1, "and its papers are in the next one"
    site.close()


# -- what may be asked for -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"kind": "topic"}, "topic is empty"),
        ({"kind": "search"}, "q is empty"),
        ({"kind": "author", "topic": "x"}, "author"),
        ({"kind": "org", "org": " "}, "org is empty"),
        ({"kind": "spam"}, "expected one of digest, topic"),
        ({"votes": "-1"}, "votes is '-1'"),
        ({"topic": "!!!"}, "no word to look for"),
        ({"topic": "x" * 300}, "at most 250"),
    ],
)
def test_wishes_that_cannot_be(site: Site, form: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        read_about(form, site.db)


def test_a_wish_is_one_text_whatever_came_first(site: Site) -> None:
    one, _ = read_about({"org": "LAB A", "topic": "agents", "page": "3", "from": "2026-01-01"}, site.db)
    two, unknown = read_about({"topic": "agents", "org": "lab a", "kind": "topic"}, site.db)
    assert one == two and one.stream("day") == two.stream("day") != one.stream("week") and unknown == {}
    assert one.address() == "topic=agents&org=Lab+A" and About().stream("day") == "digest day"
    _, unknown = read_about({"author": "Ada Lovelacy"}, site.db)
    assert unknown == {"author": "Ada Lovelace"}


# -- what it looks like ----------------------------------------------------------------------------------------------
def outgoing(site: Site, papers: list[tuple[str, str]], **form: str) -> Outgoing:
    subscription = subscribe(site, f"ada{len(papers)}.{len(form)}.{hash(str(form)) % 10_000}@example.org", **form)
    planned = Planned(
        reader=subscription.reader,
        subscription=subscription.id,
        kind=subscription.stream,
        period="2026-03-03",
        slot=MORNING,
        message_id="digest." + "0" * 32,
        papers=tuple(papers),
        found=len(papers) + 5,
    )
    post = made_post(site)
    post.outbox.queue([planned], MORNING)
    return next(mail for mail in post.outbox.in_state("queued") if mail.subscription.id == subscription.id)


@pytest.fixture(scope="module")
def message(site: Site) -> Any:
    """An alert with an ordinary and two hostile papers, as it arrives."""
    papers = [("2603.00001", "you follow the topic “agents”"), (HOSTILE.id, "you follow <b>&</b>"), (EVIL.id, "")]
    sent = made_post(site).composer.outgoing(outgoing(site, papers, topic="agents, <script>"), MORNING)
    return parsed(sent.as_bytes(policy=POLICY))


@pytest.mark.once
def test_the_headers(message: Any) -> None:
    assert message["From"] == "Papers <papers@example.org>" and message["To"].count("@") == 1
    assert message["Subject"] == "Daily papers about agents, <script>: Paper 1 on latent planning and 2 more"
    assert message["Message-ID"] == f"<digest.{'0' * 32}@example.org>"
    assert message["Date"] == "Tue, 03 Mar 2026 08:00:00 +0000"
    assert message["List-Id"] == "Papers about a topic <topic-day.papers.example.org>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert re.fullmatch(r"<https://papers\.example\.org/unsubscribe/[\w.-]+>", message["List-Unsubscribe"])
    assert message["Auto-Submitted"] == "auto-generated" and message["Precedence"] is None
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.once
def test_the_bytes_cross_any_server(message: Any) -> None:
    raw = message.as_bytes(policy=POLICY)
    assert raw.isascii() and max(map(len, raw.split(b"\r\n"))) < 998
    assert b"\nList-Unsubscribe: <https://" in raw, "no encoded words, no fold: programs read it as it stands"


@pytest.mark.once
def test_the_html_is_whole_and_has_nothing_of_others(message: Any) -> None:
    html = text_of(message, "html")
    found = tree(html)
    assert not {"script", "img", "iframe", "object", "form", "link", "svg", "video"} & set(found.tags)
    assert found.tags.count("style") == 1 and "@import" not in html and "url(" not in html
    hosts = {urlsplit(address).netloc for address in found.addresses}
    assert hosts == {"papers.example.org", "arxiv.org", "github.com"}
    assert all(address.startswith("https://") for address in found.addresses)
    text = "".join(found.text)
    assert "<script>alert(1)</script>" in text and "O(n2)" not in text and "O(n²)" in text and "α ≤ 10⁻³" in text
    assert "{ 7*7 }" in text and "you follow <b>&</b>." in text and "1.2M" in text
    assert len(html.encode()) < CLIP


@pytest.mark.once
def test_a_reason_stands_between_a_papers_authors_and_its_text(message: Any) -> None:
    text = "".join(tree(text_of(message, "html")).text)
    places = [
        text.index(said) for said in ("Paper 1", "Because you follow the topic", "We study agents, part 1.", "Read")
    ]
    assert places == sorted(places)
    assert not re.search("[\ue000-\uf8ff]", text), "of where it goes nothing is left"


@pytest.mark.once
def test_the_style_is_in_the_elements_and_dark_is_a_query(message: Any) -> None:
    html = text_of(message, "html")
    for tag in re.findall(r"<(?:p|h1|h2|a|td)\b[^>]*>", html):
        assert "style=" in tag, tag
    assert "prefers-color-scheme: dark" in html and 'content="light dark"' in html
    assert 'role="presentation"' in html and "display:none" in html.partition("</div>")[0]


@pytest.mark.once
def test_the_text_says_everything_that_the_html_says(message: Any) -> None:
    text, found = text_of(message), tree(text_of(message, "html"))
    assert set(found.addresses) <= set(re.findall(r"https://[^\s]+", text))
    flat = " ".join(text.split())
    for said in ("Paper 1 on latent planning", "Because you follow the topic “agents”.", "We study agents, part 1.",
                 "Unsubscribe: https://", "Change or pause: https://", "5 more on the site", "Lab A"):  # fmt: skip
        assert said in flat, said
    assert "<p" not in text and "&amp;" not in text.replace("& ", "")
    assert all(len(line) <= 72 or "https://" in line or "漢" in line or "字" in line or "&&" in line
               for line in text.splitlines())  # fmt: skip


def test_a_mail_holds_as_many_as_fit(site: Site) -> None:
    composer = made_post(site).composer
    many = [Candidate(HOSTILE.id, "you follow " + "&" * 200)] * 40
    fitting = composer.fits(many)
    assert 1 <= fitting < 40
    mail = outgoing(site, [(c.id, c.why) for c in many[:fitting]], kind="digest", most="40")
    html = text_of(parsed(composer.outgoing(mail, MORNING).as_bytes(policy=POLICY)), "html")
    assert 80_000 < len(html.encode()) < CLIP
    assert composer.fits([Candidate("2603.00001", "x")] * 40) == 40


def test_a_digest_of_what_trends_names_the_day_and_the_best_paper(site: Site) -> None:
    daily = outgoing(site, [("2603.00003", ""), ("2603.00002", "")], kind="digest", zone="Pacific/Auckland", most="3")
    composer = made_post(site).composer
    assert composer.outgoing(daily, MORNING)["Subject"] == "Papers of 3 Mar: Paper 3 on latent planning and 1 more"
    weekly = outgoing(site, [("2603.00003", "")], kind="digest", every="week")
    assert composer.outgoing(weekly, MORNING)["Subject"] == "Papers of the week to 3 Mar: Paper 3 on latent planning"


def test_papers_that_are_gone_are_left_out(site: Site) -> None:
    mail = outgoing(site, [("2603.00003", ""), ("2603.77777", "")], kind="digest", every="week", code="1")
    text = text_of(made_post(site).composer.outgoing(mail, MORNING))
    assert "Paper 3" in text and "77777" not in text


def test_a_confirmation_repeats_nothing_that_was_typed(site: Site) -> None:
    mail = outgoing(site, [("2603.00001", "")], topic="buy pills at evil.example", org="Eve & Sons")
    made = made_post(site).composer.confirmation(mail, MORNING)
    for part in (text_of(made), text_of(made, "html"), str(made["Subject"])):
        assert "pills" not in part and "Eve" not in part
    assert "a daily mail, papers about a topic" in " ".join(text_of(made).split())
    assert tree(text_of(made, "html")).addresses and f"{BASE}/subscribe/confirm/" in text_of(made)
    assert "List-Unsubscribe" not in made


def test_a_digest_whose_papers_are_all_gone_is_none(site: Site) -> None:
    mail = outgoing(site, [("2603.77777", ""), ("2603.77778", "")], kind="digest", votes="3")
    with pytest.raises(NotFoundError, match="nothing to send"):
        made_post(site).composer.outgoing(mail, MORNING)


# -- in whose form ---------------------------------------------------------------------------------------------------
def test_days_and_numbers_are_in_the_readers_language(site: Site) -> None:
    """In both parts and the subject; the words, and everything else, are the same for everybody."""
    texts, pages, subjects = {}, {}, {}
    for language in ("en", "de", "ar-EG"):
        reader = f"{language}@example.org"
        subscription = subscribe(site, reader, kind="digest", most="40", language=language)
        planned = Planned(
            reader=subscription.reader,
            subscription=subscription.id,
            kind=subscription.stream,
            period="2026-03-03",
            slot=MORNING,
            message_id=f"digest.{language}",
            papers=((HOSTILE.id, ""), ("2603.00001", "")),
            found=2_000,
        )
        outbox = Outbox(MailStore(site.db))
        outbox.queue([planned], MORNING)
        mail = next(one for one in outbox.in_state("queued") if one.reader.address == reader)
        message = made_post(site).composer.outgoing(mail, MORNING)
        texts[language], pages[language] = text_of(message), text_of(message, "html")
        subjects[language] = str(message["Subject"])
        tree(pages[language])
    assert subjects["en"].startswith("Papers of 3 Mar: ") and subjects["de"].startswith("Papers of 3. M")
    assert "3 Mar 2026  ·  2 papers" in texts["en"] and "1,998 more on the site: " in texts["en"]
    assert "3. März 2026  ·  2 papers" in texts["de"] and "1.998 more on the site: " in texts["de"]
    assert ">1.2M</b>" in pages["en"] and '<bdi lang="de">1,2M</bdi>' in pages["de"]
    assert "1,998 more" in pages["en"] and '<bdi lang="de">1.998</bdi> more' in pages["de"]
    assert 'lang="ar-EG" dir="rtl">3 &#' in pages["ar-EG"] and "مارس" in texts["ar-EG"]
    assert texts["de"].splitlines()[0] == texts["en"].splitlines()[0] == "Daily trending papers"
