"""The outbox: which mails there are, under a unique key (reader, kind, period), and how far each of them got.

A mail in the outbox is ``queued``, then ``sending`` (claimed, nothing handed over), ``handing`` (its final dot is on
its way), and at last one of

- ``sent``;
- ``failed``: refused for good, or not taken in time;
- ``doubtful``: the process or the connection died while it was ``handing``: it may have arrived, and is not sent again;
- ``cancelled``: its reader left before it was sent;
- ``empty``: a period without a paper, so that it is not looked at again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from nextvec.papers.mail.subscriptions import Subscription
from nextvec.papers.mail.tables import OUTBOX, READERS, SEEN, SUBSCRIPTIONS

if TYPE_CHECKING:
    from nextvec.papers.mail.store import MailStore, Reader

__all__ = ["CONFIRM", "KEPT", "WAITING", "Outbox", "Outgoing", "Planned", "cancel", "forget", "put"]

CONFIRM = "confirm"
"""The kind of the one mail that goes to an address before it is confirmed."""
KEPT = timedelta(days=90)
"""How long the outbox remembers a mail that is done with; periods do not come again after that."""
WAITING = ("queued", "sending", "handing")
_O = OUTBOX.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A mail to be put into the outbox. ``papers``: (id, why it is there); none: nothing is sent."""

    reader: str
    subscription: str
    kind: str
    period: str
    slot: datetime
    message_id: str
    papers: tuple[tuple[str, str], ...] = ()
    found: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A mail of the outbox with whom it goes to."""

    id: str
    reader: Reader
    subscription: Subscription
    kind: str
    period: str
    state: str
    slot: datetime
    papers: tuple[tuple[str, str], ...]
    found: int
    message_id: str
    attempts: int


class Outbox:
    """The mails of the readers of a ``MailStore``."""

    def __init__(self, store: MailStore) -> None:
        self.store = store
        self.db = store.db

    # -- preparing -------------------------------------------------------------------------------------------------
    def handled(self, readers: Sequence[str], since: datetime) -> set[tuple[str, str, str]]:
        """(reader, kind, period) of the mails of these readers whose slot is at ``since`` or later."""
        query = sa.select(_O.reader, _O.kind, _O.period).where(_O.reader.in_(readers), _O.slot >= since)
        with self.db.read() as connection:
            return {(row.reader, row.kind, row.period) for row in connection.execute(query)}

    def seen(self, readers: Sequence[str]) -> dict[str, set[str]]:
        """The papers that each of these readers was sent."""
        found: dict[str, set[str]] = {reader: set() for reader in readers}
        query = sa.select(SEEN.c.reader, SEEN.c.paper).where(SEEN.c.reader.in_(readers))
        with self.db.read() as connection:
            for reader, paper in connection.execute(query):
                found[reader].add(paper)
        return found

    def queue(self, planned: Sequence[Planned], now: datetime) -> int:
        """Put mails into the outbox with what they do to memory, all in one transaction; how many are to be sent.

        One that is there already (reader, kind, period) is left as it is.
        """
        with self.db.write() as connection:
            return put(connection, planned, now)

    # -- sending ---------------------------------------------------------------------------------------------------
    def waiting(self, now: datetime, *, kind: str | None = None) -> int:
        """How many mails could be sent now."""
        query = sa.select(sa.func.count()).where(_O.state == "queued", _O.next_at <= now)
        query = query if kind is None else query.where(_O.kind == kind)
        with self.db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def next_out(self, now: datetime, *, size: int = 200) -> list[Outgoing]:
        """Mails that could be sent now: confirmations first, then by their slot."""
        query = sa.select(OUTBOX).where(_O.state == "queued", _O.next_at <= now)
        query = query.order_by(sa.case((_O.kind == CONFIRM, 0), else_=1), _O.slot, _O.id).limit(size)
        with self.db.read() as connection:
            rows = connection.execute(query).all()
        return self._outgoing(rows)

    def in_state(self, state: str) -> list[Outgoing]:
        """The mails in a state."""
        with self.db.read() as connection:
            rows = connection.execute(sa.select(OUTBOX).where(_O.state == state).order_by(_O.slot, _O.id)).all()
        return self._outgoing(rows)

    def by_message(self, message_id: str) -> tuple[str, str] | None:
        """(mail, reader) of a Message-ID of ours (the part before the @), or None."""
        query = sa.select(_O.id, _O.reader).where(_O.message_id == message_id)
        with self.db.read() as connection:
            row = connection.execute(query).first()
        return (row.id, row.reader) if row else None

    def move(self, identifier: str, before: str, after: str, now: datetime, **values: Any) -> bool:
        """Take a mail from one state to another; False where it was not in the first any more (somebody else's)."""
        statement = OUTBOX.update().where(_O.id == identifier, _O.state == before)
        with self.db.write() as connection:
            result = connection.execute(statement.values(state=after, changed_at=now, **values))
        return result.rowcount == 1

    def states(self) -> dict[str, int]:
        """How many mails are in each state."""
        with self.db.read() as connection:
            rows = connection.execute(sa.select(_O.state, sa.func.count()).group_by(_O.state)).all()
        return {state: int(count) for state, count in rows}

    def _outgoing(self, rows: Sequence[Any]) -> list[Outgoing]:
        """With their readers and subscriptions; those whose reader is gone are not there."""
        readers = self.store.readers({row.reader for row in rows})
        subscriptions = self.store.subscriptions({row.subscription for row in rows})
        return [
            Outgoing(
                id=row.id,
                reader=readers[row.reader],
                subscription=subscriptions[row.subscription],
                kind=row.kind,
                period=row.period,
                state=row.state,
                slot=row.slot,
                papers=tuple((paper, why) for paper, why in row.papers),
                found=row.found,
                message_id=row.message_id,
                attempts=row.attempts,
            )
            for row in rows
            if row.reader in readers and row.subscription in subscriptions
        ]


def cancel(connection: sa.Connection, which: Any, now: datetime) -> None:
    """What waits to be sent is not sent. What is being sent cannot be called back."""
    statement = OUTBOX.update().where(which, _O.state == "queued")
    connection.execute(statement.values(state="cancelled", changed_at=now))


def forget(connection: sa.Connection, reader: str) -> None:
    """Drop a reader and everything that was noted beside the address."""
    connection.execute(OUTBOX.delete().where(_O.reader == reader))
    connection.execute(SEEN.delete().where(SEEN.c.reader == reader))
    connection.execute(SUBSCRIPTIONS.delete().where(SUBSCRIPTIONS.c.reader == reader))
    connection.execute(READERS.delete().where(READERS.c.id == reader))


def put(connection: sa.Connection, planned: Sequence[Planned], now: datetime) -> int:
    """Put mails into the outbox; see ``Outbox.queue``."""
    if not planned:
        return 0
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    keys = {(mail.reader, mail.kind, mail.period) for mail in planned}
    there = connection.execute(
        sa.select(_O.reader, _O.kind, _O.period).where(_O.reader.in_({reader for reader, _, _ in keys}))
    )
    known = {(row.reader, row.kind, row.period) for row in there}
    new = [mail for mail in planned if (mail.reader, mail.kind, mail.period) not in known]
    if not new:
        return 0
    connection.execute(OUTBOX.insert(), [_outbox_row(mail, now) for mail in new])
    papers = [{"reader": mail.reader, "paper": paper} for mail in new for paper, _ in mail.papers]
    if papers:
        connection.execute(dialect.insert(SEEN).on_conflict_do_nothing(), papers)
    covered = [{"key": mail.subscription, "moment": mail.slot} for mail in new if mail.kind != CONFIRM]
    if covered:
        statement = SUBSCRIPTIONS.update().where(SUBSCRIPTIONS.c.id == sa.bindparam("key"))
        connection.execute(statement.values(covered=sa.bindparam("moment", type_=sa.DateTime)), covered)
    return sum(1 for mail in new if mail.papers or mail.kind == CONFIRM)


def _outbox_row(mail: Planned, now: datetime) -> dict[str, Any]:
    return {
        "id": secrets.token_hex(12),
        "reader": mail.reader,
        "subscription": mail.subscription,
        "kind": mail.kind,
        "period": mail.period,
        "state": "queued" if mail.papers or mail.kind == CONFIRM else "empty",
        "slot": mail.slot,
        "papers": [list(pair) for pair in mail.papers],
        "found": mail.found,
        "message_id": mail.message_id,
        "attempts": 0,
        "next_at": now,
        "error": None,
        "created_at": now,
        "changed_at": now,
    }
