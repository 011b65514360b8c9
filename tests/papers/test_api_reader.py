"""Votes and reading lists with a token: what programs may change, and that the specification says so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from people import make_app, of
from server import serving
from test_tokens import ada, made, program

from examples import of_an_api
from nextvec.papers.accounts import lists, tokens, votes
from nextvec.papers.api import specification
from nextvec.papers.ingest import ingest
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation

pytestmark = pytest.mark.both

__all__ = ["ada"]  # a fixture


# -- votes and lists -----------------------------------------------------------------------------------------------
def test_votes(site: Site, ada: str) -> None:
    http = program(site, made(site, ada, "vote"))
    before = of(site.db, "p1").upvotes
    for _ in range(2):
        assert http.post("/api/papers/p1/vote").json() == {"id": "p1", "upvotes": before + 1, "voted": True}
    assert http.get("/api/papers/p1").json()["upvotes"] == before + 1
    for _ in range(2):
        assert http.delete("/api/papers/p1/vote").json() == {"id": "p1", "upvotes": before, "voted": False}
    for method in ("POST", "DELETE"):
        for path in ("nowhere", "..%2f..%2fetc", "x" * 200):
            answer = http.request(method, f"/api/papers/{path}/vote")
            assert answer.status_code == 404 and "there is no paper" in answer.json()["error"]
    answer = http.put("/api/papers/p1/vote")
    assert answer.status_code == 405 and "POST or DELETE" in answer.json()["error"], answer.text


def test_a_vote_finds_a_paper_that_became_another(site: Site, ada: str) -> None:
    http = program(site, made(site, ada, "vote"))
    moderation.merge(site.db, "p1", "p2", actor="somebody")
    answer = http.post("/api/papers/p2/vote")
    assert answer.json()["id"] == "p1" and votes.voted(site.db, ada, ["p1"])
    moderation.hide(site.db, "p3", reason="posted twice", actor="somebody")
    assert http.post("/api/papers/p3/vote").status_code == 410


def test_lists(site: Site, ada: str) -> None:
    http = program(site, made(site, ada, "lists"))
    assert http.get("/api/lists").json() == []
    answer = http.post("/api/lists", json={"name": "To read"})
    new = answer.json()
    assert answer.status_code == 201 and (new["name"], new["papers"], new["shared"]) == ("To read", 0, False)
    at = f"/api/lists/{new['id']}"
    entry = http.post(f"{at}/papers", json={"id": "p1", "note": "See figure 3"}).json()
    assert (entry["paper"]["id"], entry["note"]) == ("p1", "See figure 3") and entry["addedAt"].endswith("Z")
    http.post(f"{at}/papers", json={"id": "p2"})
    assert http.post(f"{at}/papers", json={"id": "p1", "note": "Read it"}).json()["note"] == "Read it"
    found = http.get(f"{at}/papers").json()
    assert [(one["paper"]["id"], one["note"]) for one in found] == [("p2", ""), ("p1", "Read it")]
    assert http.get(at).json()["papers"] == 2 == http.get("/api/lists").json()[0]["papers"]
    lines = http.get(f"{at}/papers?format=jsonl")
    assert lines.headers["content-type"] == "application/jsonl"
    assert [json.loads(line) for line in lines.text.splitlines()] == found
    text = http.get(f"{at}/papers?format=bibtex")
    assert text.headers["content-type"] == "application/x-bibtex; charset=utf-8"
    assert text.text == lists.as_bibtex(lists.entries(site.db, new["id"])) and text.text.count("@misc{") == 2
    assert http.delete(f"{at}/papers/p2").status_code == 204 == http.delete(f"{at}/papers/p2").status_code
    assert [one["paper"]["id"] for one in http.get(f"{at}/papers").json()] == ["p1"]
    assert http.head(f"{at}/papers").status_code == 200
    assert http.delete(at).status_code == 204 and http.get(at).status_code == 404
    assert http.get(f"{at}/papers").headers["cache-control"] == "no-store"


def test_what_is_not_kept_by_anybody_on_the_way(site: Site, ada: str) -> None:
    held = lists.create(site.db, ada, "To read")
    http = program(site, made(site, ada, "lists"))
    for path in (
        "/api/lists",
        f"/api/lists/{held}",
        f"/api/lists/{held}/papers",
        f"/api/lists/{held}/papers?format=bibtex",
    ):
        headers = http.get(path).headers
        assert headers["cache-control"] == "private, no-store" and "Authorization" in headers["vary"], path


def test_a_paper_that_is_gone_can_be_taken_out(site: Site, ada: str) -> None:
    held = lists.add(site.db, ada, None, "p3", name="To read")
    moderation.hide(site.db, "p3", reason="posted twice", actor="somebody")
    http = program(site, made(site, ada, "lists"))
    assert http.get(f"/api/lists/{held}").json()["papers"] == 1 and http.get(f"/api/lists/{held}/papers").json() == []
    assert http.delete(f"/api/lists/{held}/papers/p3").status_code == 204
    assert http.get(f"/api/lists/{held}").json()["papers"] == 0


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"{}", "application/json", "name is {}; Field required"),
        (b'{"name": ""}', "application/json", "name is ''"),
        (b'{"name": "  "}', "application/json", "expected 1 to 80"),
        (b'{"name": 3}', "application/json", "name is 3; it should be a valid string"),
        (b'{"name": "a", "reader": "local"}', "application/json", "reader is 'local'"),
        (b"[]", "application/json", "the body is"),
        (b"{", "application/json", "the body is"),
        (b"\xff\xfe", "application/json", "the body is"),
        (b"name=a", "application/x-www-form-urlencoded", "expected application/json"),
        (b"", "", "expected application/json"),
    ],
)
def test_a_body_that_is_none(site: Site, ada: str, body: bytes, kind: str, message: str) -> None:
    http = program(site, made(site, ada, "lists"))
    answer = http.post("/api/lists", content=body, headers={"content-type": kind})
    assert answer.status_code == 400 and message in answer.json()["error"], answer.text
    assert lists.of_reader(site.db, ada) == []


def test_a_body_that_is_too_large(site: Site, ada: str) -> None:
    http = program(site, made(site, ada, "lists"))
    answer = http.post("/api/lists", json={"name": "x" * 70_000})
    assert answer.status_code == 413 and "larger than 64 kB" in answer.json()["error"]
    refused = program(site).post("/api/lists", content=b"x" * 70_000, headers={"content-type": "application/json"})
    assert refused.status_code == 401, "who may not write is not even listened to"


# -- the specification ---------------------------------------------------------------------------------------------
WRITING = [
    (path, method)
    for path, operations in specification()["paths"].items()
    for method, operation in operations.items()
    if {} not in operation["security"]
]


@pytest.mark.once
def test_the_specification_tells_of_tokens() -> None:
    document = specification()
    scheme = document["components"]["securitySchemes"]["token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer") and all(
        one in scheme["description"] for one in tokens.SCOPES
    )
    scopes = {f"{method} {path}": document["paths"][path][method]["security"][0]["token"] for path, method in WRITING}
    assert len(scopes) == 9 and scopes["delete /papers/{id}/vote"] == ["vote"]
    for path, method in WRITING:
        assert {"401", "403", "404", "429"} <= set(document["paths"][path][method]["responses"])


@pytest.mark.once
@pytest.mark.parametrize(("path", "method"), WRITING)
def test_answers_are_those_of_the_specification(site: Site, ada: str, path: str, method: str) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    app = make_app(site)
    app.state.accounts._limits["reader"].rate = 10_000
    schema: Any = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    held = lists.add(site.db, ada, None, "p1", name="To read")
    headers = {"Authorization": f"Bearer {made(site, ada, 'lists', 'vote')}"}
    statuses = set()

    @of_an_api(15, 80)
    @given(case=schema[path][method.upper()].as_strategy(), known=st.booleans(), paper=st.sampled_from(["p1", "p2"]))
    def ask(case: Any, known: bool, paper: str) -> None:
        if known:
            for name, value in (("id", paper), ("list", held)):
                if name in case.path_parameters:
                    case.path_parameters[name] = value
            if known and path == "/lists/{list}/papers" and isinstance(case.body, dict):
                case.body["id"] = paper
        response = case.call(headers=headers, timeout=600)  # it is about answers, not about how busy the machine is
        statuses.add(response.status_code)
        assert response.status_code in (200, 201, 204, 400, 404), response.text
        conforming = [
            not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
            checks.response_schema_conformance,
        ]  # fmt: skip
        case.validate_response(response, checks=conforming)

    ask()
    assert statuses & {200, 201, 204}, "what it generated was not only refused"


# -- the documentation ---------------------------------------------------------------------------------------------
DOCS = Path(__file__).parents[2] / "docs" / "papers-api.md"


def test_the_example_of_the_documentation(site: Site, ada: str, tmp_path: Path) -> None:
    """What the page says to type, typed: against a served site, with a token in a file."""
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("bash and curl are needed: apt-get install curl")
    section = DOCS.read_text(encoding="utf-8").partition("## Tokens\n")[2].partition("\n## ")[0]
    (script,) = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    (shown,) = re.findall(r"```\n(\{.*?\})\n```", section, re.DOTALL)
    ingest(
        site, [Paper(id="2412.06769", title="Latent thoughts", summary="In a space.", authors=("Ada L",), upvotes=96)]
    )
    (tmp_path / ".papers-token").write_text(made(site, ada, "vote", "lists") + "\n")
    with serving(make_app(site)) as address:
        script = script.replace("https://papers.example.org", address)
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1"}
        command = ["bash", "-eu", "-o", "pipefail", "-c", script]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    assert json.loads(done.stdout) == json.loads(shown)
    (held,) = lists.of_reader(site.db, ada)
    (entry,) = lists.entries(site.db, held.id)
    assert (held.name, entry.stored.paper.id, entry.note) == ("To read", "2412.06769", "See figure 3")
    assert (tmp_path / "refs.bib").read_text() == lists.as_bibtex([entry])


@pytest.mark.once
def test_the_documentation_names_every_address() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for path, operations in specification()["paths"].items():
        rows = [line for line in text.splitlines() if f" /api{path}`" in line and line.startswith("| `")]
        assert all(any(f"`{method.upper()}" in row for row in rows) for method in operations), path
