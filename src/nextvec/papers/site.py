"""A site's home folder and what lies in it: database, vector collection, word index, and the encoder that ties them.

home/papers.sqlite     the papers (the truth), or
home/database          the address of the PostgreSQL database that they lie in (``place``)
home/vectors/          Collection: one embedding and the facets of each paper (rebuilt from the truth)
home/words/            BM25 index (rebuilt from the truth)
home/ingest.lock       held by the one process that writes
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nextvec.files import alone, storage_error
from nextvec.papers.agreement import Agreed
from nextvec.papers.columns import Columns
from nextvec.papers.db import Filters, Order, Selection, Stored
from nextvec.papers.kept import Kept, older
from nextvec.papers.place import open_database
from nextvec.papers.records import FACETS
from nextvec.papers.sources import moderation
from nextvec.papers.word_index import LexicalIndex, follow
from nextvec.types import NextvecError, NotFoundError, StorageError

if TYPE_CHECKING:
    from nextvec.search.collection import Collection

__all__ = ["DEFAULT_ENCODER", "Site", "TextEncoder", "encode_documents", "remove_folder", "writing"]

DEFAULT_ENCODER = "nextvec-mini"
MANY = 2_000
"""Papers that the database counts quickly."""


class TextEncoder(Protocol):
    """The part of ``nextvec.encoder.Encoder`` that the site uses."""

    name: str

    @property
    def dim(self) -> int: ...
    def fingerprint(self) -> str: ...
    def encode_query(self, inputs: Any) -> NDArray[Any]: ...
    def encode_document(self, inputs: Any) -> NDArray[Any]: ...


class Site:
    """Everything under one home folder. Parts are opened at their first use."""

    def __init__(
        self,
        home: Path,
        *,
        encoder: str | TextEncoder = DEFAULT_ENCODER,
        must_exist: bool = False,
        database: str | None = None,
    ) -> None:
        """``must_exist``: NotFoundError where nothing was ingested yet; otherwise an empty database is made.
        ``database``: the address of a PostgreSQL database for the rows (``place``).

        A home on a read-only disk can be searched and served.
        """
        self.home = home
        self._encoder = encoder
        self._lock = threading.Lock()
        self._columns: Columns | None = None
        self._withdrawn: tuple[str, frozenset[str]] | None = None
        self._words: tuple[tuple[int, int], LexicalIndex] | None = None
        self._reading_words = threading.Lock()
        self.kept: Kept = Kept()
        self.agreed: Agreed | None = None
        """What whoever is ``writing`` knows of vectors and rows."""
        self.refresher: Callable[[Hashable, Callable[[], object]], None] | None = None
        """Takes (name, what to do) and does it soon, beside the answers (``warmth``); None: nobody does."""
        self.db = open_database(home, database, must_exist=must_exist)

    def close(self) -> None:
        self.db.close()

    @cached_property
    def encoder(self) -> TextEncoder:
        if not isinstance(self._encoder, str):
            return self._encoder
        from nextvec.encoder import Encoder

        return Encoder.load(self._encoder)

    @cached_property
    def encoder_state(self) -> str:
        """Name, width and fingerprint: vectors of another state cannot be compared with this encoder's."""
        return f"{self.encoder.name} {self.encoder.dim} {self.encoder.fingerprint()}"

    # -- vectors -----------------------------------------------------------------------------------------------
    @property
    def vectors_path(self) -> Path:
        return self.home / "vectors"

    @cached_property
    def collection(self) -> Collection:
        """The vectors. StorageError where they are missing or damaged: the papers are there all the same."""
        from nextvec.search.collection import Collection

        try:
            return Collection.open(self.vectors_path)
        except NotFoundError as error:
            raise StorageError(f"the search index in {str(self.home)!r} is missing: run the ingest again") from error

    def new_collection(self) -> Collection:
        """Start the vectors anew, empty."""
        from nextvec.search.collection import Collection

        self.__dict__.pop("collection", None)
        remove_folder(self.vectors_path)
        self.collection = Collection.create(self.vectors_path, dim=self.encoder.dim, schema=FACETS)
        return self.collection

    def usable_collection(self) -> Collection | None:
        """The collection where it was made by this encoder and holds what the database has noted; else None.

        It may hold more than that for a while (a crash between the two writes, papers taken away): the next ingest
        takes it out, and no search shows what the database does not have.
        """
        try:
            if self.db.fact("encoder") != self.encoder_state:
                return None
            return self.collection if self.db.indexed_ids() <= set(self.collection.ids()) else None
        except NextvecError:
            return None

    def query_vector(self, text: str) -> NDArray[np.float32] | None:
        """float32 [D], or None where the encoder finds no token it knows."""
        vector = np.asarray(self.encoder.encode_query([text])[0], np.float32)
        return vector if np.isfinite(vector).all() and np.any(vector) else None

    def withdrawn(self) -> frozenset[str]:
        """The ids that a moderator or a source took away; remembered until a paper changes."""
        stamp = self.stamp
        if self._withdrawn is None or self._withdrawn[0] != stamp:
            self._withdrawn = (stamp, moderation.withdrawn_ids(self.db))
        return self._withdrawn[1]

    def similar(self, identifier: str, k: int = 6) -> list[tuple[Stored, float]]:
        """The ``k`` nearest other papers with their cosine; none for a paper without a vector."""
        row = self.collection.get([identifier], vectors=True)[0]
        if row is None:
            return []
        hits = self.collection.search(row["vector"], k + 1 + min(len(self.withdrawn()), 100))
        scores = {hit.id: hit.score for hit in hits if hit.id != identifier}
        return [(other, scores[other.paper.id]) for other in self.db.get_many(list(scores))][:k]

    # -- words -------------------------------------------------------------------------------------------------
    @property
    def words_path(self) -> Path:
        return self.home / "words"

    @property
    def stamp(self) -> str:
        """Which state of the database this is; every change of a paper makes a new one."""
        return self.db.fact("generation") or "0"

    @property
    def state(self) -> str:
        """Which state the lists are in: ``stamp``, and the last vote or comment that was given here."""
        facts = self.db.facts("generation", "activity")
        return f"{facts.get('generation', '0')} {facts.get('activity', '0')}"

    def list_state(self, topic: str | None) -> str:
        """``state``, and of what a topic is looked up in: the words follow the papers a moment later."""
        return self.state if topic is None else f"{self.state} {self.words().stamp}"

    @property
    def index_stamp(self) -> str:
        """Which state the searches answer from: it changes with the papers, the vectors, the words and the encoder.

        Raises StorageError where there are no vectors to search.
        """
        return f"{self.state} {self.collection.version} {self.words().stamp} {self.encoder_state}"

    def words(self, *, fresh: bool = False) -> LexicalIndex:
        """The word index: what is new of it is read from disk; where disk is behind at first or has none to give, it
        follows the papers in memory.

        Where the site is served, the one in use answers until the new one is read; ``fresh`` waits for it.
        """
        words, version = self._words, self._words_version()
        if words is not None and version in (words[0], (0, 0)):
            return words[1]
        if words is not None and self.refresher is not None and not fresh:
            self.refresher("words", lambda: self.words(fresh=True))
            return older(words[1])
        with self._reading_words:
            version = self._words_version()
            if self._words is None or (version != self._words[0] and version != (0, 0)):
                before = self._words[1] if self._words else None
                try:
                    index = LexicalIndex.load(self.words_path, before)
                    if before is None:
                        index = follow(self.db, index)
                except StorageError:
                    index = follow(self.db, before)
                self._words = (version, index)
            return self._words[1]

    def _words_version(self) -> tuple[int, int]:
        try:
            stat = (self.words_path / "index.json").stat()
        except OSError:
            return (0, 0)
        return (stat.st_mtime_ns, stat.st_size)

    def words_changed(self) -> datetime:
        """When the word index in use was written (aware UTC, whole seconds); 1970 for one that was not."""
        self.words()
        written = self._words[0][0] if self._words else 0
        return datetime.fromtimestamp(written // 10**9, UTC)

    def allowed(self, filters: Filters) -> frozenset[str]:
        """The ids that satisfy a filter, topic too; the last ones asked for are remembered until a paper or, where they
        matter, its votes change."""
        key = ("allowed", self.stamp if filters.votes is None else self.state, filters)
        # Made once: of a frequent topic it takes a third of a second, and ten readers may ask for it at the same time.
        known: frozenset[str] = self.kept.made(
            key, lambda: self._satisfying(filters), weight=lambda made: len(made) + 1
        )
        return known

    def _satisfying(self, filters: Filters) -> frozenset[str]:
        about: list[str] | None = None
        if filters.topic is not None:
            words, rest = self.words(), replace(filters, topic=None)
            about = words.holding(filters.topic)
            if not rest and words.stamp == self.stamp:  # each of them is a paper
                return frozenset(about)
        columns = self.columns()
        if columns is None:
            known = frozenset(map(sys.intern, self.db.ids(filters)))
        else:
            known = columns.satisfying(filters)
            if lifted := self.lifted(filters.votes):
                known |= lifted & columns.satisfying(replace(filters, votes=None))
        return known if about is None else known.intersection(about)

    def lifted(self, votes: int | None) -> frozenset[str]:
        """Those that have so many votes only with the ones given on this site, which no index knows."""
        if votes is None:
            return frozenset()
        known: frozenset[str] = self.kept.made(
            (self.state, "lifted", votes), lambda: frozenset(self.db.lifted(Filters(votes=votes)))
        )
        return known

    def ordered(self, selection: Selection, order: Order, topic: str | None = None) -> tuple[str, ...]:
        """The ids of a selection in order, with ``topic`` only those about it (``LexicalIndex.holding``).

        They are kept until a paper or, where they matter, its votes change: a large collection is sorted once for all
        of the pages and feeds of a view.
        """
        timed = order in ("moment", "newest") and selection.votes is None and not selection.discussed
        known: tuple[str, ...] = self.steady(
            ("ordered", selection, order), lambda: self._in_order(selection, order), voted=not timed, weight=len
        )
        if topic is None:
            return known
        words = self.words()
        narrow: tuple[str, ...] = self.steady(
            ("ordered", selection, order, topic),
            lambda: self._in_order(selection, order, frozenset(words.holding(topic))),
            voted=not timed,
            also=words.stamp,
            weight=len,
        )
        return narrow

    def _in_order(
        self, selection: Filters | Selection, order: Order, about: frozenset[str] | None = None
    ) -> tuple[str, ...]:
        # Interned: a list of all papers is kept several times over, and the ids are most of it.
        every = self.db.ordered(selection, order)
        return tuple(sys.intern(name) for name in every if about is None or name in about)

    def listed(self, filters: Filters, order: Order) -> tuple[str, ...]:
        """The ids of all that satisfies ``filters``, topic too, in order."""
        about = None if filters.topic is None else frozenset(self.words().holding(filters.topic))
        return self._in_order(filters, order, about)

    # -- what is dear to make --------------------------------------------------------------------------------------
    def steady(
        self,
        name: Hashable,
        make: Callable[[], Any],
        *,
        voted: bool = False,
        also: Hashable = None,
        weight: Callable[[Any], int] = lambda made: 1,
        fresh: bool = False,
    ) -> Any:
        """What ``make`` gives of the papers as they are, kept until they change, ``also`` does or, with ``voted``, a
        vote or a comment is given here.

        Where the site is served, what an ingest has left behind goes on to be shown, and is made anew beside the
        answers (``fresh``: and is waited for): of 120,000 papers that takes seconds. A vote, a comment and the act of a
        moderator are no such thing; they show at once. ``make`` gives something, never None.
        """
        facts = self.db.facts("generation", "activity", "moderated")
        strict = (facts.get("moderated"), facts.get("activity") if voted else None)
        state = (strict, facts.get("generation"), also)
        found = self.kept.get((name, state))
        if found is not None:
            return found
        last = self.kept.get(("last", name))
        if last is not None and last[0] == strict and self.refresher is not None and not fresh:
            before = self.kept.get((name, last))
            if before is not None:
                self.refresher(name, lambda: self.steady(name, make, voted=voted, also=also, weight=weight, fresh=True))
                return older(before)
        found = self.kept.made((name, state), make, weight=weight)
        if last is not None and last != state:
            self.kept.drop((name, last))
        self.kept.put(("last", name), state)
        return found

    def columns(self, papers: int = 0) -> Columns | None:
        """What facets of so many papers count in memory; None where the database has to be asked.

        Where an ingest is a moment ahead of them they serve for many papers, of which the database would take seconds
        to count.
        """
        facts = self.db.facts("generation", "moderated")
        found = self._columns
        if found is None or found.stamp == facts.get("generation", "0"):
            return found
        near = self.refresher is not None and found.moderated == facts.get("moderated", "")
        return older(found) if near and papers > MANY else None

    def load_columns(self) -> None:
        """Bring them to the papers as they are now."""
        if self._columns is None:
            self._columns = Columns.read(self.db)
        elif self._columns.stamp != self.stamp:
            self._columns = self._columns.follow(self.db)

    # -- writing -----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Only one process writes a home at a time; ConflictError for the second."""
        with writing(self.home):
            self.agreed = None  # another process may have written meanwhile
            yield


def writing(home: Path) -> contextlib.AbstractContextManager[None]:
    """``Site.writing`` for whoever has no open site."""
    busy = f"another process is writing to {str(home)!r}: wait for it to end, then run this again"
    return alone(home / "ingest.lock", busy=busy)


def remove_folder(folder: Path) -> None:
    """Take ``folder`` away in one step, then empty it: a crash leaves no half of it under its name."""
    if not folder.exists():
        return
    aside = folder.with_name(f".{folder.name}.old.{time.time_ns()}")
    try:
        folder.rename(aside)
    except OSError as error:
        raise storage_error(error, folder) from error
    shutil.rmtree(aside, ignore_errors=True)


def encode_documents(encoder: TextEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """float32 [n, D]."""
    return np.asarray(encoder.encode_document(list(texts)), np.float32)
