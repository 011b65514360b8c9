"""Moderators on the site: papers out of sight and back, two made one and taken apart, what is handed in; the log."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from people import Mailbox, Person, join, make_app

from nextvec.papers.accounts import lists, personal, readers, votes
from nextvec.papers.accounts.readers import LOCAL
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation, queue
from nextvec.papers.web import create_app

pytestmark = pytest.mark.both


@pytest.fixture
def app(site: Site) -> FastAPI:
    return make_app(site, Mailbox())


@pytest.fixture
def mod(site: Site, app: FastAPI) -> Person:
    made = Person(app)
    reader = made.enter("mod@example.org")
    readers.set_role(site.db, "mod@example.org", "moderator")
    readers.rename(site.db, reader.id, "Maria")
    return made


def test_a_paper_is_hidden_and_shown_again(site: Site, app: FastAPI, mod: Person) -> None:
    assert 'action="/moderation/hide"' in mod.get("/papers/p1").text and ">Moderation<" in mod.get("/").text
    answer = mod.post("/moderation/hide", "/papers/p1", paper="p1", reason=" posted\n twice ")
    assert (answer.status_code, answer.headers["location"]) == (303, "/moderation")
    gone = Person(app).get("/papers/p1")
    assert gone.status_code == 410 and "posted twice" in gone.text
    text = mod.get("/moderation").text
    assert "posted twice" in text and "Show again" in text and "Maria" in text
    assert "<b>Paper 1 on latent plans</b> <small>p1, hidden" in text
    again = mod.post("/moderation/hide", "/moderation", paper="p1", reason="posted twice")
    assert again.status_code == 400 and "hidden already" in again.text
    answer = mod.post("/moderation/show", "/moderation", paper="p1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/papers/p1")
    assert Person(app).get("/papers/p1").status_code == 200
    assert [(act.action, act.actor) for act in moderation.audit(site.db)] == [("unhide", "Maria"), ("hide", "Maria")]


def test_two_papers_are_made_one_and_taken_apart(site: Site, app: FastAPI, mod: Person) -> None:
    reader = join(site.db, "ada@example.org").id
    votes.give(site.db, reader, "p2")
    held = lists.add(site.db, reader, None, "p2", name="To read")
    answer = mod.post("/moderation/merge", "/papers/p1", paper="p1", gone="p2", reason="the same")
    assert (answer.status_code, answer.headers["location"]) == (303, "/papers/p1")
    led = Person(app).get("/papers/p2")
    assert led.status_code == 301 and led.headers["location"].endswith("/papers/p1")
    assert [one.stored.paper.id for one in lists.entries(site.db, held)] == ["p1"]
    assert "Take apart" in mod.get("/moderation").text and "Paper 2 on latent plans" in mod.get("/moderation").text
    assert mod.post("/moderation/split", "/moderation", paper="p2").status_code == 303
    assert Person(app).get("/papers/p2").status_code == 200
    assert "Every paper is shown." in mod.get("/moderation").text


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        ("/moderation/hide", {"paper": "p1", "reason": " "}, "the reason has 0 characters; expected 1 to 500"),
        ("/moderation/hide", {"paper": "p1", "reason": "x" * 501}, "the reason has 501 characters"),
        ("/moderation/hide", {"paper": "", "reason": "x"}, "no paper was named"),
        ("/moderation/hide", {"paper": "zzz", "reason": "x"}, "there is no paper"),
        ("/moderation/show", {"paper": "p1"}, "is hidden"),
        ("/moderation/merge", {"paper": "p1", "gone": "p1", "reason": "x"}, "cannot be merged with itself"),
        ("/moderation/merge", {"paper": "p1", "gone": "<b>", "reason": "x"}, "there is no paper"),
        ("/moderation/split", {"paper": "p1"}, "nothing to take apart"),
        ("/moderation/decide", {"paper": "2501.00002", "approve": "1"}, "is not in the queue"),
        ("/moderation/decide", {"paper": "2501.00002", "approve": "2"}, "expected 1 or 0"),
    ],
)
def test_what_cannot_be_done_is_told(site: Site, mod: Person, path: str, fields: dict[str, str], said: str) -> None:
    answer = mod.post(path, "/moderation", **fields)
    (told,) = re.findall('<p class="lede">(.*?)</p>', answer.text)
    assert answer.status_code in (400, 404) and said.lower() in told.replace("&#39;", "'").lower()
    assert "<b>" not in told
    assert moderation.audit(site.db) == []


def test_what_readers_hand_in(site: Site, app: FastAPI, mod: Person) -> None:
    for number in (1, 2):
        queue.submit(site.db, f"2501.0000{number}")
    text = mod.get("/moderation").text
    assert set(re.findall(r"arxiv\.org/abs/(\S+)\"", text)) == {"2501.00001", "2501.00002"}
    assert mod.post("/moderation/decide", "/moderation", paper="2501.00001", approve="1").status_code == 303
    refused = mod.post("/moderation/decide", "/moderation", paper="2501.00002", approve="0", reason="")
    assert refused.status_code == 400 and "reason has 0 characters" in refused.text
    mod.post("/moderation/decide", "/moderation", paper="2501.00002", approve="0", reason="not ours")
    assert {one.id: one.state for one in queue.listed(site.db)} == {"2501.00001": "approved", "2501.00002": "rejected"}
    assert "not ours" in Person(app).get("/submit/2501.00002").text and "Nothing waits." in mod.get("/moderation").text


def test_the_local_reader_moderates_the_own_machine(site: Site) -> None:
    here = Person(create_app(site, local_reader=True), base="http://127.0.0.1:8000")
    assert here.get("/moderation").status_code == 200
    assert here.post("/moderation/hide", "/papers/p1", paper="p1", reason="not mine").status_code == 303
    assert here.get("/papers/p1").status_code == 410
    assert moderation.audit(site.db)[0].actor == "Local reader"
    abroad = Person(create_app(site, local_reader=True), base="http://papers.example.org")
    assert abroad.get("/moderation").status_code == 303, "under another name nobody is signed in"


def test_what_a_moderator_did_is_told_and_loses_the_name_with_the_account(site: Site, mod: Person) -> None:
    mod.post("/moderation/hide", "/papers/p1", paper="p1", reason="posted twice")
    with site.db.read() as connection:
        (row,) = connection.execute(readers.READERS.select().where(readers.READERS.c.id != LOCAL)).all()
    told = personal.export(site.db, readers.read(row))["moderated"]
    assert [(one["action"], one["paper"]) for one in told] == [("hide", "p1")]
    personal.delete_account(site.db, readers.read(row))
    assert [(act.actor, act.reason) for act in moderation.audit(site.db)] == [("a former moderator", "posted twice")]
