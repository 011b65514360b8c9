"""What monitors and logs are told of a site, and what they are not."""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes import HashEncoder
from fastapi.testclient import TestClient
from people import join
from test_cli import free_port, serving

from command_line import run
from nextvec.cli._papers_watch import gives_metrics
from nextvec.papers.ingest import ingest
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.subscriptions import read_wanted
from nextvec.papers.operations import health, logs
from nextvec.papers.operations.metrics import BUCKETS, Metrics, page
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
from nextvec.types import InputError, StorageError

LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')
Key = tuple[str, tuple[tuple[str, str], ...]]


def read(text: str) -> tuple[dict[Key, float], dict[str, str]]:
    """(samples, type of each family) of an exposition; fails where it is not well formed."""
    samples: dict[Key, float] = {}
    kinds: dict[str, str] = {}
    assert text.endswith("\n") and "\n\n" not in text
    for line in text.splitlines():
        if line.startswith("#"):
            found = re.fullmatch(r"# (HELP|TYPE) (\S+) (.+)", line)
            assert found, line
            if found[1] == "TYPE":
                assert found[2] not in kinds, f"{found[2]} twice"
                kinds[found[2]] = found[3]
            continue
        match = LINE.fullmatch(line)
        assert match, line
        inside = match[2] or ""
        assert LABEL.sub("", inside) == "", line
        family = re.sub(r"_(bucket|sum|count)$", "", match[1])
        assert kinds.get(match[1]) in ("counter", "gauge") or kinds.get(family) == "histogram", line
        key = (match[1], tuple(sorted(LABEL.findall(inside))))
        assert key not in samples, line
        samples[key] = float(match[3])
    return samples, kinds


def value(samples: dict[Key, float], name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


@pytest.fixture
def watched(site: Site) -> TestClient:
    app = create_app(site, metrics=True)
    return TestClient(app, follow_redirects=False, raise_server_exceptions=False)


# -- figures -------------------------------------------------------------------------------------------------------
def test_requests_are_counted_by_route_and_not_by_address(watched: TestClient) -> None:
    for path in ("/papers/p1", "/papers/p2", "/papers/none", "/nothing/here", "/static/site.css", "/api/papers/p1",
                 "/api/nothing", "/unsubscribe/secret-word", "/papers/new.atom", "/search?q=whatiseek", "/search",
                 "/search.atom?q=plans", "/api/papers/search?q=plans", "/search?q=x&page=-1"):  # fmt: skip
        watched.get(path)
    watched.request("BREW", "/")
    answer = watched.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    samples, kinds = read(answer.text)
    name = "nextvec_http_requests_total"
    assert kinds[name] == "counter"
    paper = "/papers/{identifier:path}"
    assert value(samples, name, method="GET", route=paper, status="200") == 2
    assert value(samples, name, method="GET", route=paper, status="404") == 1
    assert value(samples, name, method="GET", route="unmatched", status="404") == 1
    assert value(samples, name, method="GET", route="/static/*", status="200") == 1
    assert value(samples, name, method="GET", route="/api/papers/{id:path}", status="200") == 1
    assert value(samples, name, method="GET", route="/api/*", status="404") == 1
    assert value(samples, name, method="other", route="/", status="405") == 1
    assert value(samples, "nextvec_searches_total", interface="page") == 1, "not without words, not one that is refused"
    assert value(samples, "nextvec_searches_total", interface="feed") == 1
    assert value(samples, "nextvec_searches_total", interface="api") == 1
    for word in ("p1", "secret-word", "whatiseek", "plans", "testclient"):
        assert word not in answer.text


def test_the_histogram_adds_up(watched: TestClient) -> None:
    metrics = Metrics()
    for seconds in (0.001, 0.005, 0.0051, 0.3, 99.0):
        metrics.observe("GET", "/", 200, seconds)
    samples, _ = read("\n".join(metrics.families()) + "\n")
    name = "nextvec_http_request_duration_seconds"
    counts = [value(samples, f"{name}_bucket", route="/", le=str(int(b) if b == int(b) else b)) for b in BUCKETS]
    assert counts == sorted(counts) and counts[:2] == [2, 3] and counts[-1] == 4
    assert value(samples, f"{name}_bucket", route="/", le="+Inf") == value(samples, f"{name}_count", route="/") == 5
    assert value(samples, f"{name}_sum", route="/") == pytest.approx(99.3111)


def test_what_lies_in_the_database(site: Site, watched: TestClient) -> None:
    samples, _ = read(watched.get("/metrics").text)
    assert (value(samples, "nextvec_papers"), value(samples, "nextvec_readers")) == (8, 0)
    join(site.db, "ada@example.org")
    wanted, _ = read_wanted({"kind": "topic", "topic": "plans"}, "01234", site.db)
    MailStore(site.db).ask("ada@example.org", wanted, datetime.now(UTC).replace(tzinfo=None))
    text = watched.get("/metrics").text
    samples, kinds = read(text)
    assert value(samples, "nextvec_readers") == 1 and value(samples, "nextvec_up") == 1
    assert value(samples, "nextvec_mail_outbox", state="queued") == 1
    assert value(samples, "nextvec_mail_outbox", state="doubtful") == 0
    changed = value(samples, "nextvec_papers_changed_timestamp_seconds")
    assert abs(datetime.now(UTC).timestamp() - changed) < 3_600
    assert "ada" not in text and "example.org" not in text
    assert kinds["nextvec_build_info"] == "gauge" and 'version="' in text


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.observe("GET", 'a"b\\c\nd', 200, 0.1)
    samples, _ = read("\n".join(metrics.families()) + "\n")
    assert (
        "nextvec_http_requests_total",
        (("method", "GET"), ("route", 'a\\"b\\\\c\\nd'), ("status", "200")),
    ) in samples


def test_methods_are_told_apart_as_far_as_the_site_has_them() -> None:
    metrics = Metrics()
    for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "BREW", "X" * 99):
        metrics.observe(method, "/", 200, 0.1)
    samples, _ = read("\n".join(metrics.families()) + "\n")
    name = "nextvec_http_requests_total"
    assert value(samples, name, method="DELETE", route="/", status="200") == 1
    assert value(samples, name, method="other", route="/", status="200") == 2


