"""Everything the database holds of one reader: all of it told, all of it gone; and the step that made its tables."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import open_database, raw
from people import join, of, papers

from nextvec.papers.accounts import comments, interests, lists, personal, readers, signing_in, tokens, votes
from nextvec.papers.accounts.tables import READERS, now
from nextvec.papers.db import Database
from nextvec.papers.mail import tables as mail
from nextvec.papers.mail.schedule import Schedule
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.subscriptions import About, Subscription
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.narrowing import Narrowing
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation
from nextvec.types import NotFoundError, StorageError

pytestmark = pytest.mark.both

# -- everything of one reader --------------------------------------------------------------------------------------
PERSONAL = {"reader", "email", "address", "hidden_by", "actor"}
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
    token, word = tokens.make(site.db, reader.id, f"Token of {email}", ["read"], now().date())
    assert tokens.check(site.db, word)[0].id == token.id
    about = About(kind="topic", narrowing=Narrowing(topic="agents"))
    store = MailStore(site.db)
    assert store.ask(email, Subscription(id="", reader="", about=about, schedule=Schedule()), now())
    with site.db.write() as connection:
        mailbox = connection.execute(sa.select(mail.READERS.c.id).where(mail.READERS.c.address == email)).scalar_one()
        connection.execute(mail.SEEN.insert(), {"reader": mailbox, "paper": "p1"})
    moderation.log(site.db, reader.id, "reject", "2501.00001", f"Said by {email.partition('@')[0]}")
    return reader


def test_the_export_holds_every_table(site: Site) -> None:
    ada = busy(site, "ada@example.org")
    busy(site, "bob@example.org")
    held = {table.name for table, _ in personal.HELD.values()}
    assert personal_tables(site.db) == held, "a new table with a reader's id has to be named in personal.HELD"
    document = personal.export(site.db, ada)
    assert all(document[name] for name in personal.HELD), {name: len(rows) for name, rows in document.items()}
    text = str(document)
    for part in (
        "A thought of ada",
        "Another of ada",
        "List of ada",
        "Note of ada",
        "Token of ada",
        "Said by ada",
        "latent",
        "ada@example.org",
    ):
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
def test_all_of_it_from_the_version_before(tmp_path: Path) -> None:
    with raw(tmp_path) as connection:
        migrate(connection, [step for step in MIGRATIONS if step.number < 4])
        connection.execute(sa.text(OLD))
    with open_database(tmp_path) as db:
        assert (of(db, "p").upvotes, of(db, "p").num_comments) == (3, 1)
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
        _, word = tokens.make(db, ada.id, "A program", ["vote", "read"], now().date())
        token_of, owner = tokens.check(db, word)
        assert (token_of.scopes, owner) == (("read", "vote"), ada)
        assert [one.used_on for one in tokens.of_reader(db, ada.id)] == [now().date()]
        token = signing_in.make_link(db, "ada@example.org", "/")
        assert signing_in.session_reader(db, signing_in.redeem(db, token or "")[1]) == ada
        assert all(
            personal.export(db, ada)[name]
            for name in personal.HELD
            if name not in ("sign_ins", "moderated") and "mail" not in name
        )
        personal.delete_account(db, ada)
        with db.read() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(READERS)).scalar_one() == 0
        assert of(db, "p1") == papers(4)[1]


def test_a_read_only_home_of_before_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raw(tmp_path) as connection:
        migrate(connection, MIGRATIONS[:3])
    monkeypatch.setattr(os, "access", lambda *_: False)
    with open_database(tmp_path, must_exist=True) as db, pytest.raises(StorageError, match="made by an older nextvec"):
        db.get_many(["p"])
