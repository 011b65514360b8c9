"""A site that has something on every page, served to a stranger, to its reader and to whoever may only look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fakes import HashEncoder
from mail_fakes import SENDER, subscribe
from server import serving

from nextvec.papers.accounts import comments, interests, lists, signing_in, tokens, votes
from nextvec.papers.accounts.readers import LOCAL, find
from nextvec.papers.ingest import ingest
from nextvec.papers.insight.build import update
from nextvec.papers.insight.people import build_people
from nextvec.papers.insight.topics import build_topics
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.transport import open_mailer
from nextvec.papers.records import Paper
from nextvec.papers.signing import Signer
from nextvec.papers.site import Site
from nextvec.papers.sources import queue
from nextvec.papers.web import create_app

SECRET = b"a secret of the tests, long enough"
LONG = "Supercalifragilisticexpialidocious_and_one_unbreakable_name_somebody_did_type"


@dataclass(frozen=True)
class Served:
    """Addresses of the same papers for different people, and what is on them.

    ``stranger``: a site with mail and accounts, nobody signed in; ``reader``: its local reader; ``bare``: without
    accounts and mail; ``empty``: without papers. ``paper`` has a thread; ``list``, ``shared``, ``reply``, ``edit``,
    ``link``, ``confirm``, ``manage`` and ``unsubscribe`` are paths.
    """

    stranger: str
    reader: str
    bare: str
    empty: str
    paper: str
    list: str
    shared: str
    reply: str
    edit: str
    link: str
    confirm: str
    manage: str
    unsubscribe: str
    topic: str


@contextmanager
def everything(few: list[Paper], folder: Path) -> Iterator[Served]:
    """The site, filled and served."""
    site = Site(folder / "site", encoder=HashEncoder())
    ingest(site, few)
    update(site)
    topics = build_topics(site, count=12)
    build_people(site)
    nothing = Site(folder / "nothing", encoder=HashEncoder())
    mailer = open_mailer(f"file://{folder}/out", sender=SENDER)
    with_mail: dict[str, Any] = {"mailer": mailer, "secret": SECRET}
    try:
        with (
            serving(create_app(site, base="http://127.0.0.1", **with_mail)) as stranger,
            serving(create_app(site, local_reader=True, **with_mail)) as reader,
            serving(create_app(site)) as bare,
            serving(create_app(nothing)) as empty,
        ):
            paths = _filled(site, few) | {"topic": topics.topics[0].slug}
            yield Served(stranger=stranger, reader=reader, bare=bare, empty=empty, **paths)
    finally:
        site.close()
        nothing.close()


def _filled(site: Site, few: list[Paper]) -> dict[str, str]:
    """What a reader left at the site; the paths that lead to it."""
    db, signer = site.db, Signer(SECRET)
    local = find(db, LOCAL)
    assert local is not None
    token = signing_in.make_link(db, "ada@example.org", "/")
    other, _, _ = signing_in.redeem(db, token or "")
    paper = max(few[:40], key=lambda one: len(one.authors)).id
    first = comments.write(
        db, other.id, paper, "It *plans*, as in `plan()`:\n\n> a quote\n\n- one\n- [two](https://a.example)"
    )
    mine = comments.write(db, local.id, paper, "```\nlong code " + "x" * 200 + "\n```", first)
    comments.write(db, other.id, paper, "And deeper.", mine)
    gone = comments.write(db, local.id, paper, "Regretted.")
    comments.write(db, other.id, paper, "A reply to it.", gone)
    comments.delete(db, local.id, gone)
    saved = lists.add(db, local.id, None, paper, name="To read", note="See *figure 3* first.")
    lists.add(db, local.id, saved, "evil/one")
    lists.create(db, local.id, LONG)
    shared = lists.share(db, local.id, saved, on=True)
    for one in few[:4]:
        votes.give(db, local.id, one.id)
    interests.choose(db, local.id, "topic", "language model", "follow")
    interests.choose(db, local.id, "author", few[0].authors[0], "follow")
    interests.choose(db, local.id, "org", "NVIDIA", "mute")
    tokens.make(db, local.id, LONG[:60], list(tokens.SCOPES), datetime.now(UTC).date())
    queue.submit(db, "2405.13729")
    subscription = subscribe(site, "ada@example.org", topic="agents")
    MailStore(db).pause(subscription.id, datetime.now(UTC).replace(tzinfo=None), paused=True)
    weekly = subscribe(site, "ada@example.org", every="week", weekday="4")
    return {
        "paper": f"/papers/{paper}",
        "list": f"/lists/{saved}",
        "shared": f"/shared/{shared}",
        "reply": f"/comments/{first}/reply",
        "edit": f"/comments/{mine}/edit",
        "link": f"/sign-in/link?token={signing_in.make_link(db, 'bob@example.org', '/')}",
        "confirm": f"/subscribe/confirm/{signer.sign('mail-confirm', weekly.id)}",
        "manage": f"/subscriptions/{signer.sign('mail-manage', weekly.reader)}",
        "unsubscribe": f"/unsubscribe/{signer.sign('mail-unsubscribe', weekly.id)}",
    }
