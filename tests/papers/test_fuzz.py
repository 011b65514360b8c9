"""Anything in any field of any form and address: the site answers, and never with an error of its own."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people import Person, make_app, routes

import nextvec.papers
from examples import examples
from nextvec.papers.accounts import guard, interests, lists, tokens
from nextvec.papers.rate import RateLimit
from nextvec.papers.site import Site

pytestmark = pytest.mark.both

TEMPLATES = Path(nextvec.papers.__file__).parent / "templates"
NAMES = sorted({name for path in TEMPLATES.rglob("*.html") for name in re.findall(r'\bname="(\w+)"', path.read_text())})
"""The fields of all forms, which are the parameters of addresses, too."""
KNOWN = ("p1", "Ada Lovelace", "Analytical Engines", "2025-03-01", "1", "follow", "topic", "author", "search", "digest")
AWKWARD = (
    "",
    "\0",
    "a\0b",
    "-1",
    "2147483648",
    "9" * 19,
    "9" * 400,
    "1e400",
    "0001-01-01",
    "9999-12-31",
    "%",
    "'",
    "\\",
)
VALUES = st.one_of(
    st.sampled_from(KNOWN),
    st.sampled_from(AWKWARD),
    st.text(max_size=40),
    st.binary(max_size=20),
    st.integers().map(str),
    st.dates().map(str),
)


@pytest.fixture
def app(site: Site, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(guard, "RateLimit", lambda rate, **more: RateLimit(10**9))
    return make_app(site, metrics=True)


@settings(max_examples=examples(80, 300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), values=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4), part=VALUES)
def test_any_value_anywhere(
    app: FastAPI, data: st.DataObject, values: dict[str, str | bytes], part: str | bytes
) -> None:
    method, path = data.draw(st.sampled_from(routes(app)))
    answer(app, method, path, values, part)


@pytest.mark.parametrize(
    "value", [pytest.param(b"\xff\xfe", marks=pytest.mark.once), "\0", "9" * 30, "\ud7ff\U0010ffff", "x" * 5_000]
)
def test_the_same_in_every_field_of_every_form(app: FastAPI, value: str | bytes) -> None:
    for method, path in routes(app):
        answer(app, method, path, dict.fromkeys(NAMES, value), value)


def answer(app: FastAPI, method: str, path: str, values: dict[str, str | bytes], part: str | bytes) -> None:
    """Ask as somebody who is signed in, who has a list, follows something and has a token for the interface."""
    person = Person(app)
    reader = person.enter("ada@example.org")
    db = app.state.accounts.site.db
    if not lists.of_reader(db, reader.id):
        lists.add(db, reader.id, None, "p1", name="To read")
        interests.choose(db, reader.id, "author", "Ada Lovelace", "follow")
    headers = {"content-type": "application/x-www-form-urlencoded"}
    if path.startswith("/api/"):
        if not tokens.of_reader(db, reader.id):
            _, app.state.word = tokens.make(db, reader.id, "A program", list(tokens.SCOPES))
        headers["authorization"] = f"Bearer {app.state.word}"
    address = re.sub(r"\{[^}]*\}", lambda _: quote(part, safe=""), path)
    if method == "GET":
        found = person.http.get(f"{address}?{urlencode(values)}"[:20_000], headers=headers)
    else:
        fields = urlencode(values | {"token": person.token()})
        found = person.http.request(method, address, content=fields, headers=headers)
    assert found.status_code < 500, (method, address, values, found.text[:300])
