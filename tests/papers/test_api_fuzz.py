"""Whatever is asked, the interface answers as its specification says, and never with a 5xx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from examples import examples, of_an_api
from nextvec.papers.api import specification
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.web import create_app


@pytest.fixture(scope="module")
def schema(small: Site) -> Any:
    """The specification as the site serves it, with the site behind it."""
    schemathesis = pytest.importorskip("schemathesis")
    return schemathesis.openapi.from_asgi("/api/openapi.json", create_app(small))


READING = {
    path: operations["get"]
    for path, operations in specification()["paths"].items()
    if "get" in operations and {} in operations["get"]["security"]
}
"""What can be asked without a token; the rest is in ``test_tokens``."""


@pytest.mark.parametrize("path", READING)
def test_answers_are_those_of_the_specification(schema: Any, few: list[Paper], path: str) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    statuses = set()

    @of_an_api(15, 80)
    @given(case=schema[path]["GET"].as_strategy(), known=st.none() | st.sampled_from(few))
    def ask(case: Any, known: Paper | None) -> None:
        if known is not None and "id" in case.path_parameters:
            case.path_parameters["id"] = known.id
        response = case.call()
        statuses.add(response.status_code)
        assert response.status_code in (200, 400, 404), response.text
        case.validate_response(
            response,
            checks=[
                not_a_server_error,
                checks.status_code_conformance,
                checks.content_type_conformance,
                checks.response_schema_conformance,
            ],
        )

    ask()
    assert 200 in statuses, "what it generated was not only refused"


HOSTILE = {
    "quotes": "' OR '1'='1",
    "statement": "x'); DROP TABLE papers;--",
    "union": "' UNION SELECT name, sql FROM sqlite_master --",
    "wildcards": "%_%",
    "filter language": "1' AND upvotes > 0 OR id = '",
    "long": "x" * 60_000,
    "nul": "a\x00b",
    "controls": "\x1b[31m\r\nSet-Cookie: a=b",
    "markup": "<script>alert(1)</script>{{7*7}}",
    "directions": "\u202e\u2066\ufeff",
    "digits of another script": "٣",
    "no number": "NaN",
    "surrogate": b"\xed\xa0\x80",
    "another encoding": "Ünïcode".encode("latin-1"),
    "overlong slash": b"..%c0%af",
    "utf-16": "latent".encode("utf-16"),
}
PARAMETERS = [
    (path, parameter["name"])
    for path, operation in READING.items()
    for parameter in operation.get("parameters", [])
    if parameter["in"] == "query"
]


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_values_do_nothing(client: TestClient, small: Site, value: str | bytes) -> None:
    papers = small.db.count()
    for path, name in PARAMETERS:
        address = path.replace("{id}", "evil/one")
        response = client.get(f"/api{address}?{name}={quote(value)}")
        assert response.status_code in (200, 400), (address, name, response.text)
        assert response.headers["content-type"] == "application/json" and "set-cookie" not in response.headers
        body = response.json()
        if response.status_code == 400:
            assert list(body) == ["error"] and len(body["error"]) < 300
        elif name in ("submitter", "org") and value != HOSTILE["directions"]:  # that one is as good as nothing
            assert body == [], "no paper has such a submitter or organisation"
    for address in (f"/api/papers/{quote(value, safe='')}", f"/api/papers/{quote(value, safe='')}/similar"):
        response = client.get(address)
        assert response.status_code == 404 and list(response.json()) == ["error"], response.text
    assert small.db.count() == papers


RAW = st.text(alphabet=st.characters(codec="utf-8"), max_size=40) | st.binary(max_size=30)


@settings(max_examples=examples(60, 300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.sampled_from(PARAMETERS), value=RAW, tail=st.none() | RAW)
def test_no_bytes_ever_break_it(
    client: TestClient, which: tuple[str, str], value: str | bytes, tail: str | bytes | None
) -> None:
    path, name = which
    assume(tail is None or quote(tail, safe="") not in (".", ".."))  # a client makes another address of these
    address = path.replace("{id}", "evil/one") if tail is None else f"/papers/{quote(tail, safe='')}"
    response = client.get(f"/api{address}?{name}={quote(value)}")
    assert response.status_code in (200, 400, 404), response.text
    assert response.headers["content-type"] == "application/json"
    assert response.status_code == 200 or list(response.json()) == ["error"]


HEADERS: list[Callable[[bytes], dict[bytes, bytes]]] = [
    lambda value: {b"if-none-match": value},
    lambda value: {b"accept-encoding": value},
    lambda value: {b"host": value},
    lambda value: {b"origin": value, b"access-control-request-method": value},
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.sampled_from(HEADERS), value=st.binary(max_size=40).filter(lambda raw: not set(raw) & set(b"\r\n\0")))
def test_no_header_ever_breaks_it(
    client: TestClient, header: Callable[[bytes], dict[bytes, bytes]], value: bytes
) -> None:
    response = client.get("/api/papers?limit=2", headers=list(header(value).items()))
    assert response.status_code in (200, 304), response.text
