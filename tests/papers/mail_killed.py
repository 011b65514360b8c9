"""A sender that dies, as by kill -9, at a point of a run: ``python mail_killed.py HOME MAILER POINT COUNT``.

Points, for the COUNT-th mail (or batch): ``batch`` between two transactions of the preparation, ``claimed`` before the
mail is made, ``text`` when the server has all but the final dot, ``handing`` when that was noted, ``taken`` when the
server has said yes, ``noted`` when that was noted, ``none`` never.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime
from functools import partialmethod
from pathlib import Path
from typing import Any

from fakes import HashEncoder
from mail_fakes import MORNING, SENDER, made_post

from nextvec.papers.mail.outbox import Outbox
from nextvec.papers.mail.sending import Post, sending
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.transport import open_mailer
from nextvec.papers.site import Site


class Killer:
    """Counts how often each point was passed."""

    def __init__(self, point: str, count: int) -> None:
        self.point, self.left = point, count

    def passes(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def run(home: Path, url: str, killer: Killer, now: datetime = MORNING) -> None:
    """One run of preparing and sending."""
    MailStore.active = partialmethod(MailStore.active, size=3)  # type: ignore[assignment, method-assign]
    queue, move = Outbox.queue, Outbox.move

    def queued(self: Outbox, planned: Any, moment: datetime) -> int:
        done = queue(self, planned, moment)
        killer.passes("batch")
        return done

    def moved(self: Outbox, identifier: str, before: str, after: str, moment: datetime, **values: Any) -> bool:
        if after == "handing":
            killer.passes("text")
        if (before, after) == ("handing", "sent"):
            killer.passes("taken")
        done = move(self, identifier, before, after, moment, **values)
        killer.passes({"sending": "claimed", "handing": "handing", "sent": "noted"}.get(after, ""))
        return done

    Outbox.queue, Outbox.move = queued, moved  # type: ignore[method-assign]
    site = Site(home, encoder=HashEncoder(), must_exist=True)
    post: Post = made_post(site)
    mailer = open_mailer(url, sender=SENDER)
    with sending(home):
        post.prepare(now)
        done = post.send(mailer, now)
    mailer.close()
    site.close()
    print(done.sent, done.doubtful)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], Killer(sys.argv[3], int(sys.argv[4])))
