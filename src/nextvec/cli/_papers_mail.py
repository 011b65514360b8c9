"""``nextvec papers mail`` and ``nextvec papers digest``: a server that catches mail, and the digests of the site."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from nextvec.cli._papers_site import EncoderOption, HomeOption
from nextvec.cli.console import JsonFlag, emit, note, progress, table
from nextvec.types import InputError

if TYPE_CHECKING:
    from nextvec.papers.mail.sending import Post
    from nextvec.papers.mail.transport import TracedMailer
    from nextvec.papers.site import Site

digest = typer.Typer(no_args_is_help=True, help="The digests of the papers site: send, look after bounces.")

MailOption = Annotated[
    str | None,
    typer.Option(
        "--mail",
        envvar="NEXTVEC_MAIL",
        help="What sends mail: smtp+starttls://user@host, smtps://, smtp://, file:///folder, or catch.",
        show_default=False,
    ),
]
SENDER = "Whom mail comes from, e.g. 'Papers <papers@example.org>'."
FromOption = Annotated[str | None, typer.Option("--from", envvar="NEXTVEC_MAIL_FROM", help=SENDER, show_default=False)]
MailFromOption = Annotated[
    str | None, typer.Option("--mail-from", envvar="NEXTVEC_MAIL_FROM", help=SENDER, show_default=False)
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="NEXTVEC_SITE_URL",
        help="Where readers reach the site, e.g. https://papers.example.org: the address that mails give.",
        show_default=False,
    ),
]


def add(app: typer.Typer) -> None:
    """Put the commands into ``nextvec papers``."""
    app.command()(mail)
    app.add_typer(digest, name="digest")


def mail(
    catch: Annotated[bool, typer.Option("--catch", help="Catch mail on this machine until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where mail is caught.")] = 8025,
    web_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the page; if it is taken, the next free one is used.")
    ] = 8026,
    folder: Annotated[
        Path | None, typer.Option(help="Where mail is kept. Default: mail/ in the site's home.", show_default=False)
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Send a mail to this address, to try --mail out.", show_default=False)
    ] = None,
    url: MailOption = None,
    sender: FromOption = None,
    home: HomeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Try mail out: catch everything (--catch), or send one mail (--to ADDRESS)."""
    if catch == (to is not None):
        raise InputError("give either --catch or --to ADDRESS, one of the two")
    from nextvec.cli._papers_site import site_home

    if to is None:
        _catch(folder or site_home(home) / "mail", port, web_port, as_json=as_json)
        return
    from email.message import EmailMessage

    from nextvec.papers.mail.addresses import read_address
    from nextvec.papers.mail.transport import POLICY

    mailer = opened_mailer(url, sender)
    message = EmailMessage(policy=POLICY)
    message["To"], message["Subject"] = read_address(to), "A mail from nextvec papers"
    message.set_content("This came from `nextvec papers mail --to`: mail works.\n")
    mailer.send(message)
    mailer.close()
    emit({"to": to, "mailer": repr(mailer)}, as_json=as_json, text=f"sent to {to} by {mailer!r}")


def _catch(folder: Path, port: int, web_port: int, *, as_json: bool) -> None:
    from nextvec.extras import require

    require("aiosmtpd", why="catching mail")
    uvicorn = require("uvicorn", why="the page of caught mail")
    from nextvec.cli.papers import listen
    from nextvec.papers.mail.catch import Caught, Mailbox, catching, create_page

    address = ""

    def came(caught: Caught) -> None:
        where = f"{address}mail/{caught.number}"
        line = f"{caught.received:%H:%M:%S}  {', '.join(caught.recipients)}  {caught.subject}  {where}"
        emit({"to": caught.recipients, "subject": caught.subject, "file": str(caught.path)}, as_json=as_json, text=line)

    mailbox = Mailbox(folder, came=came)
    with listen("127.0.0.1", web_port) as socket:
        address = f"http://127.0.0.1:{socket.getsockname()[1]}/"
        server = catching(mailbox, port=port)
        try:
            document = {"smtp": f"smtp://127.0.0.1:{port}", "address": address, "folder": str(folder)}
            emit(
                document,
                as_json=as_json,
                text=f"catching mail on smtp://127.0.0.1:{port}, shown on {address}  (Ctrl-C)",
            )
            config = uvicorn.Config(
                create_page(mailbox), log_level="warning", access_log=False, server_header=False, ws="none"
            )
            uvicorn.Server(config).run(sockets=[socket])
        finally:
            server.stop()
    note("stopped")


@digest.command()
def send(
    url: MailOption = None,
    sender: FromOption = None,
    base: UrlOption = None,
    now: Annotated[
        str | None, typer.Option(help="As if it were this time, e.g. 2026-03-29T06:00Z.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is due; note and send nothing.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Send at most so many mails.", show_default=False)] = None,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    as_json: JsonFlag = False,
) -> None:
    """Prepare the digests that are due and send what waits.

    For cron: run it as often as you like, nothing comes twice.
    """
    from nextvec.cli._papers_site import opened

    moment = _moment(now)
    with opened(home, encoder, must_exist=True) as site:
        from nextvec.papers.mail.sending import sending

        if dry_run:
            _dry_run(site, moment, as_json=as_json)
            return
        mailer = opened_mailer(url, sender)
        post = made_post(site, mailer, base)
        try:
            with sending(site.home), progress("Sending", quiet=as_json) as report:
                post.store.clear(moment)
                prepared = post.prepare(moment)
                done = post.send(mailer, moment, limit=limit, progress=report)
        finally:
            mailer.close()
        done.prepared = prepared
        waiting = post.outbox.states().get("queued", 0)
    text = f"{done.prepared:,} prepared, {done.sent:,} sent, {done.deferred:,} put off, {done.failed:,} failed"
    text += f"; {waiting:,} wait" + (f"; {done.doubtful:,} in doubt, not sent again" if done.doubtful else "")
    emit(done.as_dict() | {"waiting": waiting}, as_json=as_json, text=text)
    if done.stopped:
        note(done.stopped)
        raise typer.Exit(1)


