"""What an ingest looks at: the papers that changed since vectors and rows last agreed, or all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from people import papers

from nextvec.papers import agreement, ingest
from nextvec.papers.insight import build, store
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation
from nextvec.types import ConflictError


def silent(_step: str) -> None:
    return None


def agree(site: Site) -> None:
    """Every paper that has a vector lies in the collection with its text's, and nothing else does."""
    assert set(site.collection.ids()) == site.db.ids(ingest.Filters()) == site.db.indexed_ids()
    assert site.db.pending_count() == 0


def begun(site: Site) -> list[str] | None:
    """What an ingest that begins now would look at."""
    site.agreed = None
    return agreement.suspects(site)


def test_an_ingest_looks_at_what_changed(site: Site) -> None:
    assert begun(site) == []
    site.db.upsert([replace(papers()[0], id="n1", title="Entirely new"), replace(papers()[1], title="Another title")])
    moderation.hide(site.db, "p3", reason="twice", actor="me")
    assert begun(site) == sorted(["n1", papers()[1].id, "p3"])
    report = ingest.ingest(site, [], understand=False)
    assert report.embedded == 2 and begun(site) == []
    agree(site)


def test_votes_are_no_change_and_moderators_are(site: Site) -> None:
    moderation.hide(site.db, "p2", reason="twice", actor="me")
    moderation.unhide(site.db, "p2", actor="me")
    assert begun(site) == ["p2"]
    assert ingest.ingest(site, [], understand=False).embedded == 1
    agree(site)


def _lose_a_row(site: Site) -> None:
    site.collection.delete([papers()[0].id])


def _gain_a_row(site: Site) -> None:
    site.collection.upsert(["stray"], np.ones((1, site.encoder.dim), np.float32))


def _forget(site: Site) -> None:
    site.db.forget_indexed([papers()[0].id])


def _restore(site: Site) -> None:
    site.db.set_facts(generation="restored")


@pytest.mark.parametrize("change", [_lose_a_row, _gain_a_row, _forget, _restore])
def test_what_the_note_does_not_know_has_everything_looked_at(site: Site, change: Callable[[Site], None]) -> None:
    assert begun(site) == []
    change(site)
    assert begun(site) is None
    ingest.ingest(site, [], understand=False)
    agree(site)
    assert begun(site) == []


@pytest.mark.parametrize("step", ["_vectors", "emblem"])
def test_a_batch_that_broke_off_is_looked_at_in_the_same_run(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What a harvest does where its source fails: it settles what it has."""
    changed = replace(papers()[0], title="Entirely about zebras")
    batch = ingest.Batch([ingest.Record(changed.id, changed, ingest.names_of_id(changed.id))])
    with site.writing():
        ingest.settle(site, silent)
        monkeypatch.setattr(ingest, step, lambda *_: (_ for _ in ()).throw(ConflictError("in the middle")))
        with pytest.raises(ConflictError):
            ingest.take(site, "file", batch, ingest.Totals())
        monkeypatch.undo()
        assert site.db.pending_count() == 1
        ingest.finish(site, silent, understand=False)
    agree(site)


def test_who_wrote_between_two_ingests_is_not_trusted(site: Site) -> None:
    with site.writing():
        ingest.settle(site, silent)
    _lose_a_row(site)  # another process, which ended before it could put it back
    with site.writing():
        ingest.settle(site, silent)
    agree(site)


# -- what is worked out about papers ---------------------------------------------------------------------------------
def test_insights_are_missed_among_the_papers_that_changed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    build.update(site)
    looked_at: list[object] = []
    monkeypatch.setattr(store, "rows_of", lambda *given: looked_at.append(given))
    assert store.missing(site.db, site.encoder_state) == []
    changed = replace(papers()[0], title="Entirely about zebras")
    site.db.upsert([changed, replace(papers()[1], upvotes=99)])
    assert store.missing(site.db, site.encoder_state) == [changed.id]
    assert not looked_at, "no look at all papers"
    monkeypatch.undo()
    assert len(store.missing(site.db, "another encoder")) == site.db.count()
    store.forget(site.db)
    assert len(store.missing(site.db, site.encoder_state)) == site.db.count() == store.lacking(site.db)


def test_few_or_many_are_missing(site: Site) -> None:
    count = site.db.count()
    store.forget(site.db)
    assert build.few_missing(site, count) and not build.few_missing(site, count - 1)
    build.update(site)
    site.db.upsert([replace(one, title=f"{one.title} again") for one in papers()])
    assert store.lacking(site.db) == 0 and not build.few_missing(site, count - 1)
