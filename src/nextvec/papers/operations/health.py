"""Whether a site can do its work: read the database, search in vectors and words, write to its disk."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable

import numpy as np

from nextvec.papers.site import Site
from nextvec.types import NextvecError, StorageError

__all__ = ["check"]

_log = logging.getLogger("nextvec.papers")
_FREE = 50_000_000  # bytes: less, and the next batch of papers may not fit


def check(site: Site) -> tuple[bool, dict[str, str]]:
    """(whether all is well, what each part says: "ok", "failed", "read-only"). Why one failed stands in the log, since
    the answer is for anybody."""
    parts: dict[str, Callable[[Site], str]] = {
        "database": _database,
        "collection": _collection,
        "words": _words,
        "disk": _disk,
    }
    found = {}
    for name, part in parts.items():
        try:
            found[name] = part(site)
        except (NextvecError, OSError) as error:
            found[name] = "failed"
            _log.warning("not ready: %s: %s", name, error)
    return "failed" not in found.values(), found


def _database(site: Site) -> str:
    site.db.count()
    return "ok"


def _collection(site: Site) -> str:
    """A search and a look at what it found: that touches the files, which may be gone under an open handle."""
    if site.db.fact("encoder") != site.encoder_state:
        raise StorageError("the vectors are of another encoder or have to be made anew: run an ingest")
    direction = np.zeros(site.collection.dim, np.float32)
    direction[0] = 1
    hits = site.collection.search(direction, 1)
    site.collection.get(hits.ids, vectors=True)
    return "ok"


def _words(site: Site) -> str:
    site.words()
    return "ok"


def _disk(site: Site) -> str:
    if site.db.read_only:
        return "read-only"
    with tempfile.TemporaryFile(dir=site.home) as file:
        file.write(b"ready")
        file.flush()
    free = shutil.disk_usage(site.home).free
    if free < _FREE:
        raise StorageError(f"{free:,} bytes are free on the disk of {str(site.home)!r}")
    return "ok"
