"""Records of a source become papers: first a plan, made from a snapshot; then, in one transaction, what was planned.

A record belongs to the paper that it belonged to before; else to the one that has one of its names; else to the one
that has its id; else to the one whose title and authors are the same (``titles``), if no record of the same source is
part of that one already: a source knows its own papers apart. Else it is a paper of its own.

Between plan and transaction the texts are embedded (``ingest``), so that readers see a paper only when the search has
it. A moderator may have changed something meanwhile: then nothing is written, and the plan is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from nextvec.papers.db import Database, stored_paper
from nextvec.papers.records import Paper, digest
from nextvec.papers.sources.base import Batch, Record, content, read_content
from nextvec.papers.sources.combine import EARLIER, combine
from nextvec.papers.sources.matching import Matcher
from nextvec.papers.sources.tables import NAMES, SOURCE_RECORDS, WITHDRAWN
from nextvec.papers.tables import FACTS, PAPERS

__all__ = ["Given", "Plan", "commit", "given_to", "plan", "rewrite"]

_REPLACES = ("file", "daily_papers")  # what the site took in before it noted sources is theirs to replace
_SEEN_AGAIN = timedelta(days=1)
_R = SOURCE_RECORDS.c


@dataclass(frozen=True, slots=True)
class Given:
    """A record as the database keeps it."""

    source: str
    record: Record
    paper: str
    home: str
    fields: tuple[str, ...] = ()
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    digest: str = ""


@dataclass(slots=True)
class Plan:
    """``papers``: as they will be; ``gone``: those that no source has any more; ``merged``: records that joined a paper
    by its title. ``seen``: keys of records that are as they were."""

    epoch: str
    source: str
    papers: list[Paper] = field(default_factory=list)
    new_text: set[str] = field(default_factory=set)
    records: list[Given] = field(default_factory=list)
    adopted: list[Given] = field(default_factory=list)
    fields: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    merged: int = 0


def plan(db: Database, source: str, batch: Batch) -> Plan:
    """What taking ``batch`` in would do."""
    with db.read() as connection:
        made = Plan(_epoch(connection), source)
        keys = {record.key: record for record in batch.records}
        known = _known(connection, source, [*keys, *batch.deleted])
        fresh, affected = [], set()
        for key, record in keys.items():
            if key in known and known[key].digest == _digest(record):
                made.seen.append(key)
            elif key in known:
                made.records.append(_given(source, record, known[key].paper, known[key].home))
                affected.add(known[key].paper)
            else:
                fresh.append(record)
        matcher = Matcher(connection, source, fresh)
        for record in fresh:
            paper, by_title = matcher.place(record)
            made.merged += by_title
            made.records.append(_given(source, record, paper, record.paper.id))
            affected.add(paper)
        made.deleted = [key for key in batch.deleted if key in known]
        affected |= {known[key].paper for key in made.deleted}
        _combine(connection, made, affected)
    return made


def _combine(connection: sa.Connection, made: Plan, affected: set[str]) -> None:
    """The papers as they will be once the records of the plan are in."""
    incoming: dict[str, list[Given]] = {}
    for given in made.records:
        incoming.setdefault(given.paper, []).append(given)
    replaced = {given.record.key for given in made.records} | set(made.deleted)
    held: dict[str, list[Given]] = {}
    for given in given_to(connection, affected):
        held.setdefault(given.paper, []).append(given)
    rows = {row.id: row for row in connection.execute(sa.select(PAPERS).where(PAPERS.c.id.in_(affected)))}
    states = _states(connection, affected)
    for identifier in sorted(affected):
        before = held.get(identifier, [])
        if identifier in rows and not before and made.source not in _REPLACES:
            before = [_given(EARLIER, Record(identifier, stored_paper(rows[identifier])), identifier, identifier)]
            made.adopted += before
        kept = [given for given in before if not (given.source == made.source and given.record.key in replaced)]
        parts = [*kept, *incoming.get(identifier, [])]
        if not parts:
            made.gone.append(identifier)
            continue
        paper = _weigh(made.fields, identifier, parts)
        if states.get(identifier) == "hidden":
            continue
        if states.get(identifier) == "deleted":
            made.returned.append(identifier)
        made.papers.append(paper)
        if identifier not in rows or rows[identifier].indexed_text != paper.text_hash():
            made.new_text.add(identifier)


def _weigh(fields: dict[tuple[str, str], list[str]], identifier: str, parts: Sequence[Given]) -> Paper:
    """The paper that ``parts`` make; into ``fields`` goes which field is whose."""
    paper, taken = combine(identifier, [(given.source, given.record) for given in parts])
    for i, given in enumerate(parts):
        fields[given.source, given.record.key] = sorted(name for name, place in taken.items() if place == i)
    return paper


def commit(
    db: Database,
    made: Plan,
    marks: Mapping[str, str | None],
    cursor: Callable[[sa.Connection], None] | None = None,
) -> int | None:
    """Write a plan; how many papers are new or changed, or None where a moderator came between.

    ``marks``: id -> emblem of the papers that the collection holds in this state. ``cursor`` is called within the
    transaction, to note how far its source has been read.
    """
    with db.write() as connection:
        if _epoch(connection) != made.epoch:
            return None
        now = datetime.now(UTC).replace(tzinfo=None)
        changed = db.put(connection, made.papers)
        db.note_indexed(connection, made.papers, [marks.get(paper.id) for paper in made.papers])
        write_records(connection, [*made.adopted, *made.records], made.fields, now)
        _write_fields(connection, made)
        for i in range(0, len(made.seen), 500):
            again = _R.source == made.source, _R.key.in_(made.seen[i : i + 500]), _R.last_seen < now - _SEEN_AGAIN
            connection.execute(SOURCE_RECORDS.update().where(*again).values(last_seen=now))
        if made.deleted:
            connection.execute(SOURCE_RECORDS.delete().where(_R.source == made.source, _R.key.in_(made.deleted)))
        if made.gone:
            db.drop(connection, made.gone)
            connection.execute(NAMES.delete().where(NAMES.c.paper.in_(made.gone)))
            connection.execute(WITHDRAWN.delete().where(WITHDRAWN.c.paper.in_(made.gone)))
            reason = "its source has withdrawn it"
            connection.execute(
                WITHDRAWN.insert(),
                [{"paper": one, "state": "deleted", "reason": reason, "at": now} for one in made.gone],
            )
            changed += len(made.gone)
        if made.returned:
            connection.execute(WITHDRAWN.delete().where(WITHDRAWN.c.paper.in_(made.returned)))
        if cursor:
            cursor(connection)
    return changed


def write_records(
    connection: sa.Connection,
    records: Sequence[Given],
    fields: Mapping[tuple[str, str], Sequence[str]],
    now: datetime,
) -> None:
    """Insert or replace records and the names that they give to their papers."""
    if not records:
        return
    first = {}
    for i in range(0, len(records), 500):
        part = records[i : i + 500]
        mine = sa.or_(
            *(
                sa.and_(_R.source == source, _R.key.in_([one.record.key for one in part if one.source == source]))
                for source in {one.source for one in part}
            )
        )
        for row in connection.execute(sa.select(_R.source, _R.key, _R.first_seen).where(mine)):
            first[row.source, row.key] = row.first_seen
        connection.execute(SOURCE_RECORDS.delete().where(mine))
    connection.execute(
        SOURCE_RECORDS.insert(),
        [
            {
                "source": given.source,
                "key": given.record.key,
                "paper": given.paper,
                "home": given.home,
                "content": content(given.record),
                "digest": _digest(given.record),
                "fields": list(fields.get((given.source, given.record.key), [])),
                "first_seen": first.get((given.source, given.record.key), now),
                "last_seen": now,
            }
            for given in records
        ],
    )
    name_papers(connection, records)


def name_papers(connection: sa.Connection, records: Iterable[Given]) -> None:
    """Point the names of these records to their papers; of a name that two claim, the last one has it."""
    wanted = {name: given.paper for given in records for name in given.record.names}
    names = list(wanted)
    for i in range(0, len(names), 500):
        connection.execute(NAMES.delete().where(NAMES.c.name.in_(names[i : i + 500])))
    if names:
        connection.execute(NAMES.insert(), [{"name": name, "paper": paper} for name, paper in wanted.items()])


def _write_fields(connection: sa.Connection, made: Plan) -> None:
    """Which fields the records have that were there before: a new record may have taken some over."""
    written = {(given.source, given.record.key) for given in [*made.records, *made.adopted]}
    values = [
        {"from": source, "named": key, "now": fields}
        for (source, key), fields in made.fields.items()
        if (source, key) not in written
    ]
    if values:
        connection.execute(
            SOURCE_RECORDS.update()
            .where(_R.source == sa.bindparam("from"), _R.key == sa.bindparam("named"))
            .values(fields=sa.bindparam("now", type_=sa.JSON)),
            values,
        )


def given_to(connection: sa.Connection, papers: Iterable[str]) -> list[Given]:
    """The records of these papers, the longest known first."""
    found = []
    wanted = list(papers)
    for i in range(0, len(wanted), 500):
        query = sa.select(SOURCE_RECORDS).where(_R.paper.in_(wanted[i : i + 500]))
        for row in connection.execute(query.order_by(_R.first_seen, _R.source, _R.key)):
            fields = json.loads(row.fields) if isinstance(row.fields, str) else row.fields
            record = read_content(row.key, row.content)
            found.append(
                Given(row.source, record, row.paper, row.home, tuple(fields), row.first_seen, row.last_seen, row.digest)
            )
    return found


def rewrite(db: Database, connection: sa.Connection, papers: Iterable[str]) -> list[str]:
    """Make these papers anew from their records, as after a change of which record is whose; the ids that are there."""
    held: dict[str, list[Given]] = {}
    for given in given_to(connection, papers):
        held.setdefault(given.paper, []).append(given)
    made = Plan("", "")
    made.papers = [_weigh(made.fields, identifier, parts) for identifier, parts in held.items()]
    db.put(connection, made.papers)
    _write_fields(connection, made)
    name_papers(connection, [given for parts in held.values() for given in parts])
    return list(held)


def _known(connection: sa.Connection, source: str, keys: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i in range(0, len(keys), 500):
        query = sa.select(_R.key, _R.paper, _R.home, _R.digest)
        query = query.where(_R.source == source, _R.key.in_(keys[i : i + 500]))
        found |= {row.key: row for row in connection.execute(query)}
    return found


def _states(connection: sa.Connection, papers: Iterable[str]) -> dict[str, str]:
    query = sa.select(WITHDRAWN.c.paper, WITHDRAWN.c.state).where(WITHDRAWN.c.paper.in_(list(papers)))
    return {row.paper: row.state for row in connection.execute(query)}


def _given(source: str, record: Record, paper: str, home: str) -> Given:
    return Given(source, record, paper, home)


def _digest(record: Record) -> str:
    return digest(json.dumps(content(record), sort_keys=True, ensure_ascii=False))


def _epoch(connection: sa.Connection) -> str:
    """Changes with every act of a moderator."""
    return connection.execute(sa.select(FACTS.c.value).where(FACTS.c.name == "moderated")).scalar() or ""
