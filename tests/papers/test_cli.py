from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from databases import copy_home, open_database

from command_line import run
from nextvec.extras import available

NEXTVEC = [sys.executable, "-m", "nextvec.cli.main"]


ROWS = [
    {"id": f"2501.0000{i}", "title": f"Paper {i} on latent reasoning", "summary": "We think.", "upvotes": i,
     "daily_date": "2025-01-02", "organization": "Lab's", "githubRepo": "https://github.com/a/b" if i % 2 else None}
    for i in range(1, 7)
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of six papers, made by the command."""
    from nextvec.encoder import bundled_models

    if "nextvec-mini" not in bundled_models():
        pytest.skip("the bundled encoder nextvec-mini is not in this checkout")
    folder = tmp_path_factory.mktemp("cli")
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    report = json.loads(run("papers", "ingest", str(folder / "p.jsonl"), "--json", home=folder / "site").stdout)
    assert (report["read"], report["changed"], report["embedded"], report["papers"]) == (6, 6, 6, 6)
    return folder / "site"


def test_ingest_says_what_it_did_and_repeats_nothing(home: Path) -> None:
    done = run("papers", "ingest", str(home.parent / "p.jsonl"), home=home)
    assert re.match(r"6 papers read, 0 new or changed, 0 embedded; the site holds 6 \(", done.stdout)


def test_search_with_every_filter(home: Path) -> None:
    arguments = ["--from", "2025-01-01", "--to", "2025-02-01", "--org", "lab's", "--votes", "2", "--code", "-k", "2"]
    found = json.loads(run("papers", "search", "latent reasoning", *arguments, "--json", home=home).stdout)
    assert found["candidates"] == 2 and sorted(result["id"] for result in found["results"]) == [
        "2501.00003",
        "2501.00005",
    ]
    assert all(result["terms"] and result["word_rank"] and result["meaning_rank"] for result in found["results"])
    text = run("papers", "search", "latent reasoning", "--where", "upvotes > 5 AND year = 2025", home=home).stdout
    assert "Paper 6" in text and "Paper 5" not in text and "words #1 (latent, reasoning)" in text
    assert "nothing found" in run("papers", "search", "x", "--votes", "1000", home=home).stdout


def test_search_by_example_phrase_and_order_with_facets(home: Path, tmp_path: Path) -> None:
    every = json.loads(run("papers", "search", "paper", "--json", home=home).stdout)["results"]
    first = every[0]["id"]
    found = json.loads(
        run("papers", "search", "--like", first, "--sort", "votes", "--facets", "--json", home=home).stdout
    )
    votes = [result["votes"] for result in found["results"]]
    assert votes == sorted(votes, reverse=True) and first not in {result["id"] for result in found["results"]}
    assert found["facets"]
    assert all(0 < papers <= len(votes) for counts in found["facets"].values() for papers in counts.values())
    text = tmp_path / "abstract.txt"
    text.write_text("latent reasoning", encoding="utf-8")
    assert json.loads(run("papers", "search", "--text", str(text), "--json", home=home).stdout)["results"]
    assert "nothing found" in run("papers", "search", '"reasoning latent paper"', home=home).stdout
    done = run("papers", "search", "--like", "2001.99999", home=home, code=1)
    assert "arXiv:2001.99999 is not in this collection: pass its abstract with --text" in done.stderr


def test_insight_works_out_what_is_missing(home: Path) -> None:
    done = json.loads(run("papers", "insight", "--no-map", "--again", "--json", home=home).stdout)
    assert (done["papers"], done["made"], done["topics"]) == (6, 6, None)
    assert run("papers", "insight", "--no-map", home=home).stdout.startswith("0 of 6 papers worked out")
    if available("sklearn"):
        assert "topics need at least 10" in run("papers", "insight", home=home, code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "x", "--where", "upvote > 3"], "did you mean 'upvotes'"),
        (["search", "x", "--where", "upvotes >"], "upvotes"),
        (["search", "x" * 300], "at most 250"),
        (["search", ""], "the query is empty"),
        (["search", "caf\udce9"], "not UTF-8"),
        (["search", "x", "--mode", "magic"], "expected one of hybrid, semantic, keyword, phrase"),
        (["search", "x", "--from", "2025-13-01"], "is not a day"),
        (["search", "x", "--encoder", "nextvec-mimi"], "did you mean"),
        (["ingest", os.devnull], "is a device or pipe"),
        (["ingest"], "give either a FILE or --source"),
        (["ingest", "none.jsonl"], "none.jsonl"),
        (["ingest", "--source", "nothing"], "source 'nothing' is not known"),
    ],
)
def test_bad_usage_is_one_line(home: Path, arguments: list[str], message: str) -> None:
    done = run("papers", *arguments, home=home, code=1)
    assert message in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""


def test_an_id_is_answered_with_its_paper(home: Path) -> None:
    found = json.loads(run("papers", "search", "robot", "-k", "1", "--json", home=home).stdout)["results"][0]["id"]
    first = json.loads(run("papers", "search", f"arXiv:{found}v2", "-k", "1", "--json", home=home).stdout)
    assert [(one["id"], one["exact_id"]) for one in first["results"]] == [(found, True)]
    assert "there is no paper 0000.00000" in run("papers", "search", "0000.00000", home=home).stderr


def test_a_file_without_papers_is_told(home: Path, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("id,title,summary\n")
    assert "no papers in it" in run("papers", "ingest", str(tmp_path / "e.csv"), home=home, code=1).stderr


def test_errors_as_json(home: Path) -> None:
    done = run("papers", "search", "x", "--mode", "magic", "--json", home=home, code=1)
    assert json.loads(done.stdout)["error"]["type"] == "InputError"


def test_a_home_that_is_missing_or_has_no_index(tmp_path: Path, home: Path) -> None:
    for command in (["search", "x"], ["serve"]):
        assert "there is no paper site" in run("papers", *command, home=tmp_path / "none", code=1).stderr
    copy_home(home, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "vectors")
    assert "nextvec papers ingest" in run("papers", "serve", home=tmp_path / "copy", code=1).stderr


@pytest.mark.sqlite
def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "papers.sqlite").write_bytes(b"garbage" * 1000)
    assert "is damaged" in run("papers", "search", "x", home=tmp_path, code=1).stderr


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = run("papers", "ingest", "--source", "daily_papers", home=tmp_path / "file" / "site", code=1)
    assert "cannot use" in done.stderr and done.stderr.count("\n") == 1


@contextmanager
def serving(home: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A running server, its port, and what it said until then."""
    process = subprocess.Popen(
        [*NEXTVEC, "papers", "serve", "--home", str(home), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert match, (line, process.stderr.read() if process.stderr and process.poll() is not None else "")
        yield process, int(match.group(1)), line
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connected(port: int) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20))


def test_serve_takes_the_next_port_answers_and_ends_on_ctrl_c(home: Path) -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with serving(home, "--port", str(port)) as (process, used, line):
            assert used != port and "Ctrl-C" in line
            with connected(used) as connection:
                connection.request("GET", "/search?q=latent")
                response = connection.getresponse()
                assert response.status == 200 and b"Paper 1" in response.read()
                connection.request("GET", "/papers/2501.00003")
                assert connection.getresponse().read().count(b"latent") > 3
            with socket.create_connection(("127.0.0.1", used), timeout=20) as raw:
                raw.settimeout(20)
                answer = b""
                try:
                    raw.sendall(b"GET /search?q=" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                    answer = raw.recv(100)
                except OSError:
                    pass  # hung up on, in the middle of the megabyte
                assert not answer or answer.startswith(b"HTTP/1.1 4")
            with connected(used) as connection:
                connection.request("GET", "/healthz")
                assert connection.getresponse().status == 200, "the megabyte did no harm"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
            assert process.returncode in (0, 130), errors
            assert f"port {port} is taken, using {used}" in errors and "Traceback" not in errors


def test_serve_limits_how_often_a_program_may_ask(home: Path) -> None:
    with serving(home, "--port", str(free_port()), "--rate", "2") as (_, port, _line), connected(port) as connection:
        statuses = []
        for _ in range(3):
            connection.request("GET", "/api/papers?limit=1")
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        assert statuses == [200, 200, 429] and response.getheader("Retry-After")


def test_a_running_site_sees_what_another_process_ingests(home: Path, tmp_path: Path) -> None:
    copy_home(home, tmp_path / "site")
    with serving(tmp_path / "site", "--port", str(free_port())) as (_, port, _line):
        new = {"id": "2502.00001", "title": "Zebrafish swarms", "summary": "Fish.", "daily_date": "2025-01-05"}
        (tmp_path / "new.jsonl").write_text(json.dumps(new))
        run("papers", "ingest", str(tmp_path / "new.jsonl"), home=tmp_path / "site")
        with connected(port) as connection:
            for path in ("/", "/search?q=zebrafish&mode=keyword", "/search?q=zebrafish+swarms&mode=semantic"):
                until = time.monotonic() + 60  # the index of words is made anew beside the answers
                while True:
                    connection.request("GET", path)
                    if b"2502.00001" in connection.getresponse().read():
                        break
                    assert time.monotonic() < until, path
                    time.sleep(0.2)


def test_serve_puts_the_address_it_is_given_into_feeds(home: Path) -> None:
    with serving(home, "--port", str(free_port()), "--url", "https://papers.example.org") as (_, port, _line):
        with connected(port) as connection:
            connection.request("GET", "/papers/new.atom", headers={"Host": "other.example"})
            response = connection.getresponse()
            body = response.read()
            assert b'href="https://papers.example.org/papers/' in body and b"other.example" not in body
            assert response.getheader("Content-Type") == "application/atom+xml; charset=utf-8"
        with connected(port) as connection:
            connection.request("HEAD", "/papers/new.atom")
            response = connection.getresponse()
            assert (response.read(), response.getheader("Content-Length")) == (b"", str(len(body)))
        with connected(port) as connection:
            connection.request("GET", "/papers/new.atom", headers={"If-None-Match": response.getheader("ETag") or ""})
            assert connection.getresponse().status == 304
    done = run("papers", "serve", "--url", "papers.example.org", home=home, code=1)
    assert "expected http(s)://host" in done.stderr and done.stderr.count("\n") == 1


def test_demo_interrupted_in_the_middle_ends_cleanly(whole_home: Path) -> None:
    state = json.loads((whole_home / "interrupted.json").read_text())
    assert state["code"] == 130 and "Traceback" not in state["errors"]
    assert state["papers"] < 9_885, "it was stopped before everything was in"


def test_demo_answers_from_what_was_built(whole_home: Path) -> None:
    done = json.loads(run("demo", "--once", "--json", home=whole_home).stdout)
    assert done["papers"] > 9_877 and len(done["results"]) == 3 and not done["built"]
    text = run("demo", "--once", home=whole_home).stdout
    assert "built before" in text and text.count("meaning #") >= 2 and done["results"][0]["id"] in text


def test_demo_names_the_models_that_there_are(tmp_path: Path) -> None:
    done = run("demo", "--once", "--model", "nextvec-tiny", home=tmp_path / "new", code=1)
    assert "no model 'nextvec-tiny'" in done.stderr and "nextvec-mini" in done.stderr


def test_demo_builds_again_over_a_damaged_database(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.cli import demo

    (tmp_path / "papers.sqlite").write_bytes(b"garbage" * 1000)
    demo._set_damaged_aside(tmp_path)
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 1 and names[0].startswith("papers.sqlite.damaged-")
    demo._set_damaged_aside(tmp_path)


def test_the_command_line_stays_light() -> None:
    heavy = "{'fastapi', 'sqlalchemy', 'lance', 'torch'}"
    code = f"import sys, nextvec.cli.papers, nextvec.cli.demo; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    for command in (["papers", "--help"], ["papers", "search", "--help"], ["demo", "--help"]):
        assert "Usage" in run(*command).stdout


def test_searching_needs_no_torch(whole_home: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from nextvec.papers.search import search; from nextvec.papers.site import Site\n"
        f"search(Site(Path({str(whole_home)!r})), 'latent')\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False False", done.stderr


def test_roles(home: Path, tmp_path: Path) -> None:
    from nextvec.papers.accounts.readers import enter

    copy = tmp_path / "site"
    copy_home(home, copy)
    with open_database(copy) as db, db.write() as connection:
        enter(connection, "ada@example.org")
    done = json.loads(run("papers", "role", "Ada@example.org", "moderator", "--json", home=copy).stdout)
    assert (done["email"], done["role"]) == ("ada@example.org", "moderator")
    assert "is a reader now" in run("papers", "role", "ada@example.org", "reader", home=copy).stdout
    assert (
        "expected one of reader, moderator" in run("papers", "role", "ada@example.org", "x", home=copy, code=1).stderr
    )
    assert "has signed in yet" in run("papers", "role", "eve@example.org", "moderator", home=copy, code=1).stderr


@pytest.mark.parametrize("command", [["papers", "serve", "--local-reader"], ["demo"]])
def test_a_local_reader_on_an_open_address_is_refused(home: Path, command: list[str]) -> None:
    done = run(*command, "--host", "0.0.0.0", home=home, code=1)
    assert "can be reached by others: leave --host at 127.0.0.1" in done.stderr


def unread(home: Path, copy: Path) -> Path:
    """A copy of a home of whose papers nothing was worked out."""
    import sqlalchemy as sa

    copy_home(home, copy)
    with open_database(copy) as db, db.write() as connection:
        connection.execute(sa.text("DELETE FROM insights"))
    return copy


def test_the_demo_has_insights_worked_out_beside(home: Path, tmp_path: Path) -> None:
    from nextvec.cli import demo
    from nextvec.papers.insight.build import missing_insights
    from nextvec.papers.site import Site

    site = Site(unread(home, tmp_path / "site"), encoder="nextvec-mini", must_exist=True)
    try:
        assert missing_insights(site) == 6
        with demo._understanding(site, "nextvec-mini"):
            end = time.monotonic() + 60
            while missing_insights(site) and time.monotonic() < end:
                time.sleep(0.1)
        assert missing_insights(site) == 0
    finally:
        site.close()


def test_leaving_the_demo_ends_what_runs_beside(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.cli import demo
    from nextvec.papers.site import Site

    started, popen = [], subprocess.Popen

    def remembered(*args: Any, **options: Any) -> Any:
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remembered)
    site = Site(unread(home, tmp_path / "site"), encoder="nextvec-mini", must_exist=True)
    try:
        with pytest.raises(KeyboardInterrupt), demo._understanding(site, "nextvec-mini"):
            raise KeyboardInterrupt
    finally:
        site.close()
    assert len(started) == 1 and started[0].poll() is not None
