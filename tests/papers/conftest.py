"""Sites to test on: a small one with a hashing encoder, and the bundled papers with the bundled encoder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("sqlalchemy")

sys.path.insert(0, str(Path(__file__).parent))

import databases
from fakes import EVIL, HashEncoder
from fastapi.testclient import TestClient

from nextvec.papers.ingest import ingest, prepare, read_source
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.web import create_app


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is about SQLite's files is not run on another database."""
    if config.getoption("--papers-database") == "sqlite":
        return
    skip = pytest.mark.skip(reason="about files of SQLite")
    for item in items:
        if item.get_closest_marker("sqlite"):
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def database_server(request: pytest.FixtureRequest) -> Iterator[databases.Server | None]:
    """Where homes keep their rows: None for SQLite."""
    if request.config.getoption("--papers-database") == "sqlite":
        yield None
        return
    server = databases.Server(request.getfixturevalue("postgresql"))
    with databases.on(server):
        yield server
    server.close()


@pytest.fixture(autouse=True)
def dropped(database_server: databases.Server | None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Databases of a test's own homes go with it."""
    folder = request.getfixturevalue("tmp_path") if database_server and "tmp_path" in request.fixturenames else None
    yield
    if database_server is not None and folder is not None:
        database_server.drop(folder)


@pytest.fixture(scope="session")
def bundled() -> list[Paper]:
    """Every bundled paper."""
    return read_source("daily_papers")


@pytest.fixture(scope="session")
def few(bundled: list[Paper]) -> list[Paper]:
    """The last days of the feed and a slice of the rest, about 300 papers, and a hostile one."""
    last = max(paper.daily_date for paper in bundled if paper.daily_date)
    recent = [paper for paper in bundled if paper.daily_date and paper.daily_date > last - timedelta(days=8)]
    rest = [paper for paper in bundled if paper not in recent]
    return [*recent, *rest[:: len(rest) // 200], EVIL]


@pytest.fixture(scope="session")
def small(few: list[Paper], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of ``few`` papers; tests only read it."""
    site = Site(tmp_path_factory.mktemp("small"), encoder=HashEncoder())
    ingest(site, few)
    yield site
    site.close()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with eight papers, for tests that write: they take a copy."""
    from people import papers

    home = tmp_path_factory.mktemp("filled")
    site = Site(home, encoder=HashEncoder())
    ingest(site, papers())
    site.close()
    return home


@pytest.fixture
def site(filled: Path, tmp_path: Path) -> Iterator[Site]:
    """A copy of ``filled`` to write to."""
    from people import copied

    site = copied(filled, tmp_path / "site")
    yield site
    site.close()


@pytest.fixture(scope="session")
def week_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the papers of a week, for tests of mail: they take a copy."""
    from mail_fakes import made_site, week

    home = tmp_path_factory.mktemp("week")
    made_site(home, week(days=7)).close()
    return home


@pytest.fixture(scope="session")
def client(small: Site) -> TestClient:
    """A browser without JavaScript at the small site. Crashes become pages, as in production."""
    return TestClient(create_app(small), follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture(scope="session")
def whole_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with all bundled papers under the bundled encoder.

    It is begun by ``nextvec demo``, which is interrupted in the middle (what became of it: ``interrupted.json``),
    and then finished.
    """
    from nextvec.encoder import bundled_models

    if "nextvec-mini" not in bundled_models():
        pytest.skip("the bundled encoder nextvec-mini is not in this checkout")
    home = tmp_path_factory.mktemp("whole")
    databases.prepare(home)
    command = [sys.executable, "-m", "nextvec.cli.main", "demo", "--once", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while not (home / "vectors" / "collection.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=600)
    with databases.open_database(home) as db:
        state = {"code": process.returncode, "out": out, "errors": errors, "papers": db.count()}
    (home / "interrupted.json").write_text(json.dumps(state))
    site = Site(home)
    prepare(site)
    site.close()
    return home


@pytest.fixture(scope="session")
def whole(whole_home: Path) -> Iterator[Site]:
    """The open site over ``whole_home``; tests only read it."""
    site = Site(whole_home, must_exist=True)
    yield site
    site.close()
