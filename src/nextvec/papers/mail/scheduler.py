"""Sending from inside the site's own process: a thread that looks at the outbox every few seconds.

It takes the same lock as ``nextvec papers digest send``, so that both may be there; who comes second does nothing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from nextvec.papers.mail.sending import Post, sending
from nextvec.papers.mail.transport import TracedMailer
from nextvec.types import ConflictError, NextvecError

__all__ = ["running"]

_LOOK = 3.0  # seconds between two looks at the outbox: a confirmation is waited for
_PREPARE = 60.0  # seconds between two looks at the subscriptions
_CLEAR = 86_400.0
_PAUSE = 60.0  # seconds after something went wrong
_AT_ONCE = 200  # mails between two looks: a confirmation does not wait for thousands of digests
_log = logging.getLogger("nextvec.papers")


class _Scheduler:
    def __init__(self, post: Post, mailer: TracedMailer) -> None:
        self.post, self.mailer = post, mailer
        self.stop = threading.Event()
        self._prepared = self._cleared = -_CLEAR

    def loop(self) -> None:
        """Until ``stop`` is set. Nothing that goes wrong ends it."""
        while not self.stop.is_set():
            wait = _LOOK
            try:
                wait = 0.0 if self.once() else _LOOK
            except ConflictError:  # somebody else is sending, or writing
                pass
            except NextvecError as error:
                _log.error("mail: %s", error)
                wait = _PAUSE
            except Exception:
                _log.exception("mail failed")
                wait = _PAUSE
            self.stop.wait(wait)
        self.mailer.close()

    def once(self) -> bool:
        """Prepare, if it is time for that, and send some of what waits; whether there may be more."""
        now = datetime.now(UTC).replace(tzinfo=None)
        prepares = time.monotonic() - self._prepared >= _PREPARE
        if not prepares and not self.post.outbox.waiting(now):
            return False
        with sending(self.post.site.home):
            if time.monotonic() - self._cleared >= _CLEAR:
                self.post.store.clear(now)
                self._cleared = time.monotonic()
            if prepares:
                self.post.prepare(now)
                self._prepared = time.monotonic()
            done = self.post.send(self.mailer, now, limit=_AT_ONCE, stop=self.stop.is_set)
        if done.stopped:
            _log.error("mail: %s", done.stopped)
            self.stop.wait(_PAUSE)
        if done.doubtful:
            _log.warning("mail: of %d it is not known whether they arrived; they are not sent again", done.doubtful)
        return done.sent + done.failed + done.deferred + done.doubtful >= _AT_ONCE and not done.stopped


@contextlib.contextmanager
def running(post: Post, mailer: TracedMailer) -> Iterator[None]:
    """Send in a thread of its own while the block runs; at the end the mail in hand is finished."""
    scheduler = _Scheduler(post, mailer)
    thread = threading.Thread(target=scheduler.loop, name="mail", daemon=True)
    thread.start()
    try:
        yield
    finally:
        scheduler.stop.set()
        thread.join(timeout=35)