def _dry_run(site: Site, now: datetime, *, as_json: bool) -> None:
    from nextvec.papers.mail.compose import Composer
    from nextvec.papers.mail.sending import Post
    from nextvec.papers.signing import Signer

    nobody = Composer(site, base="https://example.org", sender="papers@example.org", signer=Signer(b"x" * 32))
    post = Post(site, nobody)
    rows = []
    for batch in post.planned(now):
        readers = post.store.readers({mail.reader for mail in batch})
        wishes = post.store.subscriptions({mail.subscription for mail in batch})
        rows += [
            {
                "to": readers[mail.reader].address,
                "digest": wishes[mail.subscription].title(),
                "period": mail.period,
                "papers": [identifier for identifier, _ in mail.papers],
            }
            for mail in batch
        ]
    lines = [[str(row["to"]), str(row["digest"]), str(row["period"]), str(len(row["papers"]))] for row in rows]
    text = table(["to", "digest", "period", "papers"], lines, right=(3,)) if rows else "no digest is due"
    emit(rows, as_json=as_json, text=text)


@digest.command()
def bounce(
    file: Annotated[Path, typer.Argument(help="A delivery report (RFC 3464) as an .eml file.")],
    home: HomeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Read a delivery report: an address that does not exist gets no further mail."""
    from nextvec.cli._papers_site import opened

    with opened(home, "nextvec-mini", must_exist=True) as site:
        from nextvec.papers.mail.bounces import note_bounce, read_bounce
        from nextvec.papers.mail.store import MailStore

        said, suspended = note_bounce(MailStore(site.db), read_bounce(file), _moment(None))
    emit({"said": said, "suspended": suspended}, as_json=as_json, text=said)


@digest.command()
def status(home: HomeOption = None, as_json: JsonFlag = False) -> None:
    """How many mails wait, were sent, failed or are in doubt."""
    from nextvec.cli._papers_site import opened

    with opened(home, "nextvec-mini", must_exist=True) as site:
        from nextvec.papers.mail.outbox import Outbox
        from nextvec.papers.mail.store import MailStore

        store = MailStore(site.db)
        states = Outbox(store).states()
        counts = store.counts()
    text = table(["mails", "number"], [[name, f"{count:,}"] for name, count in sorted(states.items())], right=(1,))
    text += "\n\n" + table(["readers", "number"], [[name, f"{count:,}"] for name, count in counts.items()], right=(1,))
    emit({"mails": states, "readers": counts}, as_json=as_json, text=text)


# -- shared with `nextvec papers serve` ------------------------------------------------------------------------------
def opened_mailer(url: str | None, sender: str | None) -> TracedMailer:
    """The mailer that the options name. InputError where one of them is missing."""
    if not url:
        raise InputError("say what sends mail: --mail smtp+starttls://user@host, file:///folder or catch")
    if not sender:
        raise InputError("say whom mail comes from: --from (with serve --mail-from) 'Papers <papers@example.org>'")
    from nextvec.papers.mail.transport import open_mailer

    return open_mailer(url, sender=sender)


def made_post(site: Site, mailer: TracedMailer, base: str | None) -> Post:
    """What prepares and sends for ``site``. InputError without the site's address."""
    from nextvec.papers.mail.compose import Composer
    from nextvec.papers.mail.sending import Post
    from nextvec.papers.responses import check_base
    from nextvec.papers.signing import Signer, load_secret

    if not base:
        raise InputError("links in mails need the address of the site: --url https://papers.example.org")
    if site.db.read_only:
        raise InputError(f"the home {str(site.home)!r} is read-only: what was sent could not be noted")
    signer = Signer(load_secret(site.home))
    return Post(site, Composer(site, base=check_base(base), sender=mailer.sender, signer=signer))


def serving_mailer(url: str | None, sender: str | None, address: str, *, given: bool) -> TracedMailer | None:
    """The mailer of ``nextvec papers serve``; None where none was asked for.

    ``address``: the site's, ``given`` or where it listens; the latter will do for mails on this machine alone.
    InputError otherwise.
    """
    if not url:
        return None
    if not given and urlsplit(address).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise InputError("links in mails need the address of the site: --url https://papers.example.org")
    return opened_mailer(url, sender)


@contextlib.contextmanager
def mailing(site: Site, mailer: TracedMailer | None, base: str) -> Iterator[None]:
    """Send mail in a thread while the block runs; nothing without a mailer."""
    if mailer is None:
        yield
        return
    from nextvec.papers.mail.scheduler import running

    with running(made_post(site, mailer, base.rstrip("/")), mailer):
        yield


def _moment(text: str | None) -> datetime:
    """Naive UTC; without a zone it is taken for UTC."""
    if text is None:
        return datetime.now(UTC).replace(tzinfo=None)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"now is {text[:40]!r}; expected a time such as 2026-03-29T06:00Z") from None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
