"""A site that serves while papers come in: no reader sees half of one, and no kill loses or doubles any."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arxiv_fake import Arxiv, Entry, serving
from databases import prepare
from fakes import HashEncoder
from fastapi.testclient import TestClient
from test_cli import NEXTVEC

from command_line import run
from nextvec.papers import ingest as module
from nextvec.papers.db import Filters
from nextvec.papers.ingest import finish, ingest, is_ready
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation
from nextvec.papers.sources.harvest import harvests
from nextvec.papers.sources.schedule import Scheduler, read_every
from nextvec.papers.sources.tables import HARVESTS
from nextvec.papers.web import create_app
from nextvec.papers.word_index import LexicalIndex
from nextvec.types import InputError

pytestmark = pytest.mark.both


def papers(count: int, *, version: int = 1) -> list[Paper]:
    return [
        Paper(
            id=f"p{i:04d}",
            title=f"Zebra number{i} version{version}",
            summary=f"Stripes of word{i} version{version}.",
            authors=(f"Author {i}",),
            upvotes=i,
        )
        for i in range(count)
    ]


def test_readers_never_see_half_a_paper_or_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 20)
    writer = Site(tmp_path, encoder=HashEncoder())
    ingest(writer, papers(40))
    reading = Site(tmp_path, encoder=HashEncoder(), must_exist=True)
    app = create_app(reading)
    wrong: list[str] = []
    done = threading.Event()
    counts = []

    def read(path: Callable[[int], str]) -> None:
        client = TestClient(app, raise_server_exceptions=False)
        i = 0
        while not done.is_set() or i < 5:
            address = path(i)
            answer = client.get(address)
            counts.append(answer.status_code)
            i += 1
            if answer.status_code not in (200, 404, 410):
                wrong.append(f"{address}: {answer.status_code} {answer.text[-600:-200]}")
            elif answer.status_code == 200:
                check(client, address, answer.text)

    def check(client: TestClient, address: str, text: str) -> None:
        if address.startswith("/papers/p"):
            title, abstract = (re.search(rf"{word} \S*\d+ version(\d)", text) for word in ("Zebra", "Stripes of"))
            if not title or not abstract or title[1] != abstract[1]:
                wrong.append(f"{address}: title and abstract are of two versions")
            if "None were found" in text or 'class="emblem"' in text.partition("Similar papers")[0]:
                wrong.append(f"{address}: without its vector")
        else:
            for identifier in set(re.findall(r"/papers/(p\d{4})\b", text)):
                if client.get(f"/papers/{identifier}").status_code not in (200, 410):
                    wrong.append(f"{address}: {identifier} cannot be opened")

    paths: list[Callable[[int], str]] = [
        lambda i: f"/papers/p{(7 * i) % 160:04d}",
        lambda i: ("/search?q=zebra+stripes&mode=semantic", "/search?q=zebra", "/papers/new.atom")[i % 3],
    ]
    readers = [threading.Thread(target=read, args=(path,)) for path in paths]
    for thread in readers:
        thread.start()
    try:
        ingest(writer, papers(160, version=2))
        moderation.hide(writer.db, "p0003", reason="x", actor="me")
        with writer.writing():
            finish(writer, lambda name: None)
        ingest(writer, papers(160, version=3))
    finally:
        done.set()
        for thread in readers:
            thread.join(timeout=60)
    assert not wrong, wrong[:5]
    assert counts.count(200) > 10 and is_ready(writer) and writer.db.count() == 159
    reading.close()
    writer.close()


# -- kill -9 -------------------------------------------------------------------------------------------------------
DIE = """
import os, sys
sys.path[:0] = {tests!r}
from pathlib import Path
from fakes import HashEncoder
from test_sources_serving import papers
from nextvec.papers import ingest as module
from nextvec.papers.site import Site
from nextvec.search.collection import Collection
from nextvec.papers.sources import intake
module.BATCH = 10
left = {after}
def dying(function, before):
    def call(*arguments, **options):
        global left
        left -= 1
        if before and left < 0:
            os.kill(os.getpid(), 9)
        found = function(*arguments, **options)
        if left < 0:
            os.kill(os.getpid(), 9)
        return found
    return call
{patch}
module.ingest(Site(Path({home!r}), encoder=HashEncoder()), papers(45, version=2))
"""
POINTS = {
    "before the vectors": ("Collection.upsert = dying(Collection.upsert, True)", 2),
    "after the vectors": ("Collection.upsert = dying(Collection.upsert, False)", 2),
    "after the transaction": ("intake.commit = dying(intake.commit, False)", 1),
    "before the words": ("module._index_words = dying(module._index_words, True)", 0),
    "after the words": ("module._index_words = dying(module._index_words, False)", 0),
}


@pytest.mark.parametrize(
    "point",
    # On PostgreSQL where its transaction is cut off and where it is not.
    [p if "trans" in p or p == "before the vectors" else pytest.param(p, marks=pytest.mark.once) for p in POINTS],
)
def test_killed_for_real_nothing_is_lost_or_doubled(tmp_path: Path, point: str) -> None:
    home = tmp_path / "home"
    with_old = Site(home, encoder=HashEncoder())
    ingest(with_old, papers(25))
    with_old.close()
    patch, after = POINTS[point]
    code = DIE.format(
        tests=[str(folder) for folder in Path(__file__).parents[:2]], after=after, patch=patch, home=str(home)
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    site = Site(home, encoder=HashEncoder())
    seen = site.db.select(Filters(), limit=99)
    assert len(seen) >= 25 and all(stored.mark for stored in seen)
    for stored in seen:
        assert stored.paper.title[-1] == stored.paper.summary[-2], "one version of it"
    report = ingest(site, papers(45, version=2))
    assert report.papers == 45 and is_ready(site)
    assert sorted(site.collection.ids()) == sorted(site.db.ids(Filters())), "none twice, none missing"
    rows = site.collection.get([paper.id for paper in papers(45)], vectors=True)
    expected = HashEncoder().encode_query([paper.document() for paper in papers(45, version=2)])
    for row, want in zip(rows, expected, strict=True):
        assert row is not None and abs(float(row["vector"] @ want) - 1) < 1e-4
    assert sorted(LexicalIndex.load(site.words_path).ids) == sorted(site.db.ids(Filters()))
    with site.db.read() as connection:
        for table in ("source_records", "titles"):
            assert connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar() == 45
    site.close()


def test_a_harvest_that_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("defusedxml")
    need_encoder()
    entries = [Entry(f"2504.{i:05d}") for i in range(1, 13)]
    reached = threading.Event()

    with serving(Arxiv(entries)) as arxiv:

        def stall(number: int, path: str) -> None:
            if number == 3:
                reached.set()
                time.sleep(20)

        arxiv.trouble = stall
        command = [*NEXTVEC, "papers", "ingest", "--source", "arxiv", "--address", f"{arxiv.address}/oai"]
        environment = {**os.environ, "NEXTVEC_LOOPBACK": "1"}
        process = subprocess.Popen(
            [*command, "--home", str(prepare(tmp_path / "home"))], env=environment, stderr=subprocess.PIPE
        )
        assert reached.wait(60)
        process.kill()
        process.communicate(timeout=30)
        arxiv.trouble = None
        before = len(arxiv.asked)
        monkeypatch.setenv("NEXTVEC_LOOPBACK", "1")
        done = run(*command[3:], home=tmp_path / "home")
        assert "6 papers read, 6 new or changed" in done.stdout and "the site holds 12" in done.stdout
        assert len(arxiv.asked) - before == 2
    with Site(tmp_path / "home", must_exist=True).db as db:
        assert db.count() == 12 and harvests(db)[0].taken == 12


# -- commands ------------------------------------------------------------------------------------------------------
def need_encoder() -> None:
    from nextvec.encoder import bundled_models

    if "nextvec-mini" not in bundled_models():
        pytest.skip("the bundled encoder nextvec-mini is not in this checkout")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of a BibTeX file."""
    need_encoder()
    folder = tmp_path_factory.mktemp("sources")
    (folder / "a.bib").write_text(
        "@misc{one, title={One of a kind}, author={A. Person}, year=2020}\n"
        "@misc{two, title={Two of them}, author={B. Person}, year=2021}\n"
    )
    assert "2 papers read" in run("papers", "ingest", str(folder / "a.bib"), home=folder / "home").stdout
    return folder / "home"


