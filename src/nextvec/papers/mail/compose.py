"""Digests and confirmations as mails: a subject, HTML that needs no picture and no style sheet, and the same as text.

The HTML is ASCII with character references in short lines, so that it crosses every server as it is, and stays below
what a large mail reader shows before it cuts a mail (102 kB). Nothing in it comes from another address.
"""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment
from markupsafe import Markup

from nextvec.papers import languages, markup
from nextvec.papers.mail.addresses import masked
from nextvec.papers.mail.choose import Candidate
from nextvec.papers.mail.outbox import Outgoing
from nextvec.papers.mail.styles import CSS, DARK
from nextvec.papers.mail.subscriptions import KINDS, Subscription
from nextvec.papers.mail.transport import POLICY
from nextvec.papers.pages import environment
from nextvec.papers.records import Paper, clean
from nextvec.papers.shown import FILTERS, plural
from nextvec.papers.signing import Signer
from nextvec.papers.site import Site
from nextvec.types import NotFoundError

__all__ = ["CLIP", "Composer", "Digest", "links_of"]

CLIP = 102_000
"""Bytes of HTML after which a large mail reader cuts."""
_ROOM = 92_000  # of them for papers; the rest is what stands around
_LINE = 900  # characters; a server may cut a line of more than 998 (RFC 5321, 4.5.3.1.6)
_WIDTH = 72
# Where votes and reason go in a block that is kept; no text that came through ``clean`` and a parser needs these.
_VOTES, _WHY = "\ue001", "\ue000"


@dataclass(frozen=True, slots=True)
class _Block:
    """A paper as ASCII HTML and as text, but for what differs by reader: set once, used in many mails.

    ``html`` stands around the votes and the reason why it is there, ``text`` around the reason; ``title`` and
    ``teaser`` are plain text.
    """

    title: str
    teaser: str
    votes: int
    html: tuple[str, str, str]
    text: tuple[str, str]

    def size(self, why: str) -> int:
        """Bytes of HTML."""
        return len(self.as_html(why))

    def as_html(self, why: str) -> str:
        """In the language of ``languages.speaking``."""
        head, middle, tail = self.html
        return f"{head}{_counted(languages.current(), self.votes)}{middle}{_reason(why)[0]}{tail}"

    def as_text(self, place: int, why: str) -> str:
        return f"{place}. {self.text[0]}{_reason(why)[1]}{self.text[1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What one mail says. ``papers``: (id, why); ``found``: how many there were to choose from; ``day``: its slot."""

    subscription: Subscription
    address: str
    papers: tuple[tuple[str, str], ...]
    found: int
    day: datetime
    message_id: str


