"""Comments, lists, interests, roles and links to sign in, below the pages."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from people import BASE, join, of

from nextvec.papers.accounts import comments, interests, lists, readers, signing_in, tables
from nextvec.papers.accounts.tables import COMMENTS, LIST_PAPERS, SIGN_INS
from nextvec.papers.site import Site
from nextvec.types import InputError, NotFoundError

pytestmark = pytest.mark.both


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


def test_a_name_is_one_lists_of_its_reader(site: Site) -> None:
    ada, bob = join(site.db, "ada@example.org").id, join(site.db, "bob@example.org").id
    mine = lists.create(site.db, ada, "To read")
    lists.create(site.db, bob, "To read")
    for act in (
        lambda: lists.create(site.db, ada, " to  READ"),
        lambda: lists.add(site.db, ada, None, "p1", name="Tó read"),
        lambda: lists.rename(site.db, ada, lists.create(site.db, ada, "Later"), "TO READ"),
    ):
        with pytest.raises(InputError, match="you have a list called 'To read' already: use that one, or choose"):
            act()
    assert sorted(one.name for one in lists.of_reader(site.db, ada)) == ["Later", "To read"]
    lists.rename(site.db, ada, mine, "to read")
    lists.rename(site.db, ada, mine, "To Read")
    assert lists.own(site.db, ada, mine).name == "To Read"


def test_lists_that_shared_a_name_before_stay_usable(site: Site) -> None:
    ada = join(site.db, "ada@example.org").id
    first, second = lists.create(site.db, ada, "Same"), lists.create(site.db, ada, "Other")
    with site.db.write() as connection:
        connection.execute(tables.LISTS.update().values(name="Same"))
    lists.add(site.db, ada, second, "p1")
    lists.rename(site.db, ada, second, "Same")
    assert lists.share(site.db, ada, second, on=True)
    assert [one.name for one in lists.of_reader(site.db, ada)] == ["Same", "Same"]
    with pytest.raises(InputError, match="called 'Same' already"):
        lists.rename(site.db, ada, first, "same")
    lists.rename(site.db, ada, first, "One")
    lists.rename(site.db, ada, second, "same")


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
    for wrong in (
        "",
        "x",
        token[:-1],
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        ("B" if token[0] == "A" else "A") + token[1:],
        token + "x",
    ):
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


def test_no_id_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["-looks-like-an-option-", "22-characters-or-so-00"])
    monkeypatch.setattr(tables.secrets, "token_urlsafe", lambda size: next(drawn))
    assert tables.new_id() == "22-characters-or-so-00"
