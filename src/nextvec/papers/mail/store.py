"""Readers and their subscriptions in the database. Every read and write of them goes through ``MailStore``."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from nextvec.papers import languages
from nextvec.papers.db import Database
from nextvec.papers.mail.addresses import fold
from nextvec.papers.mail.outbox import CONFIRM, KEPT, WAITING, Planned, cancel, forget, put
from nextvec.papers.mail.schedule import Schedule
from nextvec.papers.mail.subscriptions import Subscription, restored
from nextvec.papers.mail.tables import OUTBOX, READERS, SUBSCRIPTIONS
from nextvec.types import ConflictError, NotFoundError

__all__ = ["PENDING", "MailStore", "Reader"]

PENDING = timedelta(days=3)
"""How long a subscription waits for its confirmation before it is forgotten."""
_FORM = ("most", "language")
_TIMES = ("every", "days", "at", "zone", "weekend", *_FORM)
_R, _S, _O = READERS.c, SUBSCRIPTIONS.c, OUTBOX.c


@dataclass(frozen=True, slots=True)
class Reader:
    """A mailbox. ``suspended``: since when it gets nothing, and why."""

    id: str
    address: str
    suspended: datetime | None = None
    reason: str | None = None


class MailStore:
    """Mail over an open ``Database``."""

    def __init__(self, db: Database) -> None:
        self.db = db
        # The same few wishes come again and again: reading one asks for the names of authors and organisations.
        self._about = lru_cache(maxsize=5_000)(lambda kind, query, generation: restored(kind, query, db))

    # -- subscribing -----------------------------------------------------------------------------------------------
    def ask(self, address: str, wanted: Subscription, now: datetime, *, most: int = 5) -> bool:
        """Note a wish and put its confirmation mail into the outbox; whether that was done.

        It was not where the address was asked ``most`` times within a day: nobody's mailbox is filled from here.
        """
        with self.db.write() as connection:
            reader = connection.execute(sa.select(_R.id).where(_R.folded == fold(address))).scalar()
            if reader is None:
                reader = secrets.token_hex(12)
                row = {"id": reader, "address": address, "folded": fold(address), "created_at": now}
                connection.execute(READERS.insert(), row)
            recent = sa.select(sa.func.count()).where(
                _O.reader == reader, _O.kind == CONFIRM, _O.created_at > now - timedelta(days=1)
            )
            if connection.execute(recent).scalar_one() >= most:
                return False
            subscription = secrets.token_hex(12)
            row = _schedule_row(wanted) | {
                "id": subscription,
                "reader": reader,
                "kind": wanted.about.kind,
                "query": wanted.about.address(),
                "stream": wanted.stream,
                "state": "pending",
                "created_at": now,
            }
            connection.execute(SUBSCRIPTIONS.insert(), row)
            mail = Planned(
                reader=reader,
                subscription=subscription,
                kind=CONFIRM,
                period=subscription,
                slot=now,
                message_id=f"confirm.{subscription}",
                found=1,
            )
            put(connection, [mail], now)
        return True

    def confirm(self, identifier: str, now: datetime) -> Subscription:
        """Make a pending subscription active. NotFoundError for a forgotten one.

        Where the reader has one to the same papers, that one takes the new times and stays the one that it is: links
        in mails that were sent for it go on ending it.
        """
        with self.db.write() as connection:
            row = connection.execute(sa.select(SUBSCRIPTIONS).where(_S.id == identifier)).one_or_none()
            kept = identifier
            if row is not None and row.state == "pending":
                same = sa.and_(_S.reader == row.reader, _S.stream == row.stream, _S.state != "pending")
                kept = connection.execute(sa.select(_S.id).where(same)).scalar() or identifier
                values = {name: getattr(row, name) for name in _TIMES} | {"state": "active", "since": now}
                connection.execute(SUBSCRIPTIONS.update().where(_S.id == kept).values(values))
                if kept != identifier:
                    connection.execute(SUBSCRIPTIONS.delete().where(_S.id == identifier))
                    # The link of the confirmation leads on to it (see ``asked``).
                    moved = OUTBOX.update().where(OUTBOX.c.subscription == identifier)
                    connection.execute(moved.values(subscription=kept))
                # Whoever opens a link from this mailbox reads it again.
                connection.execute(READERS.update().where(_R.id == row.reader).values(suspended_at=None, reason=None))
        return self.asked(identifier) if kept == identifier else self.subscription(kept)

    def asked(self, identifier: str) -> Subscription:
        """What a confirmation was about: pending, or what became of it. NotFoundError for a forgotten one."""
        query = sa.select(OUTBOX.c.subscription).where(OUTBOX.c.kind == CONFIRM, OUTBOX.c.period == identifier)
        with self.db.read() as connection:
            became = connection.execute(query).scalar()
        try:
            return self.subscription(became or identifier)
        except NotFoundError:
            raise NotFoundError("this subscription waited too long or was ended: subscribe anew") from None

    # -- what readers have -----------------------------------------------------------------------------------------
    def subscription(self, identifier: str) -> Subscription:
        """One subscription. NotFoundError where there is none."""
        with self.db.read() as connection:
            row = connection.execute(sa.select(SUBSCRIPTIONS).where(_S.id == identifier)).one_or_none()
        if row is None:
            raise NotFoundError("this subscription does not exist any more")
        return self._subscriptions([row])[0]

    def reader(self, identifier: str) -> Reader:
        """One reader. NotFoundError where there is none."""
        with self.db.read() as connection:
            row = connection.execute(sa.select(READERS).where(_R.id == identifier)).one_or_none()
        if row is None:
            raise NotFoundError("this address has been forgotten here: there is nothing to change any more")
        return _reader(row)

    def of_reader(self, identifier: str) -> list[Subscription]:
        """What a reader has, the oldest first; what waits for a confirmation is not among it."""
        query = sa.select(SUBSCRIPTIONS).where(_S.reader == identifier, _S.state != "pending")
        with self.db.read() as connection:
            rows = connection.execute(query.order_by(_S.created_at, _S.id)).all()
        return self._subscriptions(rows)

    def reschedule(self, subscription: Subscription) -> None:
        """Other times and another number of papers. ConflictError where the reader has another one like that."""
        with self.db.write() as connection:
            same = sa.select(sa.func.count()).where(
                _S.reader == subscription.reader,
                _S.stream == subscription.stream,
                _S.id != subscription.id,
                _S.state != "pending",
            )
            if connection.execute(same).scalar_one():
                raise ConflictError(f"you have {subscription.title()} already: change or end that one")
            values = _schedule_row(subscription) | {"stream": subscription.stream}
            connection.execute(SUBSCRIPTIONS.update().where(_S.id == subscription.id).values(values))

    def pause(self, identifier: str, now: datetime, *, paused: bool) -> None:
        """Stop its mails for a while, or go on with what comes from now on."""
        with self.db.write() as connection:
            values = {"state": "paused"} if paused else {"state": "active", "since": now}
            where = sa.and_(_S.id == identifier, _S.state == ("active" if paused else "paused"))
            connection.execute(SUBSCRIPTIONS.update().where(where).values(values))
            if paused:
                cancel(connection, _O.subscription == identifier, now)

    def end(self, identifier: str, now: datetime) -> None:
        """Unsubscribe. Nothing happens where that was done before. A reader without subscriptions is forgotten."""
        with self.db.write() as connection:
            reader = connection.execute(sa.select(_S.reader).where(_S.id == identifier)).scalar()
            cancel(connection, _O.subscription == identifier, now)
            connection.execute(SUBSCRIPTIONS.delete().where(_S.id == identifier))
            if reader is not None:
                left = sa.select(sa.func.count()).where(_S.reader == reader)
                if not connection.execute(left).scalar_one():
                    forget(connection, reader)

    def forget(self, reader: str) -> None:
        """End everything a reader has, and drop the address and all that was noted beside it."""
        with self.db.write() as connection:
            forget(connection, reader)

    def suspend(self, reader: str, reason: str, now: datetime) -> None:
        """Send nothing more to an address that bounced, until it is confirmed anew."""
        with self.db.write() as connection:
            values = {"suspended_at": now, "reason": reason[:300]}
            connection.execute(READERS.update().where(_R.id == reader, _R.suspended_at.is_(None)).values(values))
            cancel(connection, sa.and_(_O.reader == reader, _O.kind != CONFIRM), now)

    def clear(self, now: datetime) -> None:
        """Forget what was never confirmed, and mails that are long done with."""
        with self.db.write() as connection:
            old = sa.select(_S.id).where(_S.state == "pending", _S.created_at < now - PENDING)
            connection.execute(OUTBOX.delete().where(_O.kind == CONFIRM, _O.subscription.in_(old)))
            connection.execute(SUBSCRIPTIONS.delete().where(_S.state == "pending", _S.created_at < now - PENDING))
            done = sa.and_(_O.state.not_in(WAITING), _O.created_at < now - KEPT)
            connection.execute(OUTBOX.delete().where(done))
            alone = sa.select(_R.id).where(_R.id.not_in(sa.select(_S.reader)), _R.created_at < now - PENDING)
            for reader in connection.execute(alone).scalars().all():
                forget(connection, reader)

    # -- for the outbox --------------------------------------------------------------------------------------------
    def active(self, *, size: int = 500) -> Iterator[list[tuple[Subscription, Reader]]]:
        """All subscriptions that get mail, in batches; those of a reader stand together."""
        after = ("", "")
        columns = [*SUBSCRIPTIONS.c, _R.address.label("to")]
        query = sa.select(*columns).join(READERS, _R.id == _S.reader)
        query = query.where(_S.state == "active", _R.suspended_at.is_(None)).order_by(_S.reader, _S.id).limit(size)
        while True:
            later = sa.or_(_S.reader > after[0], sa.and_(_S.reader == after[0], _S.id > after[1]))
            with self.db.read() as connection:
                rows = connection.execute(query.where(later)).all()
            if not rows:
                return
            yield [
                (subscription, Reader(row.reader, row.to))
                for subscription, row in zip(self._subscriptions(rows), rows, strict=True)
            ]
            after = (rows[-1].reader, rows[-1].id)

    def readers(self, identifiers: Collection[str]) -> dict[str, Reader]:
        """These readers, by id; those that are gone are not there."""
        with self.db.read() as connection:
            rows = connection.execute(sa.select(READERS).where(_R.id.in_(identifiers))).all()
        return {row.id: _reader(row) for row in rows}

    def subscriptions(self, identifiers: Collection[str]) -> dict[str, Subscription]:
        """These subscriptions, by id; those that are gone are not there."""
        with self.db.read() as connection:
            rows = connection.execute(sa.select(SUBSCRIPTIONS).where(_S.id.in_(identifiers))).all()
        return {found.id: found for found in self._subscriptions(rows)}

    def counts(self) -> dict[str, int]:
        """How many readers there are, how many are suspended, and how many subscriptions get mail."""
        suspended = sa.select(sa.func.count()).select_from(READERS).where(_R.suspended_at.is_not(None))
        queries = {
            "readers": sa.select(sa.func.count()).select_from(READERS),
            "suspended": suspended,
            "active subscriptions": sa.select(sa.func.count()).select_from(SUBSCRIPTIONS).where(_S.state == "active"),
        }
        with self.db.read() as connection:
            return {name: int(connection.execute(query).scalar_one()) for name, query in queries.items()}

    def _subscriptions(self, rows: Sequence[Any]) -> list[Subscription]:
        generation = self.db.fact("generation")
        return [
            Subscription(
                id=row.id,
                reader=row.reader,
                about=self._about(row.kind, row.query, generation if row.query else None),
                schedule=Schedule(every=row.every, days=row.days, at=row.at, zone=row.zone, weekend=row.weekend),
                most=row.most,
                language=languages.known(row.language),
                state=row.state,
                since=row.since,
                covered=row.covered,
            )
            for row in rows
        ]


def _reader(row: Any) -> Reader:
    return Reader(row.id, row.address, row.suspended_at, row.reason)


def _schedule_row(subscription: Subscription) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(subscription.schedule, name) for name in _TIMES if name not in _FORM}
    return values | {name: getattr(subscription, name) for name in _FORM}
