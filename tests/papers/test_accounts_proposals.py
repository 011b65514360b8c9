"""What is followed and what is proposed: exact where it says so, explained, muted, and about what a reader likes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from fakes import HashEncoder
from people import DAY, Mailbox, Person, make_app, papers
from test_web import Page

from nextvec.papers import views
from nextvec.papers.accounts import following, for_you, interests, lists, readers, votes
from nextvec.papers.accounts.for_you import Like
from nextvec.papers.accounts.interests import Interest
from nextvec.papers.accounts.window import kept_vectors, recent
from nextvec.papers.ingest import ingest
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.search.words import tokenize

AT = datetime(2025, 3, 2)


def join(site: Site, email: str = "ada@example.org") -> str:
    with site.db.write() as connection:
        return readers.enter(connection, email).id


def follow(site: Site, reader: str, *what: tuple[str, str, str]) -> list[Interest]:
    for kind, said, stance in what:
        interests.choose(site.db, reader, kind, said, stance)
    return interests.of_reader(site.db, reader)


# -- following -----------------------------------------------------------------------------------------------------
def test_each_kind_finds_its_papers_and_says_why(site: Site) -> None:
    ada = join(site)
    chosen = follow(
        site, ada, ("author", "Author 3", "follow"), ("org", "Other Works", "follow"), ("topic", "topic2", "follow")
    )
    found = following.following(site, chosen, AT)
    reasons = {one.stored.paper.id: [(kind, name) for kind, name, _ in one.reasons] for one in found}
    expected: dict[str, list[tuple[str, str]]] = {}
    for i in range(8):
        why = [("topic", "topic2")] if i % 3 == 2 else []
        why += [("author", "Author 3")] if i == 3 else []
        why += [("organisation", "Other Works")] if i % 2 else []
        if why:
            expected[f"p{i}"] = why
    assert reasons == expected
    days = [one.stored.paper.daily_date for one in found]
    assert days == sorted(days, reverse=True), "latest first"  # type: ignore[type-var]


def test_muting_takes_away_and_old_papers_do_not_come(site: Site) -> None:
    ada = join(site)
    chosen = follow(
        site, ada, ("author", "Ada Lovelace", "follow"), ("org", "Other Works", "mute"), ("topic", "topic0", "mute")
    )
    found = {one.stored.paper.id for one in following.following(site, chosen, AT)}
    assert found == {f"p{i}" for i in range(8) if i % 2 == 0 and i % 3 != 0}
    later = AT + timedelta(days=following.DAYS)
    assert following.following(site, chosen, later - timedelta(days=2)) != []
    assert following.following(site, chosen, later + timedelta(days=2)) == []


def test_a_saved_search_gives_the_nearest_new_papers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "NEAREST", 2)
    old = replace(papers(1)[0], id="old", title="Paper 5 on latent plans", daily_date=DAY - timedelta(days=90))
    ingest(site, [old])
    ada = join(site)
    chosen = follow(site, ada, ("search", "q=paper+5+topic2", "follow"))
    found = following.following(site, chosen, AT)
    assert len(found) == 2 and "p5" in {one.stored.paper.id for one in found}
    assert found[0].reasons == [("search", "paper 5 topic2", "/search?q=paper+5+topic2")]
    narrow = follow(site, join(site, "bob@example.org"), ("search", "q=paper&votes=6&org=other+works", "follow"))
    assert [one.stored.paper.id for one in following.following(site, narrow, AT)] == ["p7"], "its filters hold"


# -- for you -------------------------------------------------------------------------------------------------------
def test_likes_are_votes_and_what_is_saved(site: Site) -> None:
    ada, bob = join(site), join(site, "bob@example.org")
    votes.give(site.db, ada, "p1")
    votes.give(site.db, ada, "p2")
    lists.add(site.db, ada, None, "p2", name="To read")
    lists.add(site.db, bob, None, "p3", name="Bob's")
    assert [(like.paper, like.saved) for like in for_you.likes(site.db, ada)] == [("p2", True), ("p1", False)]


def test_the_scores_are_those_of_the_formula(site: Site) -> None:
    liked = [Like("p1", False, AT), Like("p2", True, AT - timedelta(days=90))]
    found = for_you.propose(site, liked, [], AT)
    rows = {row["id"]: row["vector"] for row in site.collection.get([f"p{i}" for i in range(8)], vectors=True) if row}
    names = [f"p{i}" for i in (0, 3, 4, 5, 6, 7)]
    cosines = np.array([[rows[a] @ rows[b] for b in names] for a in ("p1", "p2")])
    z = (cosines - cosines.mean(1, keepdims=True)) / cosines.std(1, keepdims=True)
    z = np.clip(z, 0, None) * np.array([[1.0], [2 ** (-90 / 180)]])
    ages = np.array([(AT - datetime(2025, 3, 1) + timedelta(days=int(name[1]) % 3)).days for name in names])
    scores = z.max(0) * 2.0 ** (-ages / 30)
    order = [names[i] for i in np.argsort(-scores, kind="stable") if scores[i] > 0]
    assert [one.stored.paper.id for one in found] == order and order
    for one in found:
        place = names.index(one.stored.paper.id)
        because = ("p1", "p2")[int(z[:, place].argmax())]
        assert (one.because.paper.id, one.saved) == (because, because == "p2")
        assert one.cosine == pytest.approx(cosines[int(z[:, place].argmax()), place], abs=1e-5)


def test_kept_embeddings_follow_the_collection(site: Site) -> None:
    window = recent(site, AT, for_you.DAYS)
    first = kept_vectors(site, window)
    assert kept_vectors(site, window) is first and first[0] == list(window)
    ingest(site, [replace(papers(2)[1], summary="Another text altogether.")])
    again = kept_vectors(site, recent(site, AT, for_you.DAYS))
    rows = {row["id"]: row["vector"] for row in site.collection.get(again[0], vectors=True) if row}
    assert not np.array_equal(first[1], again[1])
    assert np.array_equal(again[1], np.array([rows[name] for name in again[0]]))


def test_nothing_liked_nothing_new_nothing_left(site: Site) -> None:
    assert for_you.propose(site, [], [], AT) == []
    liked = [Like("p1", False, AT)]
    assert for_you.propose(site, liked, [], AT + timedelta(days=for_you.DAYS + 9)) == []
    muted = [Interest("author", "Ada Lovelace", "ada lovelace", "mute")]
    assert for_you.propose(site, liked, muted, AT) == []
    assert for_you.propose(site, [Like("gone", False, AT)], [], AT) == []
    everything = [Like(f"p{i}", False, AT) for i in range(8)]
    assert for_you.propose(site, everything, [], AT) == []


def test_no_liked_paper_is_the_reason_for_everything(tmp_path: Path) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    made = [
        Paper(id=f"{topic}{i}", title=f"{topic} {topic}s number{i}", summary=f"on {topic}", daily_date=DAY)
        for topic in ("robot", "protein", "proof")
        for i in range(12)
    ]
    ingest(site, made)
    found = for_you.propose(site, [Like("robot0", False, AT), Like("protein0", True, AT)], [], AT)
    reasons = Counter(one.because.paper.id for one in found)
    assert reasons == {"robot0": for_you.EACH, "protein0": for_you.EACH}
    assert all(one.stored.paper.id.startswith(one.because.paper.id[:-1]) for one in found)


@pytest.mark.parametrize("topics", [("video", "robot"), ("speech", "protein")])
def test_real_readers_get_what_they_like(whole: Site, topics: tuple[str, str]) -> None:
    """Somebody who liked ten papers of two topics gets papers of both, far more than there are among the new ones."""
    at, _ = views.clock(whole)
    window = set(recent(whole, at, for_you.DAYS))
    about = {topic: set(whole.words().holding(topic)) for topic in topics}
    liked: list[Like] = []
    for topic in topics:
        old = [name for name in whole.db.ordered(views.Selection(), "votes") if name in about[topic] - window]
        liked += [Like(name, False, at) for name in old[:5]]
    found = for_you.propose(whole, liked, [], at, limit=20)
    assert len(found) == 20 and not {one.stored.paper.id for one in found} & {like.paper for like in liked}
    for place, topic in enumerate(topics):
        mine = {like.paper for like in liked[5 * place :][:5]}
        assert sum(one.because.paper.id in mine for one in found) >= 4, "both are there"
        words = set(tokenize(topic))
        share = np.mean([words <= set(tokenize(one.stored.paper.document())) for one in found])
        base = len(about[topic] & window) / len(window)
        assert share > 2 * base, (topic, share, base)
    mute = [interests.Interest("topic", topics[0], topics[0], "mute")]
    muted = for_you.propose(whole, liked, mute, at, limit=20)
    assert not {one.stored.paper.id for one in muted} & about[topics[0]] and len(muted) == 20


# -- pages ---------------------------------------------------------------------------------------------------------
def test_the_pages_say_why(site: Site) -> None:
    app = make_app(site, Mailbox())
    ada = Person(app)
    ada.enter("ada@example.org")
    assert "You follow nothing yet" in ada.get("/following").text
    assert "Nothing to go by yet" in ada.get("/for-you").text
    ada.post("/follow", kind="author", said="Author 3", stance="follow")
    ada.post("/save", paper="p1", name="To read")
    ada.post("/vote", paper="p2", up="1")
    text = ada.get("/following").text
    assert 'Because you follow the author <a href="/papers/new?author=Author+3">Author 3</a>' in text
    text = ada.get("/for-you").text
    assert "Because you saved" in text or "Because you voted for" in text
    page = ada.get("/papers/new?author=author+3").text
    assert "/following?kind=author&amp;said=Author%203#add" in page
    form = ada.get("/following?kind=author&said=Author%203").text
    assert '<option value="author" selected>' in form and 'value="Author 3"' in form
    search = ada.get("/search?q=latent+plans").text
    assert "/following?kind=search&amp;said=/search%3Fq%3Dlatent%2Bplans#add" in search
    assert "Follow this search" not in Person(app).get("/search?q=latent+plans").text


def test_many_comments_have_pages(site: Site) -> None:
    from nextvec.papers.accounts import comments

    app = make_app(site, Mailbox())
    ada = Person(app)
    reader = ada.enter("ada@example.org").id
    written = [comments.write(site.db, reader, "p1", f"Comment {i}.") for i in range(60)]
    last = comments.write(site.db, reader, "p1", "The last.", written[0])
    assert ada.get("/papers/p1").text.count('<article class="comment') == 50
    second = ada.get("/papers/p1?comments=2").text
    assert second.count('<article class="comment') == 11 and f"comment-{last}" not in second
    assert ada.get("/papers/p1?comments=3").status_code == 404
    answer = ada.post("/comments", paper="p1", text="Behind.")
    assert answer.headers["location"].startswith("/papers/p1?comments=2#comment-")


def test_the_pages_of_readers_are_light(site: Site) -> None:
    from nextvec.papers.accounts import comments

    app = make_app(site, Mailbox())
    ada = Person(app)
    reader = ada.enter("ada@example.org").id
    for i in range(60):
        comments.write(site.db, reader, "p1", f"Comment {i}. " + "Some words of it. " * 10)
    votes.give(site.db, reader, "p1")
    for path in ("/papers/p1", "/for-you", "/account"):
        page = ada.get(path, headers={"accept-encoding": "gzip"})
        size = 0
        for source in [path, *Page(page.text).sources]:
            with ada.http.stream("GET", source, headers={"accept-encoding": "gzip"}) as response:
                size += sum(len(part) for part in response.iter_raw())
        assert 50_000 < size < 100_000, path


def test_a_reader_of_an_empty_site_is_told_so(tmp_path: Path) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    ada = Person(make_app(site, Mailbox()))
    ada.enter("ada@example.org")
    for path in ("/for-you", "/following", "/lists"):
        assert ada.get(path).status_code == 200, path
    for path, told in (("/search?q=plan", "Nothing has been taken in"), ("/map", "No papers have been taken in yet")):
        assert told in ada.get(path).text
    site.close()