def test_the_commands_of_a_moderator(home: Path) -> None:
    assert "is hidden" in run("papers", "hide", "bib/one", "--reason", "spam", home=home).stdout
    assert "nothing found" in run("papers", "search", "kind", "--mode", "keyword", home=home).stdout
    assert "hidden already" in run("papers", "hide", "bib/one", "--reason", "spam", home=home, code=1).stderr
    assert "shown again" in run("papers", "unhide", "bib/one", home=home).stdout
    assert "bib/one" in run("papers", "search", "kind", "--mode", "keyword", home=home).stdout
    assert "split bib/two" in run("papers", "merge", "bib/one", "bib/two", home=home).stdout
    assert "bib/two" in run("papers", "split", "bib/two", home=home).stdout
    acts = json.loads(run("papers", "audit", "--json", home=home).stdout)
    assert [act["action"] for act in acts] == ["split", "merge", "unhide", "hide"] and acts[3]["reason"] == "spam"
    assert "bibtex" in run("papers", "sources", home=home).stdout
    assert "the queue is empty" in run("papers", "queue", "list", home=home).stdout
    assert "the queue is empty" in run("papers", "queue", "run", home=home).stdout
    assert "not in the queue" in run("papers", "queue", "approve", "x", home=home, code=1).stderr


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "--source", "arxiv", "--address", "http://127.0.0.1:1/oai"], "only https is used"),
        (["ingest", "--source", "arxiv", "--address", "https://10.0.0.1/oai"], "which is not a public one"),
        (["ingest", "--source", "arxiv", "--address", "nonsense"], "expected https://host/path"),
        (["ingest", "--source", "arxiv", "--from", "yesterday"], "--from: "),
        (["ingest", "--source", "acl"], "reads files"),
        (["ingest", "--source", "bibtex", "x.bib", "--set", "cs"], "has no --set"),
        (["ingest", "--corpus", "nothing"], "expected one of daily, arxiv, acl, all"),
        (["ingest", "--corpus", "all", "--source", "arxiv"], "leave FILE and --source out"),
        (["serve", "--every", "6h"], "--every needs --source"),
        (["serve", "--source", "arxiv"], "--source needs --every"),
        (["serve", "--every", "often", "--source", "arxiv"], "expected a time from 1m to 30d"),
        (["serve", "--every", "6h", "--source", "acl"], "reads files"),
        (["queue", "list", "--state", "lost"], "expected one of waiting"),
    ],
)
def test_bad_usage_is_one_line(home: Path, arguments: list[str], message: str) -> None:
    done = run("papers", *arguments, home=home, code=1)
    assert message in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""


