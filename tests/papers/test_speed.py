"""What makes pages cheap changes nothing on them: counts in memory, facts read once, words found by look-ups, addresses
encoded once; and how often a page asks the database."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markupsafe import escape
from people import papers

from nextvec.papers import emblem, latex, lexical, markup, records, spelling, suggest
from nextvec.papers.accounts import votes
from nextvec.papers.accounts.readers import local_reader
from nextvec.papers.columns import Columns, places_in_order
from nextvec.papers.db import Filters, Selection
from nextvec.papers.facets import _counted, facets
from nextvec.papers.ingest import ingest
from nextvec.papers.ranking import Request, rank
from nextvec.papers.records import Paper
from nextvec.papers.search import _searchable, search
from nextvec.papers.search_form import SearchForm
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation
from nextvec.papers.web import create_app
from nextvec.search.words import WORD, tokenize, tokens_of

FORGETFUL = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# -- facets in memory ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [0, 1, 7, 60, 10_000])
@pytest.mark.parametrize("most", [3, 8])
def test_columns_count_what_the_database_counts(small: Site, few: list[Paper], count: int, most: int) -> None:
    columns = Columns.read(small.db)
    names = [one.id for one in few]
    chosen = random.Random(count).sample(names, min(count, len(names)))
    expected = _counted(small, Selection(ids=json.dumps(chosen)), len(chosen), most)
    assert columns.count([*chosen, "no paper"], most) == expected


@pytest.mark.parametrize("seed", range(3))
def test_columns_that_followed_count_what_those_made_anew_count(site: Site, seed: int) -> None:
    choice = random.Random(seed)
    columns = Columns.read(site.db)
    known = {one.id: one for one in papers()}
    for number in range(8):
        name = choice.choice([*known, f"n{number}"])
        people = tuple(choice.sample(["Ada Bo", "ada bo", "Zoe Zed", "Élodie", "Aaron A", "Élodie"], 3))
        known[name] = replace(
            known.get(name, papers()[0]), id=name, authors=people, organization=choice.choice([None, "New Lab", "B"]),
            github_repo=choice.choice([None, "https://github.com/a/b"]), categories=choice.choice([(), ("x.Y", "Z")]),
        )  # fmt: skip
        site.db.upsert([known[name]])
        if number == 5:
            moderation.hide(site.db, name, reason="twice", actor="me")
            del known[name]
        columns = columns.follow(site.db)
        anew = Columns.read(site.db)
        assert columns.followed and (columns.stamp, columns.moderated) == (anew.stamp, anew.moderated)
        for wanted in (sorted(known), sorted(known)[::2], []):
            for most in (1, 3, 100):
                assert columns.count(wanted, most) == anew.count(wanted, most)


def test_columns_are_made_anew_when_much_has_changed(site: Site) -> None:
    columns = Columns.read(site.db)
    many = [replace(papers()[0], id=f"n{number}", title=f"Title {number}") for number in range(101)]
    site.db.upsert(many)
    after = columns.follow(site.db)
    assert after.followed == 0 and after.count(sorted(after.places), 9) == Columns.read(site.db).count(after.places, 9)


@pytest.mark.parametrize("seed", range(3))
def test_suggestions_that_followed_are_those_made_anew(site: Site, seed: int) -> None:
    choice = random.Random(seed)
    whole, stamp = suggest.suggester(site), site.stamp
    assert all(isinstance(one, suggest.Suggester) for one in whole)
    for number in range(5):
        people = (*papers()[0].authors, choice.choice(["Zoe Zed", "élodie B", "Élodie B"]), f"Person {number}")
        title = choice.choice(["Zebras", "The latent zebra", "Plans"])
        new = replace(papers()[0], id=f"n{number}", title=title, authors=people, organization="Zebra Lab")
        site.db.upsert([new, replace(papers()[1], title=f"Changed {number}", upvotes=number)])
        followed = suggest.suggester(site, fresh=True)
        assert isinstance(followed[0], suggest.Followed)
        site.kept.drop("suggest whole")
        anew = suggest._made(site, 0)
        site.kept.put("suggest whole", suggest._Whole(stamp, (0, ""), whole))  # type: ignore[arg-type]
        for one, other in zip(followed, anew, strict=True):
            for prefix in ("ze", "lat", "el", "per", "person 1", "a", "pl", "chan", "nobody"):
                found, wanted = one.find(prefix, 100), other.find(prefix, 100)
                assert [entry.weight for entry in found] == [entry.weight for entry in wanted], prefix
                assert sorted(found) == sorted(wanted), prefix


def test_lists_are_made_anew_when_many_papers_have_changed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before, words = suggest.suggester(site), spelling.title_words(site)
    many = [replace(papers()[0], id=f"n{number}", title=f"Zebra {number}") for number in range(101)]
    site.db.upsert(many[:1])
    assert isinstance(suggest.suggester(site, fresh=True)[3], suggest.Followed)
    site.db.upsert(many)
    after = suggest.suggester(site, fresh=True)
    assert all(isinstance(one, suggest.Suggester) for one in after) and after[3] is not before[3]
    assert len(after[3].find("zeb", 1_000)) == 101
    assert spelling.title_words(site, fresh=True) is not words and spelling.title_words(site)["z"]["zebra"] == 101


def test_columns_are_used_for_their_own_state_only(site: Site) -> None:
    request = Request(filters=Filters(), query="latent")
    site.load_columns()
    assert site.columns() is not None
    ingest(site, [replace(papers()[0], id="p99", title="Latent plans", organization="A New Lab")])
    assert site.columns() is None and site.columns(10**6) is None, "nobody makes them anew beside the answers"
    org = next(one for one in facets(site, request, rank(site, request)) if one.name == "org")
    assert "A New Lab" in [one.value for one in org.counts]
    site.load_columns()
    assert site.columns() is not None
    assert "A New Lab" in site.columns().organizations.shown  # type: ignore[union-attr]


def test_keys_are_sorted_in_parts_as_in_one(few: list[Paper]) -> None:
    keys = [word for one in few for word in one.summary.split()] + [
        "",
        "a",
        "ab",
        "abc",
        "abcd",
        "abc",
        "é",
        "\U0010ffff",
    ]
    assert places_in_order(keys) == sorted(range(len(keys)), key=keys.__getitem__)


# -- facts ---------------------------------------------------------------------------------------------------------
@contextmanager
def statements(site: Site) -> Iterator[list[str]]:
    """The statements that the database gets while the block runs, without the beginnings and ends of transactions."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("BEGIN", "COMMIT", "ROLLBACK")):
            found.append(statement)

    sa.event.listen(site.db._engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(site.db._engine, "before_cursor_execute", note)


def test_facts_are_read_once_while_they_are_held(site: Site) -> None:
    with statements(site) as asked, site.db.snapshot_held():
        before = (site.stamp, site.state, site.db.fact("encoder"), site.db.fact("no such fact"))
        with site.db.snapshot_held():
            assert site.stamp == before[0]
        assert len(asked) == 1
    assert before == (site.stamp, site.state, site.db.fact("encoder"), None)
    votes.give(site.db, local_reader(site.db).id, "p1")
    assert site.state != before[1], "and then they are read again"


def test_a_search_page_asks_the_database_few_things(site: Site) -> None:
    browser = TestClient(create_app(site))
    site.load_columns()
    browser.get("/search?q=one")  # what is asked for once for each state of the papers
    for address, most in (("/search?q=two+three", 10), ("/search?q=two+three", 8), ("/search?q=two&code=1", 9)):
        with statements(site) as asked:
            assert browser.get(address).status_code == 200
        assert len(asked) <= most, asked


# -- what readers and moderators do shows at once --------------------------------------------------------------------
def test_votes_comments_and_moderation_show_on_the_next_page(site: Site) -> None:
    browser = TestClient(create_app(site))
    site.load_columns()
    pages = ("/search?q=paper&sort=votes", "/search?votes=1", "/papers/new", "/search?votes=1&sort=newest")
    for address in pages:
        assert browser.get(address).status_code == 200
    most = max(site.db.select(Filters(), limit=100), key=lambda one: one.paper.upvotes).paper
    least = min(site.db.select(Filters(), limit=100), key=lambda one: one.paper.upvotes).paper
    for i in range(most.upvotes - least.upvotes + 1):
        reader = local_reader(site.db).id if i == 0 else _reader(site, i)
        votes.give(site.db, reader, least.id)
    shown = re.findall(r'<h2 class="paper-title"><a href="/papers/([^"]+)"', browser.get("/search?votes=1").text)
    assert shown[0] == least.id
    moderation.hide(site.db, least.id, reason="twice", actor="me")
    for address in pages:
        assert f'href="/papers/{least.id}"' not in browser.get(address).text, address
    moderation.unhide(site.db, least.id, actor="me")
    assert f'href="/papers/{least.id}"' in browser.get("/papers/new").text


def _reader(site: Site, number: int) -> str:
    from nextvec.papers.accounts.readers import enter

    with site.db.write() as connection:
        return enter(connection, f"r{number}@example.org").id


# -- words in texts ------------------------------------------------------------------------------------------------
PIECES = st.sampled_from(
    ["models", "model's", "multi-modal", "multimodal", "Élodie", "elodie", "GPT-4o", "gpt4o", "studies", "study", "C++",
     "v1.5", "don’t", "dont", "İstanbul", "straße", " ", " ", ". ", "! A", "? (", "-", "'", "’", "_", "+", "x", "The",
     "3times", "$x^2$", "--", "https://a.org/b", "propto", "``quoted''", "“so”", "~"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=25).map("".join) | st.lists(PIECES, max_size=25).map(" ".join) | st.text(max_size=60)


def marked(query: str, text: str) -> str:
    """Word by word."""
    wanted = set(tokenize(query))
    out, at = "", 0
    for match in WORD.finditer(text):
        if not wanted.isdisjoint(tokens_of(match.group())):
            out += f"{escape(text[at : match.start()])}<mark>{escape(match.group())}</mark>"
            at = match.end()
    return out + str(escape(text[at:]))


@FORGETFUL
@given(query=TEXTS, text=TEXTS)
def test_words_are_found_wherever_they_stand(query: str, text: str) -> None:
    mark = lexical.highlighter(query)
    assert (mark or escape)(text) == marked(query, text)
    present = set(tokenize(text))
    expected = [word for word in dict.fromkeys(WORD.findall(query)) if not present.isdisjoint(tokens_of(word))]
    assert lexical.matched_terms(query, text) == expected
    part, whole = lexical.snippet(query, text)
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z0-9(])", text)
    assert part in [" ".join(sentences[start:]) for start in range(len(sentences))]
    assert whole == (part == " ".join(sentences)), "from the beginning"
    shared = [len(set(tokenize(query)).intersection(tokenize(one))) for one in sentences]
    assert bool(lexical.matched_terms(query, part)) == any(shared), "it has some of the words if there are any"


def test_the_index_knows_the_words_of_its_papers(small: Site, few: list[Paper]) -> None:
    names = [one.id for one in few]
    texts = {stored.paper.id: _searchable(stored) for stored in small.db.get_many(names)}
    for query in ("language models for GPT-4o", "Élodie's multi-modal robots", "the of", "", "zebra video 3d"):
        found = small.words().terms(query, [*names, "no paper"])
        assert found == {name: lexical.matched_terms(query, text) for name, text in texts.items()}, query


def test_terms_of_a_paper_that_changed_are_those_of_its_text_now(site: Site) -> None:
    site.words()
    site.db.upsert([replace(papers()[0], title="Entirely about zebras")])  # the index follows with the next ingest
    assert site.words().stamp != site.stamp
    found = search(site, papers()[0].title, mode="semantic").matches
    changed = next(match for match in found if match.stored.paper.id == papers()[0].id)
    assert changed.stored.paper.title == "Entirely about zebras"
    assert changed.terms == lexical.matched_terms(papers()[0].title, _searchable(changed.stored))


@pytest.mark.parametrize("query", ["", "a b"])
@pytest.mark.parametrize("text", ["", "pasted"])
@pytest.mark.parametrize("like", [(), ("1",), ("1", "x/2")])
@pytest.mark.parametrize("unlike", [(), ("3",)])
def test_an_address_with_one_more_example(
    query: str, text: str, like: tuple[str, ...], unlike: tuple[str, ...]
) -> None:
    form = SearchForm(
        Request(query=query, text=text, like=like, unlike=unlike, sort="votes", filters=Filters(code=True))
    )
    for one in ("9", "1", "3", "x/2", "a b&c"):
        for liked in (True, False):
            assert form.with_example(one, liked=liked) == form._with(one, "like" if liked else "unlike")


@FORGETFUL
@given(text=TEXTS | st.text())
def test_clean_text_is_seen_at_once(text: str) -> None:
    slowly = records._BLANK.sub(" ", text.encode("utf-8", "replace").decode("utf-8")).strip()
    assert records.clean(text) == slowly


@FORGETFUL
@given(text=TEXTS)
def test_ordinary_text_is_read_as_any_other(text: str) -> None:
    slowly = markup._merged(latex.read(markup.clean(text)))
    assert markup.parse.__wrapped__(text) == slowly


def test_titles_and_abstracts_are_read_as_ever(few: list[Paper]) -> None:
    ordinary = 0
    for one in few:
        for text in (one.title, one.summary, one.summary[:420]):
            slowly = markup._merged(latex.read(markup.clean(text)))
            assert markup.parse.__wrapped__(text) == slowly, one.id
            ordinary += markup._ordinary(markup.clean(text))
    assert ordinary > len(few), "most of them are ordinary"


# -- addresses -----------------------------------------------------------------------------------------------------
NAMES = st.none() | st.sampled_from(["NVIDIA", "a b", "Élodie & Co.", "<i>"])


@FORGETFUL
@given(
    query=st.sampled_from(["", "a b", "é&=?#"]), org=NAMES, other=NAMES, votes=st.none() | st.integers(1, 9),
    like=st.sampled_from([(), ("1",), ("1", "x/2")]), code=st.booleans(), change=st.booleans(),
)  # fmt: skip
def test_an_address_says_the_whole_form(
    query: str, org: str | None, other: str | None, votes: int | None, like: tuple[str, ...], code: bool, change: bool
) -> None:
    filters = Filters(organization=org, votes=votes, code=code, start=date(2025, 1, 2))
    form = SearchForm(Request(query=query, filters=filters, like=like, mode="keyword", sort="votes"))
    then = replace(filters, organization=other, code=not code)
    changes = {"sort": "", "after": "xyz", "like": (*like, "y")} if change else {}
    values = SearchForm(replace(form.request, filters=then)).pairs() | changes
    wanted = urlencode({name: value for name, value in values.items() if value not in (None, "", ())}, doseq=True)
    assert form.address(then, ending="atom", **changes) == f"/search.atom?{wanted}"
    assert form.address() == SearchForm(form.request).address() == form.address(filters)
    assert SearchForm(Request()).address() == "/search"


# -- emblems -------------------------------------------------------------------------------------------------------
@FORGETFUL
@given(cells=st.integers(0, 2**64 - 1))
def test_an_emblem_is_drawn_cell_by_cell(cells: int) -> None:
    paths = {1: "", 2: "", 3: ""}
    for cell in range(32):
        level = cells >> 2 * (31 - cell) & 3
        row, column = divmod(cell, 4)
        if level:
            paths[level] += f"M{column} {row}h1v1h-1zM{7 - column} {row}h1v1h-1z"
    drawn = dict(re.findall(r'<path class="e(\d)" d="([^"]+)"/>', emblem.draw(f"b{cells:016x}")))
    assert drawn == {str(level): path for level, path in paths.items() if path}