def test_figures_without_a_database(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    metrics.observe("GET", "/", 200, 0.1)

    def broken() -> Any:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(site.db, "read", broken)
    samples, _ = read(page(metrics, site))
    assert value(samples, "nextvec_up") == 0 and ("nextvec_papers", ()) not in samples
    assert value(samples, "nextvec_http_requests_total", method="GET", route="/", status="200") == 1


@pytest.mark.parametrize(
    ("asked", "host", "url", "given"),
    [
        (None, "127.0.0.1", None, True),
        (None, "localhost", None, True),
        (None, "::1", "http://localhost:8000", True),
        (None, "0.0.0.0", None, False),
        (None, "papers.example.org", None, False),
        (None, "127.0.0.1", "https://papers.example.org", False),
        (True, "0.0.0.0", "https://papers.example.org", True),
        (False, "127.0.0.1", None, False),
    ],
)
def test_who_gets_figures(asked: bool | None, host: str, url: str | None, given: bool) -> None:
    assert gives_metrics(asked, host, url) is given


def test_no_figures_unless_told(site: Site) -> None:
    assert TestClient(create_app(site)).get("/metrics").status_code == 404


# -- ready ---------------------------------------------------------------------------------------------------------
def test_ready_and_not(site: Site, watched: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = watched.get("/readyz")
    fine = {"database": "ok", "collection": "ok", "words": "ok", "disk": "ok"}
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "checks": fine})
    monkeypatch.setattr(health, "_FREE", 10**18)
    answer = watched.get("/readyz")
    assert answer.status_code == 503 and answer.json()["checks"] == fine | {"disk": "failed"}
    assert str(site.home) not in answer.text
    monkeypatch.undo()
    site.db.set_facts(encoder="")  # as after a restore
    assert watched.get("/readyz").json()["checks"]["collection"] == "failed"
    assert watched.get("/healthz").status_code == 200, "it lives"
    ingest(site, [])
    assert watched.get("/readyz").status_code == 200
    shutil.rmtree(site.vectors_path)
    assert watched.get("/readyz").json() == {"status": "not ready", "checks": fine | {"collection": "failed"}}


