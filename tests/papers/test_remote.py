"""Papers read from a site at an address: the same as here, its errors in one line, a token that goes nowhere else."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from everything import SECRET
from fakes import HashEncoder
from server import serving
from test_cli import NEXTVEC

from command_line import run
from nextvec.papers.accounts import lists, tokens
from nextvec.papers.accounts.readers import LOCAL
from nextvec.papers.feed import parse_period
from nextvec.papers.ingest import ingest
from nextvec.papers.mcp_server import PaperTools
from nextvec.papers.reading import Here, choose
from nextvec.papers.records import Paper
from nextvec.papers.remote import Remote, check_site, paper_of
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
from nextvec.types import InputError, NextvecError, NotFoundError, OfflineError


@dataclass(frozen=True)
class Served:
    """A site at an address, and the token of its local reader, who has a list."""

    site: Site
    address: str
    token: str
    list: str


@pytest.fixture(scope="module")
def served(few: list[Paper], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    site = Site(tmp_path_factory.mktemp("served") / "site", encoder=HashEncoder())
    ingest(site, few)
    with serving(create_app(site, local_reader=True, secret=SECRET)) as address:
        _, token = tokens.make(site.db, LOCAL, "The tests", ["read", "lists"])
        held = lists.add(site.db, LOCAL, None, few[0].id, name="To read", note="See figure 3")
        lists.add(site.db, LOCAL, held, "evil/one")
        lists.create(site.db, LOCAL, "Empty")
        yield Served(site, address, token, held)
    site.close()


@pytest.fixture
def there(served: Served) -> Iterator[Remote]:
    with Remote(served.address, served.token) as found:
        yield found


# -- views, votes and lists: changed from elsewhere ------------------------------------------------------------------
def test_the_same_views_as_here(served: Served, there: Remote, few: list[Paper]) -> None:
    here = Here(served.site)
    for name, values in (
        ("daily", {"votes": "20"}),
        ("trending", {"half": "30"}),
        ("rising", {"last": "90"}),
        ("discussed", {"days": "all", "code": "1"}),
        ("new", {"org": "nvidia", "from": "2025-01-01"}),
    ):
        wanted = [one.paper.id for one in here.view(name, values, limit=5, page=1)]  # type: ignore[arg-type]
        assert wanted or name in ("trending", "new"), name
        assert [one.paper.id for one in there.view(name, values, limit=5, page=1)] == wanted  # type: ignore[arg-type]
    first = here.view("trending", {"half": "30"}, limit=3)
    assert first[0].why is not None and first[0].why.startswith("score ") and len(first) == 3
    with pytest.raises(NotFoundError, match="did you mean 'NVIDIA'"):
        here.view("new", {"org": "NVIDA"}, limit=3)
    with pytest.raises(InputError, match="half"):
        there.view("trending", {"half": "0"}, limit=3)


def test_votes_and_lists_are_changed_the_same_way_here_and_there(served: Served, few: list[Paper]) -> None:
    before = served.site.db.get(few[3].id)
    assert before is not None
    votes = before.paper.upvotes
    _, token = tokens.make(served.site.db, LOCAL, "Writes", ["read", "lists", "vote"])
    with Remote(served.address, token) as there:
        for papers in (Here(served.site), there):
            assert papers.vote(few[3].id, up=True) == papers.vote(few[3].id, up=True) == votes + 1
            assert papers.vote(few[3].id, up=False) == votes
            made = papers.make_list("Later")
            with pytest.raises(InputError, match="you have a list called 'Later' already"):
                papers.make_list("LATER")
            papers.put(made, f"https://arxiv.org/abs/{few[0].id}v2", "first")
            papers.put(made, few[0].id, "second")
            assert [(one.paper.id, one.why) for one in papers.papers_of(made)] == [(few[0].id, "second")]
            papers.take_out(made, few[0].id)
            assert papers.papers_of(made) == []
            papers.drop_list(made)
            assert "Later" not in [one.name for one in papers.lists()]
            with pytest.raises(NotFoundError):
                papers.drop_list(made)
            with pytest.raises(NotFoundError, match="there is no paper"):
                papers.vote("9999.99999", up=True)
    with Remote(served.address) as nobody, pytest.raises(InputError, match="--token-file"):
        nobody.vote(few[3].id, up=True)
    with pytest.raises(InputError, match="--reader is for reading"):
        Here(served.site, "ada@example.org").vote(few[3].id, up=True)


def test_commands_for_views_votes_and_lists(served: Served, few: list[Paper], tmp_path: Path) -> None:
    _, token = tokens.make(served.site.db, LOCAL, "Commands", ["lists", "vote"])
    (tmp_path / "token").write_text(token)
    (tmp_path / "token").chmod(0o600)
    at = ("--site", served.address, "--token-file", str(tmp_path / "token"))
    shown = json.loads(run("papers", "feed", "discussed", "--days", "all", "-k", "3", "--json", *at[:2]).stdout)
    assert len(shown) == 3 and {"id", "title", "votes"} <= set(shown[0])
    done = run("papers", "save", few[1].id, "--list", "By command", "--new", "--note", "n", *at)
    assert f"'By command' holds {few[1].id}" in done.stdout
    assert "with yours" in run("papers", "vote", few[1].id, *at).stdout
    assert "without yours" in run("papers", "vote", few[1].id, "--undo", *at).stdout
    assert "is deleted" in run("papers", "save", "--list", "by COMMAND", "--delete-list", *at).stdout
    for arguments, said in (
        (("feed", "today"), "there is no view 'today'; there are daily, trending"),
        (("save", "p1"), "no list was named"),
        (("save", "--list", "x"), "expected ID and --list"),
        (("save", "p1", "--list", "nothing like it"), "there is no list"),
    ):
        done = run("papers", *arguments, *at, code=1)
        assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr


# -- the same as here ----------------------------------------------------------------------------------------------
def test_the_same_papers_as_here(served: Served, there: Remote, few: list[Paper]) -> None:
    here = Here(served.site)
    for query, values in (
        ("language model", {}),
        ("language model", {"votes": "5", "code": "1", "from": "2025-01-01"}),
        ("video", {"org": "NVIDIA"}),
        ('"language model"', {"year": "2026"}),
    ):
        wanted = [one.paper for one in here.search(query, values, mode="hybrid", limit=20)]
        assert wanted and [one.paper for one in there.search(query, values, mode="hybrid", limit=20)] == exact(wanted)
    for identifier in (few[0].id, f"https://arxiv.org/abs/{few[0].id}v2", "evil/one"):
        near = here.similar(identifier, 7)
        found = there.similar(identifier, 7)
        assert [(one.paper.id, one.why) for one in found] == [(one.paper.id, one.why) for one in near] and near
        assert there.markdown(identifier) == here.markdown(identifier)
    for period in (None, parse_period("day", "2026-08-20"), parse_period("month", "2025-02")):
        for sort in ("votes", "newest"):
            wanted = [one.paper.id for one in here.daily(period, sort=sort, limit=15)]  # type: ignore[arg-type]
            assert [one.paper.id for one in there.daily(period, sort=sort, limit=15)] == wanted  # type: ignore[arg-type]
            assert wanted


def exact(papers: list[Paper]) -> list[Paper]:
    """As papers come back: times to the millisecond."""
    from dataclasses import replace

    def cut(moment: Any) -> Any:
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000) if moment else None

    return [replace(one, published_at=cut(one.published_at), listed_at=cut(one.listed_at)) for one in papers]


def test_the_same_lists_as_here(served: Served, there: Remote) -> None:
    here = Here(served.site)
    assert [one.name for one in there.lists()] == ["Empty", "To read"]
    for mine, theirs in zip(here.lists(), there.lists(), strict=True):
        assert (mine.id, mine.name, mine.papers, mine.shared) == (theirs.id, theirs.name, theirs.papers, theirs.shared)
    assert [(one.paper.id, one.why) for one in there.papers_of(served.list)] == [
        (one.paper.id, one.why) for one in here.papers_of(served.list)
    ]
    for form in ("bibtex", "jsonl"):
        assert there.text_of(served.list, form) == here.text_of(served.list, form) != ""  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match=r"nobody with the address 'ada@example\.org' has signed in"):
        Here(served.site, "ada@example.org").lists()


def test_a_list_by_name(there: Remote) -> None:
    known = there.lists()
    assert choose(known, "to READ").name == choose(known, known[1].id).name == "To read"
    with pytest.raises(NotFoundError, match="no list 'To red'; did you mean 'To read'"):
        choose(known, "To red")
    with pytest.raises(InputError, match="2 lists are called 'to read': name one by its id"):
        choose([*known, known[1]], "to read")


def test_tools_of_a_model_over_a_site(served: Served, there: Remote, few: list[Paper]) -> None:
    far, near = PaperTools(there), PaperTools(served.site)
    assert [one.id for one in far.search("language model", votes=3)] == [
        one.id for one in near.search("language model", votes=3)
    ]
    assert far.similar(few[0].id) == near.similar(few[0].id) and far.read(few[0].id) == near.read(few[0].id)
    assert far.daily("2026-W34") == near.daily("2026-W34") != []
    with pytest.raises(NotFoundError, match=r"there is no paper '9999\.99999' in this collection"):
        far.read("9999.99999")


# -- what a site may answer ----------------------------------------------------------------------------------------
Answer = Callable[[httpx.Request], httpx.Response]
TOKEN = "nvp_" + "A" * 22 + "." + "B" * 43


def asking(answer: Answer, *, token: str | None = TOKEN, waited: list[float] | None = None) -> Remote:
    waits = waited if waited is not None else []
    return Remote("https://papers.example.org", token, wait=waits.append, transport=httpx.MockTransport(answer))


def said(status: int, text: str = "", **headers: str) -> Answer:
    body = json.dumps({"error": text}) if text else ""
    return lambda _: httpx.Response(status, headers={"content-type": "application/json", **headers}, text=body)


def plain(status: int = 200, text: str = "", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, text=text, headers={"content-type": "application/json"} | named)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (said(400, "year is 'x'"), InputError, "refuses (400): year is 'x'"),
        (said(401, "this token is not known here"), InputError, "this token is not known here; name another with"),
        (said(401), InputError, "it needs a token"),
        (said(403, "this token is for read"), InputError, "does not allow this: this token is for read"),
        (said(404, "there is no paper 'x'"), NotFoundError, "there is no paper 'x' (https://papers.example.org)"),
        (said(410, "was taken away: twice"), NotFoundError, "was taken away: twice"),
        (said(500), OfflineError, "cannot answer at the moment (500): try again later"),
        (said(503, "the papers cannot be read"), OfflineError, "(503): the papers cannot be read"),
        (said(418), InputError, "refuses (418): it is no papers site, or an older one"),
        (said(500, "x" * 5_000 + "\n\x1b[31m"), OfflineError, "x" * 300),
        (plain(text="<html>", content_type="text/html"), InputError, "is not that of a papers site"),
        (plain(text="{}"), InputError, "is not that of a papers site"),
        (plain(text="[{}]"), InputError, "is not that of a papers site"),
        (plain(text="[3]"), InputError, "is not that of a papers site"),
        (plain(text='[{"paper": {"id": "..", "title": "t"}}]'), InputError, "the site's answer: field 'id'"),
        (plain(text="["), InputError, "is not that of a papers site"),
        (plain(404, "<h1>nginx</h1>"), NotFoundError, "not found (https"),
        (plain(302, location="https://evil.example/x"), OfflineError, "leads to 'https://evil"),
        (plain(302, location="//papers.example.org.evil.example/"), OfflineError, "leads to"),
        (plain(302, location="http://papers.example.org/x"), OfflineError, "leads to"),
        (plain(302, location="/again"), OfflineError, "without end"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_one_line(answer: Answer, kind: type[NextvecError], message: str) -> None:
    with asking(answer) as there, pytest.raises(kind) as caught:
        there.find({"q": "x"})
    line = str(caught.value)
    assert message in line and "\n" not in line and len(line) < 500 and TOKEN not in line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "cannot be reached: [Errno 111] Connection refused"),
        (httpx.ConnectTimeout("x"), "gave no answer within 30 seconds"),
        (httpx.ReadTimeout("x"), "gave no answer within 30 seconds"),
        (httpx.RemoteProtocolError("peer closed"), "cannot be reached: peer closed"),
    ],
)
def test_no_answer_is_one_line(error: Exception, message: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    with asking(answer) as there, pytest.raises(OfflineError) as caught:
        there.lists()
    assert message in str(caught.value)


def test_an_answer_without_end_is_cut() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 2**20

    with asking(lambda _: httpx.Response(200, content=endless())) as there, pytest.raises(OfflineError, match="32 MB"):
        there.lists()


def test_a_slow_site_is_waited_for_once() -> None:
    def answers(*all_of: httpx.Response) -> Answer:
        left = list(all_of)
        return lambda _: left.pop(0)

    def busy(after: str | None) -> httpx.Response:
        return httpx.Response(429, json={"error": "too many"}, headers={"retry-after": after} if after else {})

    waited: list[float] = []
    with asking(answers(busy("7"), httpx.Response(200, json=[])), waited=waited) as there:
        assert there.lists() == [] and waited == [7.0]
    for after, waits in (("7", [7.0]), ("3600", []), (None, []), ("nan", []), ("-1", []), ("inf", []), ("soon", [])):
        waited = []
        with (
            asking(answers(busy(after), busy(after)), waited=waited) as there,
            pytest.raises(OfflineError, match="is asked too often: too many"),
        ):
            there.lists()
        assert waited == waits, after


def test_the_token_goes_to_the_site_and_nowhere_else() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.path.endswith("old.md"):
            return httpx.Response(301, headers={"location": "/papers/new.md"})
        if request.url.path.endswith("away.md"):
            return httpx.Response(301, headers={"location": "https://evil.example/new.md"})
        return httpx.Response(200, text="# New", headers={"content-type": "text/markdown; charset=utf-8"})

    with asking(answer) as there:
        assert there.markdown("old") == "# New"
        with pytest.raises(OfflineError, match="leads to 'https://evil"):
            there.markdown("away")
    assert [request.url.path for request in asked] == ["/papers/old.md", "/papers/new.md", "/papers/away.md"]
    assert all(request.url.host == "papers.example.org" for request in asked)
    assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in asked)
    assert all(TOKEN not in str(request.url) for request in asked)
    with asking(said(400, f"what is {TOKEN} for?")) as there, pytest.raises(InputError, match=r"what is \(token\) for"):
        there.lists()
    with asking(said(401, "x"), token=None) as there, pytest.raises(InputError, match="name a file with one"):
        there.lists()


@pytest.mark.parametrize(
    "address", ["http://papers.example.org", "http://10.0.0.1:8000", "http://127.0.0.1.example.org"]
)
def test_a_token_is_never_sent_in_the_clear(address: str) -> None:
    with pytest.raises(InputError, match="a token is sent by https only"):
        Remote(address, TOKEN)
    assert check_site(address, token=False) == address
    for loopback in ("http://127.0.0.1:8000", "http://localhost", "http://[::1]:80", "https://papers.example.org"):
        assert check_site(loopback + "/", token=True) == loopback


@pytest.mark.parametrize(
    "address", ["", "papers.example.org", "ftp://a", "https://a/b", "https://a?b", "https://u:p@a"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InputError, match="the address of the site is"):
        Remote(address)


@pytest.mark.parametrize("identifier", ["", "..", "../lists", "a/../../x", "x" * 200])
def test_an_id_leads_nowhere_else(identifier: str) -> None:
    with asking(said(200)) as there, pytest.raises(NotFoundError, match="there is no paper"):
        there.markdown(identifier)


def test_a_paper_comes_checked() -> None:
    told = {"id": "a", "title": " A\x1b[31m  title ", "githubRepo": "javascript:alert(1)", "authors": [{"name": "Ada"}]}
    paper = paper_of(told | {"publishedAt": "2025-02-28T09:30:00.000Z", "numComments": 2})
    assert (paper.title, paper.github_repo, paper.authors) == ("A [31m title", None, ("Ada",))
    assert (str(paper.published_at), paper.num_comments) == ("2025-02-28 09:30:00", 2)


# -- the command line ----------------------------------------------------------------------------------------------
@pytest.fixture
def file(served: Served, tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(served.token + "\n")
    path.chmod(0o600)
    return str(path)


def test_commands_over_a_site(served: Served, file: str, few: list[Paper]) -> None:
    ask = ["--site", served.address, "--token-file", file]
    found = json.loads(run("papers", "search", "language model", "--votes", "5", "--facets", "--json", *ask).stdout)
    wanted = [
        one.paper.id for one in Here(served.site).search("language model", {"votes": "5"}, mode="hybrid", limit=10)
    ]
    assert [one["id"] for one in found["results"]] == wanted and sum(found["facets"]["year"].values()) >= len(wanted)
    text = run("papers", "search", "--like", few[0].id, "-k", "3", "--facets", *ask).stdout
    assert text.count(" · ") >= 3 and " 3. " in text and "year: " in text
    near = json.loads(run("papers", "similar", few[0].id, "-k", "3", "--json", *ask).stdout)
    assert [one["id"] for one in near] == [one.paper.id for one in Here(served.site).similar(few[0].id, 3)]
    assert run("papers", "show", few[0].id, *ask).stdout.rstrip("\n") == Here(served.site).markdown(few[0].id).rstrip()
    assert "To read" in run("papers", "lists", *ask).stdout
    assert run("papers", "lists", "To read", "--format", "bibtex", *ask).stdout.count("@misc{") == 2
    lines = run("papers", "lists", served.list, "--format", "jsonl", *ask).stdout.splitlines()
    assert [json.loads(line)["paper"]["id"] for line in lines] == ["evil/one", few[0].id]
    assert [one["note"] for one in json.loads(run("papers", "lists", "to read", "--json", *ask).stdout)] == [
        None,
        "See figure 3",
    ]
    assert "'Empty' holds no papers" in run("papers", "lists", "Empty", *ask).stdout


def test_commands_on_this_machine(served: Served, few: list[Paper], monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.papers import site as module

    monkeypatch.setattr(module.Site, "encoder", HashEncoder())
    home = served.site.home
    near = run("papers", "similar", few[0].id, "-k", "2", home=home).stdout
    assert " 2. " in near and "cosine" in near
    assert "## BibTeX" in run("papers", "show", few[0].id, home=home).stdout
    assert run("papers", "lists", "To read", "--format", "bibtex", home=home).stdout.count("@misc{") == 2
    assert "See figure 3" in run("papers", "lists", "To read", home=home).stdout
    assert "nobody with the address" in run("papers", "lists", "--reader", "x@example.org", home=home, code=1).stderr
    assert "there is no paper 'nowhere'" in run("papers", "show", "nowhere", home=home, code=1).stderr


def test_the_token_of_the_environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTVEC_PAPERS_TOKEN", served.token)
    assert "To read" in run("papers", "lists", "--site", served.address).stdout
    monkeypatch.setenv("NEXTVEC_PAPERS_TOKEN", served.token[:-1])
    done = run("papers", "lists", "--site", served.address, code=1)
    assert "refuses: this token is not known here" in done.stderr and served.token[:-1] not in done.stderr
    monkeypatch.delenv("NEXTVEC_PAPERS_TOKEN")
    done = run("papers", "lists", "--site", served.address, code=1)
    assert "needs a token with the scope 'lists'" in done.stderr and done.stderr.count("\n") == 1
    assert "## Abstract" in run("papers", "show", "evil/one", "--site", served.address).stdout, "papers need none"


@pytest.mark.parametrize("text", [b"", b"\n\n", b"two words", b"nvp_\xff", "nvp_ü".encode(), b"a\nb", b"nvp_\x07"])
def test_what_is_no_token_is_not_repeated(served: Served, tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(text)
    path.chmod(0o600)
    done = run("papers", "lists", "--site", served.address, "--token-file", str(path), code=1)
    assert "expected one line" in done.stderr and done.stderr.count("\n") == 1
    assert "words" not in done.stderr and "nvp_ü" not in done.stderr


def test_a_token_that_others_can_read_is_told(served: Served, file: str) -> None:
    Path(file).chmod(0o644)
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o644
    done = run("papers", "lists", "--site", served.address, "--token-file", file)
    assert "can be read by others on this machine: chmod 600" in done.stderr and "To read" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lists", "--site", "nowhere"], "the address of the site is 'nowhere'"),
        (["lists", "--site", "https://a", "--token-file", "/nowhere"], "cannot be read: No such file"),
        (["lists", "--token-file", "x"], "--token-file needs --site"),
        (["search", "x", "--token-file", "x"], "--token-file needs --site"),
        (["lists", "--site", "https://a", "--home", "x"], "leave --home and --reader out"),
        (["lists", "--site", "https://a", "--reader", "x"], "leave --home and --reader out"),
        (["lists", "--format", "bibtex"], "name one"),
        (["lists", "x", "--format", "word"], "--format is 'word'; expected bibtex or jsonl"),
        (["lists", "x", "--format", "jsonl", "--json"], "one of the two"),
        (["search", "x", "--where", "year > 1", "--site", "https://a"], "leave them out with --site"),
        (["similar", "x", "--site", "http://127.0.0.1:9"], "cannot be reached"),
        (["mcp", "--site", "http://a.example/b"], "without a path"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], message: str) -> None:
    done = run("papers", *arguments, code=1)
    line = done.stdout if "--json" in arguments else done.stderr
    assert message in line and done.stderr.count("\n") == (0 if "--json" in arguments else 1)


def test_no_list_of_processes_shows_the_token(served: Served, file: str) -> None:
    """The command as a process: what others see of it, and all that it writes with the log of its client on."""
    code = "import logging; logging.basicConfig(level=logging.DEBUG); from nextvec.cli.main import main; main()"
    command = [sys.executable, "-c", code, "papers", "lists", "--site", served.address, "--token-file", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == 0 and "To read" in done.stdout, done.stderr
    assert "HTTP Request: GET" in done.stderr and served.token not in done.stderr + done.stdout + " ".join(command)
    shown = subprocess.run([*NEXTVEC, "papers", "lists", "--help"], capture_output=True, text=True, timeout=60,
                           env=os.environ | {"NEXTVEC_PAPERS_TOKEN": served.token})  # fmt: skip
    assert served.token not in shown.stdout and "--token " not in shown.stdout
