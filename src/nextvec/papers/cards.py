"""What a page of search results shows of each paper, made ready for its template: a template that calls functions, or
looks into objects, takes twice as long as one that only writes down what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nextvec.papers import lexical, markup
from nextvec.papers.emblem import draw
from nextvec.papers.pages import meter, rich, snippet
from nextvec.papers.records import Paper
from nextvec.papers.search import Match
from nextvec.papers.search_form import SearchForm

__all__ = ["Card", "cards"]


@dataclass(frozen=True, slots=True)
class Card:
    """``title``, ``teaser``: with the words of the query marked; ``plain_title``: for labels. ``like``, ``unlike``: the
    addresses that add the paper as an example, None where they would change nothing. ``words``, ``meaning``: how good
    the ranks are, as bars."""

    match: Match
    paper: Paper
    emblem: Markup
    title: Markup
    plain_title: str
    teaser: Markup | str
    like: str | None
    unlike: str | None
    words: Markup
    meaning: Markup


def cards(form: SearchForm, matches: Sequence[Match], sentences: Mapping[str, str]) -> list[Card]:
    """Of each of ``matches``; ``sentences``: what to show in place of the part that has the query's words, by id."""
    asked = form.request
    mark = lexical.highlighter(asked.query)
    found = []
    for match in matches:
        paper, rank = match.stored.paper, match.word_rank
        found.append(
            Card(
                match,
                paper,
                draw(match.stored.mark),
                rich(paper.title, mark),
                markup.plain(paper.title),
                sentences.get(paper.id) or snippet(asked.query, paper.summary, mark),
                None if paper.id in asked.like else form.with_example(paper.id, liked=True),
                None if paper.id in asked.unlike else form.with_example(paper.id, liked=False),
                meter(1 / (1 + (rank - 1) / 12) if rank is not None else 0),
                meter(match.meaning_score if match.meaning_score is not None else 0),
            )
        )
    return found