def test_a_read_only_home_is_ready(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.close()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    reading = Site(site.home, encoder=HashEncoder(), must_exist=True)
    assert reading.db.read_only
    answer = TestClient(create_app(reading, metrics=True))
    assert answer.get("/readyz").json()["checks"]["disk"] == "read-only"
    assert value(read(answer.get("/metrics").text)[0], "nextvec_papers") == 8
    reading.close()


# -- logs ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The log as JSON."""
    yield from written("json")


def written(form: str) -> Iterator[io.StringIO]:
    out, logger = io.StringIO(), logging.getLogger("nextvec.papers")
    level = logger.level
    handler = logs.set_up(form, out)
    yield out
    logging.getLogger().removeHandler(handler)
    logger.setLevel(level)


def test_a_line_for_each_request_and_nothing_about_people(watched: TestClient, stream: io.StringIO) -> None:
    for path in ("/papers/p1", "/search?q=whatiseek", "/unsubscribe/secret-word", "/shared/secret-list"):
        answer = watched.get(path, headers={"User-Agent": "Browser of Ada", "Referer": "https://elsewhere.example/"})
    watched.post("/sign-in", data={"email": "ada@example.org"})
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    asked = [line for line in lines if line["message"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in asked] == [
        ("GET", "/papers/{identifier:path}", 200),
        ("GET", "/search", 200),
        ("GET", "/unsubscribe/{token}", 400),
        ("GET", "/shared/{address}", 404),
        ("POST", "/sign-in", 503 if len(asked) < 5 else asked[4]["status"]),
    ]
    assert set(asked[0]) == {"time", "level", "message", "method", "route", "status", "ms", "bytes"}
    assert asked[3]["bytes"] == int(answer.headers["content-length"]) and asked[0]["ms"] >= 0
    assert datetime.fromisoformat(asked[0]["time"]).utcoffset() is not None
    for word in ("whatiseek", "secret", "Ada", "ada@", "elsewhere", "testclient", "p1"):
        assert word not in stream.getvalue()


def test_a_line_of_text() -> None:
    for out in written("text"):
        logging.getLogger("nextvec.papers").info("two\nlines", extra={"fields": {"status": 200, "bytes": 5}})
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info two\\nlines status=200 bytes=5\n", out.getvalue()
        )


def test_an_error_has_an_id_that_its_page_shows(
    site: Site, watched: TestClient, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("a bug")

    def lost(*_: object) -> None:
        raise StorageError("the disk is gone")

    for path in ("/papers/p1", "/api/papers/p1"):
        for failure, status in ((crash, 500), (lost, 503)):
            monkeypatch.setattr(site.db, "get", failure)
            stream.truncate(0)
            stream.seek(0)
            answer = watched.get(path)
            assert answer.status_code == status
            failed, asked = sorted(map(json.loads, stream.getvalue().splitlines()), key=lambda line: line["level"])
            assert failed["error"] == asked["error"] and asked["status"] == status and asked["message"] == "request"
            assert ("RuntimeError: a bug" in failed.get("traceback", "")) == (failure is crash)
            if path.startswith("/api/"):
                assert answer.headers["x-error-id"] == failed["error"] and set(answer.json()) == {"error"}
            else:
                assert f"error <code>{failed['error']}</code>" in answer.text
    assert "<code>" not in watched.get("/nothing").text, "what is no failure of ours has none"


def test_errors_of_the_database_repeat_no_values(site: Site) -> None:
    import sqlalchemy as sa

    with pytest.raises(sa.exc.IntegrityError) as told, site.db.write() as connection:
        row = {"id": "x", "address": None, "folded": "ada@example.org", "at": datetime(2026, 1, 1)}
        statement = "INSERT INTO mail_readers (id, address, folded, created_at) VALUES (:id, :address, :folded, :at)"
        connection.execute(sa.text(statement), row)
    assert "ada@example.org" not in str(told.value)


def test_an_unknown_form() -> None:
    with pytest.raises(InputError, match="expected json or text"):
        logs.set_up("xml")


# -- the command ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from nextvec.encoder import bundled_models

    if "nextvec-mini" not in bundled_models():
        pytest.skip("the bundled encoder nextvec-mini is not in this checkout")
    folder = tmp_path_factory.mktemp("operations")
    (folder / "p.jsonl").write_text(json.dumps({"id": "p1", "title": "Latent plans", "summary": "We plan."}))
    run("papers", "ingest", str(folder / "p.jsonl"), home=folder / "site")
    return folder / "site"


def asked(port: int, *paths: str) -> list[int]:
    found = []
    for path in paths:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", path)
        found.append(connection.getresponse().status)
        connection.close()
    return found


def test_serve_writes_json_and_nothing_else(home: Path) -> None:
    with serving(home, "--port", str(free_port()), "--log", "json") as (process, port, _line):
        assert asked(port, "/papers/p1", "/search?q=whatiseek", "/metrics") == [200, 200, 200]
        waited = 1
        while asked(port, "/readyz") != [200]:  # until the first lists are made
            waited += 1
            assert waited < 600, "the site does not become ready"
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    routes = [line["route"] for line in lines if line["message"] == "request"]
    assert routes == ["/papers/{identifier:path}", "/search", "/metrics", *["/readyz"] * waited], "and none of its own"
    assert lines[-1]["message"] == "stopped" and "whatiseek" not in errors


def test_serve_for_others_gives_no_figures_and_no_lines(home: Path) -> None:
    with serving(home, "--port", str(free_port()), "--url", "https://papers.example.org") as (process, port, _line):
        assert asked(port, "/papers/p1", "/metrics", "/healthz") == [200, 404, 200]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
    assert errors == "stopped\n"
    assert "expected json or text" in run("papers", "serve", "--log", "xml", home=home, code=1).stderr
