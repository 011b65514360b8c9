"""``nextvec papers insight``: keywords, summary lines, topics and their trends of the papers of a site."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from nextvec.cli._papers_site import EncoderOption, HomeOption, opened, stages
from nextvec.cli.console import JsonFlag, emit


def insight(
    again: Annotated[bool, typer.Option("--again", help="Work everything out anew, not only what is new.")] = False,
    topics: Annotated[
        int | None, typer.Option(min=2, max=200, help="How many topics. Default: by the size of the collection.")
    ] = None,
    no_map: Annotated[bool, typer.Option("--no-map", help="Leave the map of topics as it is.")] = False,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    as_json: JsonFlag = False,
) -> None:
    """Work out keywords, summary lines, similar sentences and the map of topics. May be interrupted and run again."""
    from nextvec.papers.insight.build import update
    from nextvec.papers.insight.people import build_people
    from nextvec.papers.insight.topics import build_topics

    with opened(home, encoder, must_exist=True) as site, stages(quiet=as_json) as stage, site.writing():
        report = update(site, again=again, stage=stage)
        began = time.monotonic()
        made = None if no_map else build_topics(site, count=topics, again=again, stage=stage)
        build_people(site)
        seconds = round(time.monotonic() - began, 3)
    document = report.as_dict() | {"topics": len(made.topics) if made else None, "map_seconds": seconds}
    text = f"{report.made:,} of {report.papers:,} papers worked out ({report.seconds:.1f} s)"
    text += f"; {len(made.topics)} topics ({seconds:.1f} s): /map and /topics" if made else ""
    emit(document, as_json=as_json, text=text)
