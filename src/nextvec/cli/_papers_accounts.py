"""What ``nextvec papers`` has for the people who run a site with accounts."""

from __future__ import annotations

from typing import Annotated

import typer

from nextvec.cli._papers_site import HomeOption, opened
from nextvec.cli.console import JsonFlag, emit

__all__ = ["LocalReaderOption", "role"]

LocalReaderOption = Annotated[
    bool,
    typer.Option(
        "--local-reader",
        help="Sign whoever opens the site on this machine in as its one reader: votes, lists, comments without mail.",
    ),
]


def role(
    email: Annotated[str, typer.Argument(help="Address of somebody who has signed in before.")],
    name: Annotated[str, typer.Argument(metavar="ROLE", help="reader or moderator.")],
    home: HomeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a reader a moderator, who can hide comments, or a reader again. A running site knows at once."""
    with opened(home, "nextvec-mini", must_exist=True) as site:
        from nextvec.papers.accounts.readers import set_role

        reader = set_role(site.db, email, name)
    document = {"email": reader.email, "name": reader.name, "role": reader.role}
    emit(document, as_json=as_json, text=f"{reader.email} ({reader.name}) is a {reader.role} now")