class Composer:
    """Makes mails for one site. ``base``: its address without a slash at the end; ``sender``: a ``From`` header."""

    def __init__(self, site: Site, *, base: str, sender: str, signer: Signer, jinja: Environment | None = None) -> None:
        self.site, self.base, self.sender, self.signer = site, base, sender, signer
        self.domain = parseaddr(sender)[1].rpartition("@")[2]
        self._jinja = jinja or environment()
        self._blocks: dict[str, _Block | None] = {}
        self._stamp, self._looked = "", -1.0

    # -- what fits -------------------------------------------------------------------------------------------------
    def fits(self, candidates: Sequence[Candidate]) -> int:
        """How many of these papers, from the first on, one mail can hold."""
        left = _ROOM  # what says that a number is in another language has room enough beside it
        blocks = self._blocks_of([candidate.id for candidate in candidates])
        for place, candidate in enumerate(candidates):
            block = blocks.get(candidate.id)
            left -= block.size(candidate.why) if block else 0
            if left < 0:
                return place
        return len(candidates)

    # -- mails -----------------------------------------------------------------------------------------------------
    def outgoing(self, mail: Outgoing, now: datetime) -> EmailMessage:
        """The digest of a row of the outbox; ``now`` (naive UTC) is its date."""
        digest = Digest(
            subscription=mail.subscription,
            address=mail.reader.address,
            papers=mail.papers,
            found=mail.found,
            day=mail.slot.replace(tzinfo=UTC).astimezone(mail.subscription.schedule.info),
            message_id=mail.message_id,
        )
        return self.digest(digest, now)

    def digest(self, digest: Digest, now: datetime) -> EmailMessage:
        """The mail of a digest. Papers that are gone by now are left out; NotFoundError where all of them are."""
        subscription = digest.subscription
        blocks = self._blocks_of([paper for paper, _ in digest.papers])
        shown = [(blocks[paper], why) for paper, why in digest.papers if paper in blocks]
        if not shown:
            raise NotFoundError("the papers of this digest are gone: there is nothing to send")
        links = links_of(self.base, self.signer, subscription)
        subject = _subject(subscription, [block.title for block, _ in shown], digest.day)
        more = max(digest.found - len(shown), 0)
        values = {
            "subject": subject,
            "title": subscription.title(),
            "day": digest.day,
            "count": plural(len(shown), "paper"),
            "preheader": "; ".join(block.title for block, _ in shown[1:4]) or shown[0][0].teaser,
            "blocks": shown,
            "more": more,
            "more_address": self.base + _view_address(subscription),
            "wish": _lower(subscription.title()),
            "schedule": subscription.schedule.said(),
            "address": masked(digest.address),
            **links,
        }
        message = self._message(digest.address, subject, digest.message_id, now)
        listed = f"{subscription.about.kind}-{subscription.schedule.every}.{_host(self.base)}"
        message["List-Id"] = f"{_ascii_words(KINDS[subscription.about.kind])} <{listed}>"
        message["List-Unsubscribe"] = f"<{links['unsubscribe']}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        text = _digest_text(values, shown, self.base, subscription.language)
        with languages.speaking(subscription.language):
            return self._filled(message, "mail/digest.html", values, text)

    def confirmation(self, mail: Outgoing, now: datetime) -> EmailMessage:
        """The one mail before a subscription is confirmed.

        It repeats nothing that was typed into the form: anybody may name any address there, and would speak through it.
        """
        subscription = mail.subscription
        token = self.signer.sign("mail-confirm", subscription.id)
        often = "daily" if subscription.schedule.every == "day" else "weekly"
        values = {
            "subject": "Confirm your subscription to nextvec papers",
            "wish": f"a {often} mail, {_lower(KINDS[subscription.about.kind])}",
            "schedule": subscription.schedule.said(),
            "confirm": f"{self.base}/subscribe/confirm/{token}",
        }
        message = self._message(mail.reader.address, values["subject"], mail.message_id, now)
        said = f"Somebody, probably you, asked for {values['wish']} at this address, {values['schedule']}."
        rest = "The link works for three days. If it was not you, do nothing: without it no further mail is sent."
        text = "\n\n".join([_wrapped(said), "Confirm it here:\n" + values["confirm"], _wrapped(rest), self.base + "/"])
        return self._filled(message, "mail/confirm.html", values, text + "\n")

    def _message(self, to: str, subject: str, name: str, now: datetime) -> EmailMessage:
        message = EmailMessage(policy=POLICY)
        message["From"] = self.sender
        message["To"] = to
        message["Subject"] = clean(subject)
        message["Date"] = format_datetime(now.replace(tzinfo=UTC))
        message["Message-ID"] = f"<{name}@{self.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # no answer from those who are on holiday (RFC 3834)
        return message

    def _filled(self, message: EmailMessage, template: str, values: dict[str, Any], text: str) -> EmailMessage:
        filled = self._jinja.get_template(template).render(values, base=self.base, css=CSS, dark=Markup(DARK))
        message.set_content(text, cte="quoted-printable")
        html = _short_lines(_ascii(filled))
        # A long text without a space (Chinese, for one) has no place to be broken at.
        plain = max(map(len, html.splitlines())) <= _LINE
        message.add_alternative(html, subtype="html", cte="7bit" if plain else "quoted-printable")
        return message

    # -- papers ----------------------------------------------------------------------------------------------------
    def _blocks_of(self, ids: Sequence[str]) -> dict[str, _Block]:
        """The papers that are there, by id. Each is set once until some paper changes, noticed within a second."""
        if time.monotonic() - self._looked > 1.0:
            stamp, self._looked = self.site.stamp, time.monotonic()
            if stamp != self._stamp:
                self._stamp = stamp
                self._blocks.clear()
        missing = [identifier for identifier in ids if identifier not in self._blocks]
        if missing:
            found = {stored.paper.id: stored.paper for stored in self.site.db.get_many(missing)}
            for identifier in missing:
                paper = found.get(identifier)
                self._blocks[identifier] = self._block(paper) if paper else None
        return {name: block for name in ids if (block := self._blocks[name]) is not None}

    def _block(self, paper: Paper) -> _Block:
        address = f"{self.base}/papers/{quote(paper.id)}"
        links = [("PDF", f"https://arxiv.org/pdf/{paper.id}")] if paper.is_arxiv else []
        if paper.github_repo and len(paper.github_repo) < 300:
            links.append(("Code", paper.github_repo))
        title, teaser = markup.teaser(paper.title, 250), markup.teaser(paper.summary, 300)
        authors = [textwrap.shorten(name, 60, placeholder="…") for name in paper.authors[:3]]
        rest = len(paper.authors) - len(authors)
        organization = textwrap.shorten(paper.organization, 80, placeholder="…") if paper.organization else ""
        facts = "  ·  ".join(filter(None, [organization, ", ".join(authors) + (f" +{rest}" if rest > 0 else "")]))
        filled = self._jinja.get_template("mail/paper.html").render(
            votes=_VOTES,
            one=paper.upvotes == 1,
            address=address,
            title=title,
            teaser=teaser,
            facts=facts,
            links=links,
            why=_WHY,
            css=CSS,
        )
        head, _, rest_of = filled.partition(_VOTES)
        middle, _, tail = rest_of.partition(_WHY)
        first = _wrapped(title, _WIDTH - 4).replace("\n", "\n   ") + "\n" + _indented(facts)
        lines = "".join(f"   {name + ':':<6}{target}\n" for name, target in (("Read", address), *links))
        html = (_ascii(head), _ascii(middle), _ascii(tail))
        return _Block(title, teaser, paper.upvotes, html, (first, _indented(teaser) + lines))


