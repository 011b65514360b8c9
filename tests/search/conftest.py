"""Servers for the tests of stores: PostgreSQL with pgvector on a Unix socket, and an object store that speaks S3."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session")
def postgres(postgresql: str) -> str:
    """The address of an empty database, to be followed by a collection's name."""
    pytest.importorskip("pgvector", reason="pgvector is not installed")
    return f"{postgresql}&collection="


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
