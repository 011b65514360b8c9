"""Which mails are due: for each subscription the slot that has come, its papers, and a place in the outbox."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from nextvec.papers.mail.choose import FIRST, Candidate, Chooser
from nextvec.papers.mail.outbox import Outbox, Planned
from nextvec.papers.mail.schedule import Schedule, Slot, latest
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.subscriptions import Subscription
from nextvec.papers.site import Site
from nextvec.types import NextvecError

__all__ = ["GRACE", "message_name", "plan"]

GRACE = {"day": timedelta(hours=12), "week": timedelta(days=2)}
"""How late a digest may be prepared. After that its papers are in the next one."""
_log = logging.getLogger("nextvec.papers")
_HANDLED = timedelta(days=16)  # longer than the time between two slots and a change of zone


def message_name(reader: str, kind: str, period: str) -> str:
    """The part of a Message-ID before the @: the same for the same digest, and nobody else's to guess."""
    digest = hashlib.sha256("\x1f".join((reader, kind, period)).encode()).hexdigest()
    return f"digest.{digest[:32]}"


def plan(
    site: Site, store: MailStore, now: datetime, *, fits: Callable[[Sequence[Candidate]], int]
) -> Iterator[list[Planned]]:
    """The mails that are due at ``now`` (naive UTC), in batches of the size in which they are noted.

    ``fits``: how many papers from the first on one mail can hold. A reader's mails are planned one after the other, so
    that no paper is in two of them; a mail without papers is noted, too, and not sent.
    """
    chooser, outbox = Chooser(site), Outbox(store)
    slots: dict[Schedule, Slot] = {}
    for batch in store.active():
        due = []
        for subscription, _ in batch:
            schedule = subscription.schedule
            slot = slots.get(schedule) or slots.setdefault(schedule, latest(schedule, now))
            if _is_due(subscription, slot, now):
                due.append((subscription, slot))
        readers = list({subscription.reader for subscription, _ in due})
        handled = outbox.handled(readers, now - _HANDLED)
        due = [(sub, slot) for sub, slot in due if (sub.reader, sub.stream, slot.period) not in handled]
        seen = outbox.seen([subscription.reader for subscription, _ in due])
        planned = []
        for subscription, slot in due:
            try:
                planned.append(_one(chooser, subscription, slot, seen[subscription.reader], fits))
            except NextvecError as error:  # a search without its index, for one: the others are not kept by it
                _log.error("the mail of subscription %s is put off: %s", subscription.id, error)
        yield planned


def _is_due(subscription: Subscription, slot: Slot, now: datetime) -> bool:
    if subscription.since is None or slot.moment <= subscription.since:
        return False
    return now - slot.moment <= GRACE[subscription.schedule.every]


def _one(
    chooser: Chooser, subscription: Subscription, slot: Slot, seen: set[str], fits: Callable[[Sequence[Candidate]], int]
) -> Planned:
    schedule = subscription.schedule
    start = subscription.covered or slot.moment - FIRST[schedule.every]
    found = [
        candidate
        for candidate in chooser.candidates(subscription.about, schedule, min(start, slot.moment), slot.moment)
        if candidate.id not in seen
    ]
    chosen = found[: subscription.most]
    chosen = chosen[: fits(chosen)]
    seen.update(candidate.id for candidate in chosen)
    return Planned(
        reader=subscription.reader,
        subscription=subscription.id,
        kind=subscription.stream,
        period=slot.period,
        slot=slot.moment,
        message_id=message_name(subscription.reader, subscription.stream, slot.period),
        papers=tuple((candidate.id, candidate.why) for candidate in chosen),
        found=len(found),
    )