def links_of(base: str, signer: Signer, subscription: Subscription) -> dict[str, str]:
    """Where a reader ends or changes a subscription without signing in."""
    return {
        "unsubscribe": f"{base}/unsubscribe/{signer.sign('mail-unsubscribe', subscription.id)}",
        "manage": f"{base}/subscriptions/{signer.sign('mail-manage', subscription.reader)}",
    }


@lru_cache(maxsize=10_000)
def _counted(tag: str, votes: int) -> str:
    """12.3k in a language, as ASCII HTML."""
    with languages.speaking(tag):
        return _ascii(str(FILTERS["compact"](votes)))


@lru_cache(maxsize=10_000)
def _reason(why: str) -> tuple[str, str]:
    """The line that says why a paper is there, as ASCII HTML and as text; nothing for no reason."""
    if not why:
        return "", ""
    html = Markup('<p class="why" style="{}">Because {}.</p>').format(CSS["why"], why)
    return _ascii(html), _indented(f"Because {why}.")


def _subject(subscription: Subscription, titles: Sequence[str], day: datetime) -> str:
    """The best paper first: what a list of mails shows is the beginning."""
    first = textwrap.shorten(titles[0], 70, placeholder="…")
    rest = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
    if subscription.about.kind == "digest" and not subscription.about.narrowing:
        often = "Papers of" if subscription.schedule.every == "day" else "Papers of the week to"
        return f"{often} {languages.written(subscription.language, day.date(), 'short')}: {first}{rest}"
    return f"{textwrap.shorten(subscription.title(), 60, placeholder='…')}: {first}{rest}"


def _view_address(subscription: Subscription) -> str:
    """Where the site shows all of these papers."""
    about = subscription.about
    address = about.address()
    if about.kind == "search":
        return f"/search?{address}"
    path = "/papers/trending" if about.kind == "digest" else "/papers/new"
    return f"{path}?{address}" if address else path


def _digest_text(values: dict[str, Any], shown: Sequence[tuple[_Block, str]], base: str, tag: str) -> str:
    """The whole digest as text, with every address the HTML has, in a language."""
    day = languages.written(tag, values["day"].date(), "day")
    out = [values["title"], f"{day}  ·  {values['count']}", ""]
    out += [block.as_text(place, why) for place, (block, why) in enumerate(shown, start=1)]
    if values["more"]:
        out += [f"{languages.grouped(tag, values['more'])} more on the site: {values['more_address']}", ""]
    said = f"You get this because {values['address']} subscribed to {values['wish']}, {values['schedule']}."
    out += ["-- ", _wrapped(said), f"Unsubscribe: {values['unsubscribe']}", f"Change or pause: {values['manage']}"]
    return "\n".join([*out, f"The site: {base}/"]) + "\n"


def _wrapped(text: str, width: int = _WIDTH) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _indented(text: str) -> str:
    """Lines under a title, with a line break at the end; nothing for nothing."""
    return textwrap.indent(_wrapped(text, _WIDTH - 3), "   ") + "\n" if text else ""


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]


def _ascii(html: str) -> str:
    return html.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _ascii_words(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9 ]", "", text)


def _short_lines(html: str) -> str:
    """Lines of at most 900 characters, broken where HTML has a space anyway."""
    out = []
    for line in html.splitlines():
        while len(line) > _LINE:
            cut = line.rfind(" ", 0, _LINE)
            if cut <= 0:
                break
            out.append(line[:cut])
            line = line[cut + 1 :]
        out.append(line)
    return "\n".join(out) + "\n"


def _host(base: str) -> str:
    return urlsplit(base).hostname or "localhost"
