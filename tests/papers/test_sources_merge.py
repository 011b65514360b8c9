"""Who said what of a paper, what is one paper, and how a moderator changes that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import open_database, raw
from fakes import HashEncoder
from people import join, of

from nextvec.papers.accounts import comments, lists, votes
from nextvec.papers.accounts.tables import LIST_PAPERS, VOTES
from nextvec.papers.db import Database, Filters
from nextvec.papers.ingest import Totals, finish, ingest, is_ready, settle, take
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.records import Paper
from nextvec.papers.search import search
from nextvec.papers.site import Site
from nextvec.papers.sources import intake, moderation, snapshots
from nextvec.papers.sources.base import Batch, Record, content, read_content
from nextvec.papers.sources.ids import names, names_of_id
from nextvec.papers.sources.tables import NAMES, SNAPSHOTS, SOURCE_RECORDS
from nextvec.types import ConflictError, InputError, NotFoundError

pytestmark = pytest.mark.both

ARXIV = Paper(
    id="2504.00001",
    title="Graph Memory for Editing Models",
    summary="We edit models by a graph.",
    authors=("Ada Lovelace", "Kurt Gödel"),
    published_at=datetime(2025, 4, 1),
    source="arxiv",
)
DAILY = replace(ARXIV, summary="We edit.", upvotes=7, daily_date=date(2025, 4, 2), source="daily_papers")
ACL = replace(
    ARXIV,
    id="2025.acl-long.5",
    title="Lifelong Graph Memory for Editing Models",
    summary="",
    authors=("Ada Lovelace", "K. Godel"),
    published_at=datetime(2025, 7, 1),
    source="acl",
)
OTHER = Paper(id="2504.00002", title="Quite another thing", summary="Zebras.", authors=("Bo Derek",), source="arxiv")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path / "home", encoder=HashEncoder())
    yield opened
    opened.close()


def record(paper: Paper) -> Record:
    acl = names(acl=paper.id, dois=(f"10.18653/v1/{paper.id}",)) if paper.source == "acl" else ()
    return Record(paper.id, paper, acl or names_of_id(paper.id), {})


def put(site: Site, source: str, *papers: Paper, deleted: Sequence[str] = ()) -> Totals:
    totals = Totals()
    with site.writing():
        settle(site, lambda name: None)
        take(site, source, Batch([record(paper) for paper in papers], tuple(deleted)), totals)
        finish(site, lambda name: None)
    assert is_ready(site) and set(site.collection.ids()) == site.db.ids(Filters())
    return totals


def get(site: Site, identifier: str) -> Paper:
    stored = site.db.get(identifier)
    assert stored is not None and stored.mark, identifier
    return stored.paper


def told(site: Site, identifier: str) -> dict[str, set[str]]:
    with site.db.read() as connection:
        return {given.source: set(given.fields) for given in intake.given_to(connection, [identifier])}


def test_what_is_kept_of_a_record_gives_it_back() -> None:
    full = replace(DAILY, listed_at=datetime(2025, 4, 2, 5), github_repo="https://g.io/x", github_stars=3)
    before = Record("k", full, ("arxiv:2504.00001",), {"venue": "x"})
    assert read_content("k", json.dumps(content(before))) == before


def test_one_paper_of_three_sources_with_a_source_for_each_field(site: Site) -> None:
    put(site, "hf_daily", DAILY)
    put(site, "arxiv", replace(ARXIV, upvotes=0), OTHER)
    assert put(site, "acl", ACL).merged == 1, "nearly the same title, the same people"
    assert site.db.ids(Filters()) == {"2504.00001", "2504.00002"}
    found = get(site, "2504.00001")
    assert found.title == ARXIV.title and found.summary == ARXIV.summary, "the text is arXiv's"
    assert found.upvotes == 7 and found.daily_date == date(2025, 4, 2), "the votes are the feed's"
    assert told(site, "2504.00001") == {
        "hf_daily": {"upvotes", "daily_date"},
        "arxiv": {"title", "summary", "authors", "published_at", "source"},
        "acl": set(),
    }
    with site.db.read() as connection:
        known = set(connection.execute(sa.select(NAMES.c.name).where(NAMES.c.paper == "2504.00001")).scalars())
        rows = connection.execute(sa.select(SOURCE_RECORDS.c.first_seen, SOURCE_RECORDS.c.last_seen)).all()
    assert known == {"arxiv:2504.00001", "acl:2025.acl-long.5", "doi:10.18653/v1/2025.acl-long.5"}
    assert len(rows) == 4 and all(row.first_seen and row.last_seen for row in rows)
    again = put(site, "acl", ACL)
    assert (again.changed, again.embedded, again.merged) == (0, 0, 0)
    put(site, "acl", replace(ACL, title="A wholly different title"))
    assert site.db.count() == 2, "a record stays with its paper"


def test_the_abstract_comes_from_whoever_has_one(site: Site) -> None:
    put(site, "acl", ACL)
    assert get(site, ACL.id).summary == ""
    put(site, "hf_daily", replace(DAILY, title=ACL.title))
    assert get(site, ACL.id).published_at == DAILY.published_at, "when it was first published"
    assert site.db.count() == 1 and get(site, ACL.id).summary == "We edit.", "the first id stays"
    assert moderation.away(site.db, "2504.00001") == moderation.Away("merged", "", ACL.id)


def test_a_version_and_a_doi_are_the_same_paper(site: Site) -> None:
    put(site, "arxiv", ARXIV)
    put(site, "file", replace(ARXIV, id="2504.00001v3", title="Renamed by hand"))
    assert site.db.ids(Filters()) == {"2504.00001"} and get(site, "2504.00001").title == "Renamed by hand"
    elsewhere = Paper(id="bib/x", title="No likeness", summary="")
    with site.writing():
        batch = Batch([Record("b", elsewhere, names(dois=("10.48550/arXiv.2504.00001",)))])
        take(site, "bibtex", batch, Totals())
    assert site.db.count() == 1 and get(site, "2504.00001").title == "Renamed by hand"


def test_two_papers_of_one_source_are_two(site: Site) -> None:
    put(site, "file", ARXIV, replace(ARXIV, id="twin"))
    assert site.db.count() == 2
    assert put(site, "acl", ACL).merged == 0, "which of the two it is cannot be told"
    assert site.db.count() == 3


def test_what_was_there_before_sources_were_noted_is_kept(site: Site) -> None:
    site.db.upsert([DAILY])
    put(site, "arxiv", ARXIV)
    assert told(site, ARXIV.id)["earlier"] == {"upvotes", "daily_date"}
    put(site, "arxiv", deleted=[ARXIV.id])
    assert get(site, ARXIV.id).summary == DAILY.summary, "arXiv withdrew it, the feed did not"
    site.db.upsert([OTHER])
    put(site, "file", replace(OTHER, title="A new title"))
    assert set(told(site, OTHER.id)) == {"file"}, "a file replaces what files gave"


def test_deleted_by_its_only_source(site: Site) -> None:
    put(site, "arxiv", ARXIV, OTHER)
    totals = put(site, "arxiv", deleted=[ARXIV.id, "2504.99999"])
    assert totals.deleted == 1 and site.db.ids(Filters()) == {OTHER.id}
    assert moderation.away(site.db, ARXIV.id) == moderation.Away("deleted", "its source has withdrawn it", None)
    put(site, "arxiv", ARXIV)
    assert get(site, ARXIV.id) == ARXIV and moderation.away(site.db, ARXIV.id) is None


# -- moderation ----------------------------------------------------------------------------------------------------
def test_hidden_is_gone_at_once_and_stays_so(site: Site) -> None:
    put(site, "arxiv", ARXIV, OTHER)
    moderation.hide(site.db, "2504.00001v2", reason=" spam \n here ", actor="me")
    assert site.db.get(ARXIV.id) is None and site.withdrawn() == {ARXIV.id}
    found = search(site, "graph memory")  # the indexes still have it
    assert ARXIV.id in site.collection.ids() and ARXIV.id not in [match.stored.paper.id for match in found.matches]
    assert found.total == len(found.matches)
    assert [stored.paper.id for stored, _ in site.similar(OTHER.id)] == []
    put(site, "arxiv", replace(ARXIV, summary="A new version of it."), OTHER)
    assert site.db.ids(Filters()) == {OTHER.id}, "a harvest does not bring it back"
    assert moderation.away(site.db, ARXIV.id) == moderation.Away("hidden", "spam here", None)
    with pytest.raises(ConflictError, match="hidden already"):
        moderation.hide(site.db, ARXIV.id, reason="again", actor="me")
    moderation.unhide(site.db, ARXIV.id, actor="me")
    put(site, "arxiv")
    assert get(site, ARXIV.id).summary == "A new version of it.", "what came meanwhile is in it"
    assert [(act.action, act.actor, act.reason) for act in moderation.audit(site.db)] == [
        ("unhide", "me", ""), ("hide", "me", "spam here"),
    ]  # fmt: skip


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_hiding_needs_a_reason(site: Site, reason: str) -> None:
    put(site, "arxiv", ARXIV)
    with pytest.raises(InputError, match="the reason has"):
        moderation.hide(site.db, ARXIV.id, reason=reason, actor="me")
    with pytest.raises(NotFoundError, match="there is no paper"):
        moderation.hide(site.db, "nope", reason="x", actor="me")
    with pytest.raises(NotFoundError, match="is hidden"):
        moderation.unhide(site.db, ARXIV.id, actor="me")


def test_a_merge_by_hand_and_its_undoing(site: Site) -> None:
    put(site, "hf_daily", DAILY)
    put(site, "arxiv", OTHER)
    put(site, "file", replace(OTHER, id="third", title="A third", upvotes=2))
    before = {identifier: get(site, identifier) for identifier in (DAILY.id, OTHER.id, "third")}
    moderation.merge(site.db, DAILY.id, OTHER.id, actor="me")
    moderation.merge(site.db, "third", DAILY.id, actor="me")
    put(site, "arxiv")
    assert site.db.ids(Filters()) == {"third"} and get(site, "third").daily_date == DAILY.daily_date
    assert moderation.away(site.db, OTHER.id) == moderation.Away("merged", "", "third"), "through both merges"
    with pytest.raises(ConflictError, match="is part of 'third'"):
        moderation.merge(site.db, DAILY.id, "third", actor="me")
    assert moderation.split(site.db, DAILY.id, actor="me") == [DAILY.id]
    put(site, "arxiv", OTHER)
    assert site.db.ids(Filters()) == {"third", DAILY.id}
    assert moderation.split(site.db, OTHER.id, actor="me") == [OTHER.id]
    put(site, "arxiv", OTHER)
    assert {identifier: get(site, identifier) for identifier in before} == before
    assert not site.withdrawn()
    with pytest.raises(ConflictError, match="nothing to take apart"):
        moderation.split(site.db, OTHER.id, actor="me")
    with pytest.raises(InputError, match="with itself"):
        moderation.merge(site.db, OTHER.id, OTHER.id, actor="me")


def test_a_merge_by_title_can_be_undone_for_good(site: Site) -> None:
    put(site, "arxiv", ARXIV)
    put(site, "acl", ACL)
    assert moderation.split(site.db, ARXIV.id, actor="me") == [ACL.id]
    put(site, "acl", replace(ACL, summary="A new abstract."))
    assert site.db.ids(Filters()) == {ARXIV.id, ACL.id} and get(site, ACL.id).summary == "A new abstract."
    assert moderation.away(site.db, "10.18653/v1/2025.acl-long.5") == moderation.Away("merged", "", ACL.id)


def test_a_moderator_between_plan_and_transaction(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    put(site, "arxiv", ARXIV, OTHER)
    plan, seen = intake.plan, []

    def meanwhile(db: Database, source: str, batch: Batch) -> intake.Plan:
        made = plan(db, source, batch)
        if not seen:
            moderation.hide(db, ARXIV.id, reason="spam", actor="me")
        seen.append(made)
        return made

    monkeypatch.setattr(intake, "plan", meanwhile)
    put(site, "arxiv", replace(ARXIV, summary="Changed."), replace(OTHER, summary="Changed too."))
    assert len(seen) == 2 and site.db.ids(Filters()) == {OTHER.id}
    assert get(site, OTHER.id).summary == "Changed too."


# -- votes by day --------------------------------------------------------------------------------------------------
DAY = date(2025, 5, 1)


def vote(db: Database, day: int, **votes: int) -> None:
    with db.write() as connection:
        rows = [{"id": name, "upvotes": count, "num_comments": 0} for name, count in votes.items()]
        snapshots.note(connection, rows, day=DAY + timedelta(days=day))


def test_only_changes_are_written_and_old_ones_thinned(site: Site) -> None:
    for day in range(20):
        vote(site.db, day, a=day // 2 + 1, b=5)
    with site.db.write() as connection:
        assert len(snapshots.history(connection, "a")) == 10 and len(snapshots.history(connection, "b")) == 1
        gone = snapshots.thin(connection, today=DAY + timedelta(days=200))
        kept = snapshots.history(connection, "a")
        assert gone and len(kept) == 10 - gone and kept[-1].votes == 10
        weeks = [point.day.isocalendar()[:2] for point in kept]
        assert len(weeks) == len(set(weeks))
        assert snapshots.thin(connection, today=DAY + timedelta(days=200)) == 0
    vote(site.db, 30, a=11)
    vote(site.db, 30, a=12)
    with site.db.read() as connection:
        assert snapshots.history(connection, "a")[-1].votes == 12, "one row a day"


def test_what_was_gained(site: Site) -> None:
    papers = [
        Paper(id="old", title="Old", summary="", upvotes=50, daily_date=date(2025, 1, 1)),
        Paper(id="new", title="New", summary="", upvotes=9, daily_date=date(2025, 5, 20)),
        Paper(id="late", title="Seen late", summary="", upvotes=70, daily_date=date(2025, 1, 1)),
        Paper(id="still", title="Still", summary="", upvotes=30, daily_date=date(2025, 1, 1)),
    ]
    site.db.upsert(papers)
    with site.db.write() as connection:
        connection.execute(SNAPSHOTS.delete())
    vote(site.db, 0, old=40, still=30)
    vote(site.db, 18, old=50, late=65)
    vote(site.db, 19, new=9, late=70)
    with site.db.read() as connection:
        week = snapshots.gained(connection, DAY + timedelta(days=12))
        assert week == [("old", 10), ("new", 9), ("late", 5)]
        assert snapshots.gained(connection, DAY + timedelta(days=18)) == [("new", 9), ("late", 5)]
        assert snapshots.gained(connection, DAY + timedelta(days=12), Filters(votes=60)) == [("late", 5)]
        assert snapshots.gained(connection, DAY + timedelta(days=12), limit=1) == [("old", 10)]


def test_the_line_needs_three_points() -> None:
    points = [snapshots.Point(DAY + timedelta(days=i), i * i, 0) for i in range(4)]
    assert snapshots.spark(points[:2]) == ""
    line = snapshots.spark(points)
    assert "style" not in line and 'aria-label="Votes: 0 on 1 May 2025, 9 on 4 May 2025"' in line
    assert 'points="2.0,28.0 40.7,25.3 79.3,17.3 118.0,4.0"' in line


# -- the step to this version --------------------------------------------------------------------------------------
def test_the_step_from_the_version_before(tmp_path: Path) -> None:
    with raw(tmp_path) as connection:
        migrate(connection, [step for step in MIGRATIONS if step.number < 6])
        connection.execute(
            sa.text(
                "INSERT INTO papers (id, title, summary, authors, upvotes, num_comments, daily_date) "
                "VALUES ('2504.00001', 'Émile and {BERT}', 's', '[\"Ada\"]', 4, 1, '2025-04-02')"
            )
        )
        connection.execute(sa.text("UPDATE facts SET value = '2025-04-03T10:00:00' WHERE name = 'changed'"))
    with open_database(tmp_path) as db:
        with db.read() as connection:
            points = snapshots.history(connection, "2504.00001")
            title = connection.execute(sa.text("SELECT folded FROM titles")).scalar_one()
        assert points == [snapshots.Point(date(2025, 4, 3), 4, 1)] and title == "emile and bert"
        moderation.hide(db, "2504.00001", reason="x", actor="me")
        moderation.unhide(db, "2504.00001", actor="me")
        stored = db.get("2504.00001")
        assert stored is not None and stored.paper.upvotes == 4 and stored.paper.authors == ("Ada",)


def test_a_file_of_ones_own_replaces_by_id(site: Site) -> None:
    mine = Paper(id="mine", title="Mine", summary="One.", upvotes=5, github_repo="https://g.io/x")
    ingest(site, [mine])
    ingest(site, [replace(mine, upvotes=0, github_repo=None)])
    assert get(site, "mine").upvotes == 0 and get(site, "mine").github_repo is None


# -- what readers gave ---------------------------------------------------------------------------------------------
def given(site: Site, paper: str) -> tuple[int, int]:
    """(votes, comments) as everybody sees them."""
    shown = of(site.db, paper)
    return shown.upvotes, shown.num_comments


def test_what_readers_gave_moves_with_a_merge_and_stays_through_hiding(site: Site) -> None:
    put(site, "daily_papers", replace(DAILY, num_comments=2))
    put(site, "arxiv", OTHER)
    ada, bob = (join(site.db, f"{name}@example.org").id for name in ("ada", "bob"))
    votes.give(site.db, ada, DAILY.id)
    votes.give(site.db, ada, OTHER.id)
    votes.give(site.db, bob, OTHER.id)
    comments.write(site.db, bob, OTHER.id, "On the other one.")
    gone = comments.write(site.db, bob, OTHER.id, "A mistake.")
    comments.delete(site.db, bob, gone)
    held = lists.add(site.db, ada, None, OTHER.id, name="To read", note="soon")
    lists.add(site.db, ada, held, DAILY.id, note="first")
    assert given(site, DAILY.id) == (8, 2) and given(site, OTHER.id) == (2, 1)

    moderation.merge(site.db, DAILY.id, OTHER.id, actor="m")
    assert given(site, DAILY.id) == (9, 3), "Ada's two votes are one"
    assert [comment.text for comment in comments.thread(site.db, DAILY.id) if comment.state == "shown"] == [
        "On the other one."
    ]
    with site.db.read() as connection:
        listed = connection.execute(sa.select(LIST_PAPERS.c.paper, LIST_PAPERS.c.note)).all()
        assert [tuple(row) for row in listed] == [(DAILY.id, "first")]
        assert set(connection.execute(sa.select(VOTES.c.paper)).scalars()) == {DAILY.id}

    moderation.hide(site.db, DAILY.id, reason="a test", actor="m")
    moderation.unhide(site.db, DAILY.id, actor="m")
    assert given(site, DAILY.id) == (9, 3)
    moderation.split(site.db, DAILY.id, actor="m")
    assert given(site, DAILY.id) == (9, 3) and given(site, OTHER.id) == (0, 0), "it stays where it went"
    votes.take_back(site.db, bob, DAILY.id)
    assert given(site, DAILY.id) == (8, 3)