@pytest.mark.once
def test_a_corpus_without_its_data_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEXTVEC_DATA", str(tmp_path))
    monkeypatch.setenv("NEXTVEC_CACHE", str(tmp_path))
    assert "NEXTVEC_DATA" in run("papers", "ingest", "--corpus", "all", home=home, code=1).stderr
    report = json.loads(run("papers", "ingest", "--corpus", "daily", "--limit", "50", "--json", home=home).stdout)
    assert report["read"] == 50
    again = json.loads(run("papers", "ingest", "--corpus", "daily", "--limit", "50", "--json", home=home).stdout)
    assert again["read"] == 0 and again["papers"] == report["papers"]


# -- the scheduler -------------------------------------------------------------------------------------------------
@pytest.mark.once
@pytest.mark.parametrize(("text", "seconds"), [("1m", 60), ("6h", 21_600), (" 2D ", 172_800)])
def test_how_often(text: str, seconds: int) -> None:
    assert read_every(text) == seconds


@pytest.mark.once
@pytest.mark.parametrize("text", ["", "0m", "10s", "31d", "6", "h6", "-1h", "1e9d"])
def test_how_often_not(text: str) -> None:
    with pytest.raises(InputError, match="expected a time"):
        read_every(text)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    assert condition()


@pytest.mark.once
def test_the_scheduler_runs_commands_again_and_again_and_tells() -> None:
    lines: list[str] = []
    scheduler = Scheduler([["--version"], ["papers", "nonsense"]], 0.01, say=lines.append)
    scheduler.start()
    wait_for(lambda: len(scheduler.runs) >= 4)
    scheduler.stop()
    assert scheduler.runs[:4] == [0, 2, 0, 2] and lines[0].startswith("--version: nextvec ")


@pytest.mark.once
def test_the_scheduler_waits_for_its_time_and_stops_what_runs() -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    assert 3_000 < Scheduler([], 3_600, last=lambda: now - timedelta(seconds=60)).first_wait() <= 3_540
    assert Scheduler([], 3_600, last=lambda: now - timedelta(days=3)).first_wait() == 0
    waiting = Scheduler([["--version"]], 3_600, last=lambda: now)
    waiting.start()
    waiting.stop()
    assert waiting.runs == []


def test_one_writer_at_a_time_and_the_moderator_does_not_wait(home: Path) -> None:
    holder = Site(home, must_exist=True)
    with holder.writing():
        busy = run("papers", "ingest", str(home.parent / "a.bib"), home=home, code=1)
        assert "another process is writing" in busy.stderr
        done = run("papers", "hide", "bib/two", "--reason", "spam", home=home)
        assert "is hidden" in done.stdout and "an ingest is running" in done.stderr
    run("papers", "unhide", "bib/two", home=home)
    holder.close()


@pytest.mark.once
def test_a_served_site_has_its_scheduler(home: Path) -> None:
    """What is asked for has just been taken: the next time is a day away, and ends with the server."""
    from test_cli import connected, free_port
    from test_cli import serving as served

    with Site(home, must_exist=True).db as db, db.write() as connection:
        now = datetime.now(UTC).replace(tzinfo=None)
        values = {"source": "arxiv", "scope": "all", "taken": 0, "began": now, "finished": now}
        connection.execute(HARVESTS.insert(), values)
    with served(home, "--port", str(free_port()), "--every", "1d", "--source", "arxiv") as (process, port, _line):
        with connected(port) as connection:
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, 130) and "Traceback" not in errors
