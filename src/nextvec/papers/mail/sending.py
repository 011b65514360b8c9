"""One run: settle what an earlier run left behind, prepare what is due, send what waits. One process at a time.

What is promised. A mail is claimed before it is sent (``queued`` to ``sending``), and noted as ``handing`` when the
server has all of it but the final dot, without which it has to forget it. Whatever stops the process (``kill -9``
included):

- before ``handing``, the server has nothing and the next run sends the mail;
- after ``sent``, nothing is sent again;
- in between, for as long as a server takes to answer, nobody can know: it is ``doubtful`` and **not** sent again. A
  folder is asked instead, it knows.

So nobody gets a mail twice, and nobody misses one except in that moment, which ``states`` counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from nextvec.files import alone
from nextvec.papers.mail.compose import Composer
from nextvec.papers.mail.outbox import CONFIRM, Outbox, Outgoing, Planned
from nextvec.papers.mail.planning import plan
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.transport import (
    DeferredError,
    DoubtfulError,
    RefusedError,
    RejectedSetupError,
    TracedMailer,
)
from nextvec.papers.site import Site
from nextvec.types import ConflictError, NextvecError, Progress, StorageError

__all__ = ["BACK_OFF", "OLDEST", "Post", "Sent", "sending"]

BACK_OFF = (timedelta(minutes=5), timedelta(minutes=20), timedelta(hours=1), timedelta(hours=4), timedelta(hours=12))
"""How long a mail that was not taken waits before each further attempt; after the last one it has failed."""
OLDEST = timedelta(days=2)
"""After that a mail is no news any more: it fails without another attempt."""
_IN_A_ROW = 3  # mails that reach no server before a run gives up; the others stay queued, without an attempt counted


@dataclass(slots=True)
class Sent:
    """What a run did. ``prepared``: mails put into the outbox; the others: mails by what became of them."""

    prepared: int = 0
    sent: int = 0
    deferred: int = 0
    failed: int = 0
    doubtful: int = 0
    stopped: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def sending(home: Path) -> contextlib.AbstractContextManager[None]:
    """Only one process at a time sends for a home; ConflictError for the second."""
    busy = f"another process is sending the mail of {str(home)!r}: nothing to do here"
    return alone(home / "mail.lock", busy=busy)


class Post:
    """Prepares and sends for one site. Use it inside ``sending``."""

    def __init__(self, site: Site, composer: Composer) -> None:
        self.site, self.composer = site, composer
        self.store = MailStore(site.db)
        self.outbox = Outbox(self.store)

    # -- preparing -------------------------------------------------------------------------------------------------
    def planned(self, now: datetime) -> Iterator[list[Planned]]:
        """The mails that are due, in batches; nothing is noted."""
        return plan(self.site, self.store, now, fits=self.composer.fits)

    def prepare(self, now: datetime) -> int:
        """Put what is due into the outbox, batch by batch; how many mails are to be sent."""
        return sum(self.outbox.queue(batch, now) for batch in self.planned(now))

    # -- sending ---------------------------------------------------------------------------------------------------
    def settle(self, mailer: TracedMailer, now: datetime) -> int:
        """Decide about mails that a dead process was sending; how many remain doubtful."""
        doubtful = 0
        for mail in self.outbox.in_state("sending"):
            self.outbox.move(mail.id, "sending", "queued", now)
        for mail in self.outbox.in_state("handing"):
            holds = mailer.holds(f"<{mail.message_id}@{self.composer.domain}>")
            after = {True: "sent", False: "queued", None: "doubtful"}[holds]
            doubtful += after == "doubtful"
            self.outbox.move(mail.id, "handing", after, now)
        return doubtful

    def send(
        self,
        mailer: TracedMailer,
        now: datetime,
        *,
        limit: int | None = None,
        stop: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> Sent:
        """Send what waits, at most ``limit`` mails, until ``stop`` says so. One bad mail does not keep the others."""
        done, unreachable, tried = Sent(), 0, 0
        done.doubtful = self.settle(mailer, now)
        total = self.outbox.waiting(now)
        while mails := self.outbox.next_out(now):
            for mail in mails:
                if stop() or (limit is not None and tried >= limit):
                    return done
                tried += 1
                try:
                    unreachable = 0 if self._one(mailer, mail, now, done) else unreachable + 1
                except RejectedSetupError as error:
                    done.stopped = str(error)
                    return done
                if progress:
                    progress(tried, max(total, tried))
                if unreachable >= _IN_A_ROW:
                    break
            if unreachable:
                done.stopped = f"no mail server answers: {self.outbox.states()['queued']:,} mails stay queued"
                return done
        return done

    def _one(self, mailer: TracedMailer, mail: Outgoing, now: datetime, done: Sent) -> bool:
        """Send one mail and note what became of it; whether a server was there."""
        if mail.kind != CONFIRM and (mail.reader.suspended or mail.subscription.state != "active"):
            self.outbox.move(mail.id, "queued", "cancelled", now)
            return True
        if now - mail.slot > OLDEST:
            self.outbox.move(mail.id, "queued", "failed", now, error="not sent within two days")
            done.failed += 1
            return True
        if not self.outbox.move(mail.id, "queued", "sending", now):
            return True
        try:
            message = self._message(mail, now)
            mailer.deliver(message, lambda: self._hand(mail, now))
        except DeferredError as error:
            self._defer(mail, error, now, done)
            return not error.unreachable
        except RefusedError as error:
            self._fail(mail, str(error), now, done)
            if error.gone:
                self.store.suspend(mail.reader.id, str(error), now)
        except DoubtfulError as error:
            self.outbox.move(mail.id, "handing", "doubtful", now, error=str(error)[:300])
            done.doubtful += 1
        except RejectedSetupError:
            self._back(mail, "queued", now)
            raise
        except _Withdrawn:
            pass
        except (ConflictError, StorageError):
            raise  # the database: how far the mail got stands there, and the next run goes on from that
        except Exception as error:
            # A mail that cannot be made (a bug, a broken paper) is not tried again and again.
            self._fail(mail, f"{type(error).__name__}: {error}", now, done)
            if not isinstance(error, NextvecError):
                raise
        else:
            self.outbox.move(mail.id, "handing", "sent", now, error=None)
            done.sent += 1
        return True

    def _message(self, mail: Outgoing, now: datetime) -> EmailMessage:
        if mail.kind == CONFIRM:
            return self.composer.confirmation(mail, now)
        return self.composer.outgoing(mail, now)

    def _hand(self, mail: Outgoing, now: datetime) -> None:
        if not self.outbox.move(mail.id, "sending", "handing", now):
            raise _Withdrawn  # its reader left a moment ago, and everything of theirs is gone

    def _back(self, mail: Outgoing, after: str, now: datetime, **values: Any) -> None:
        for before in ("sending", "handing"):
            self.outbox.move(mail.id, before, after, now, **values)

    def _fail(self, mail: Outgoing, error: str, now: datetime, done: Sent) -> None:
        self._back(mail, "failed", now, error=error[:300])
        done.failed += 1

    def _defer(self, mail: Outgoing, error: DeferredError, now: datetime, done: Sent) -> None:
        attempts = mail.attempts + 1
        if attempts > len(BACK_OFF):
            self._fail(mail, f"given up after {attempts} attempts: {error}", now, done)
            return
        wait = BACK_OFF[attempts - 1]
        self._back(mail, "queued", now, attempts=attempts, next_at=now + wait, error=str(error)[:300])
        done.deferred += 1


class _Withdrawn(Exception):
    """The mail was taken back while it was being sent."""
