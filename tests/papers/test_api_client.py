"""The Hub's own client, pointed at the site: nothing of it is changed, nothing beyond loopback is asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import uvicorn
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import PaperInfo

from nextvec.papers.records import Paper
from nextvec.papers.search import search
from nextvec.papers.site import Site
from nextvec.papers.web import create_app


@pytest.fixture(scope="module")
def address(small: Site) -> Iterator[str]:
    """The small site on a port of the loopback interface."""
    config = uvicorn.Config(create_app(small), host="127.0.0.1", port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def api(address: str, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return HfApi(endpoint=address, token=False)


def utc(value: datetime | None) -> datetime | None:
    """A time of the database as the client gives it: in UTC, whole milliseconds."""
    return value.replace(tzinfo=UTC, microsecond=value.microsecond // 1000 * 1000) if value else None


def agrees(info: PaperInfo, paper: Paper) -> None:
    """What every answer of the client holds."""
    assert (info.id, info.title, info.summary or "") == (paper.id, paper.title, paper.summary)
    assert info.published_at == utc(paper.published_at) and info.submitted_at == utc(paper.listed_at)
    assert (info.upvotes or 0, info.comments or 0) == (paper.upvotes, paper.num_comments)
    assert tuple(author.name for author in info.authors or []) == paper.authors
    assert (info.submitted_by.username if info.submitted_by else None) == paper.submitted_by
    assert (info.organization.fullname if info.organization else None) == paper.organization
    assert info.discussion_id is None and info.ai_summary is None


def in_feed(few: list[Paper], fits: Callable[[Paper], bool]) -> dict[str, Paper]:
    return {paper.id: paper for paper in few if paper.daily_date and fits(paper)}


@pytest.mark.parametrize(
    ("period", "fits"),
    [
        ({"date": "2026-08-21"}, lambda paper: str(paper.daily_date) == "2026-08-21"),
        ({"week": "2026-W34"}, lambda paper: paper.daily_date.isocalendar()[:2] == (2026, 34)),
        ({"month": "2025-02"}, lambda paper: str(paper.daily_date).startswith("2025-02")),
    ],
)
def test_daily_papers_of_a_period(
    api: HfApi, few: list[Paper], period: dict[str, str], fits: Callable[[Paper], bool]
) -> None:
    wanted = in_feed(few, fits)
    found = [info for page in range(3) for info in api.list_daily_papers(**period, p=page, limit=100)]
    assert wanted and {info.id for info in found} == set(wanted) and len(found) == len(wanted)
    for info in found:
        agrees(info, wanted[info.id])


def test_pages_and_limits_of_the_feed(api: HfApi, few: list[Paper]) -> None:
    newest = [info.id for info in api.list_daily_papers()]
    assert len(newest) == 50 and newest == [info.id for info in api.list_daily_papers(sort="publishedAt", p=0)]
    pages = [[info.id for info in api.list_daily_papers(p=page, limit=20)] for page in range(3)]
    assert [len(page) for page in pages] == [20, 20, 20] and [*chain(*pages)][:50] == newest
    days = {paper.id: paper.daily_date for paper in few}
    order = [str(days[identifier]) for identifier in newest]
    assert order == sorted(order, reverse=True) and order[0] == "2026-08-21"
    assert list(api.list_daily_papers(p=1000)) == []


def test_the_feed_of_a_submitter_and_what_is_trending(api: HfApi, few: list[Paper]) -> None:
    name = next(paper.submitted_by for paper in few if paper.daily_date and paper.submitted_by)
    wanted = in_feed(few, lambda paper: paper.submitted_by == name)
    found = list(api.list_daily_papers(submitter=name, limit=100))
    assert {info.id for info in found} == set(wanted)
    assert {info.submitted_by.username for info in found if info.submitted_by} == {name}
    # The listings of this day were recorded without their hours: equal ages leave the votes to decide.
    rising = list(api.list_daily_papers(date="2026-08-21", sort="trending"))
    votes = [info.upvotes or 0 for info in rising]
    assert len(votes) == len(in_feed(few, lambda paper: str(paper.daily_date) == "2026-08-21"))
    assert votes == sorted(votes, reverse=True) and votes[0] > votes[-1]


def test_search(api: HfApi, small: Site) -> None:
    for limit in (None, 7, 120):
        found = list(api.list_papers(query="latent reasoning", limit=limit))
        wanted = search(small, "latent reasoning", size=limit or 20).matches
        assert [info.id for info in found] == [match.stored.paper.id for match in wanted]
        for info, match in zip(found, wanted, strict=True):
            agrees(info, match.stored.paper)
    assert len(list(api.list_papers(limit=5))) == 5, "without a query: the newest"


def test_one_paper(api: HfApi, few: list[Paper]) -> None:
    paper = next(one for one in few if one.github_stars and one.project_page and one.organization and one.listed_at)
    info = api.paper_info(paper.id)
    agrees(info, paper)
    assert (info.github_repo, info.github_stars, info.project_page) == (
        paper.github_repo, paper.github_stars, paper.project_page,
    )  # fmt: skip
    assert info.linked_models == info.linked_datasets == info.linked_spaces == []
    assert info.num_total_models == info.num_total_datasets == 0
    agrees(api.paper_info("evil/one"), next(one for one in few if one.id == "evil/one"))


def test_a_paper_as_text(api: HfApi, few: list[Paper]) -> None:
    paper = next(one for one in few if one.title.replace(" ", "").isalnum())
    text = api.read_paper(paper.id)
    assert text.startswith(f"# {paper.title}\n") and "## Abstract" in text and "## BibTeX" in text


def test_every_paper_through_the_clients_own_paging(api: HfApi, address: str, few: list[Paper]) -> None:
    from huggingface_hub.utils import build_hf_headers
    from huggingface_hub.utils._pagination import paginate

    items = paginate(f"{address}/api/papers", params={"limit": 100}, headers=build_hf_headers(token=False))
    found = [PaperInfo(**item) for item in items]
    by_id = {paper.id: paper for paper in few}
    assert len(found) == len(by_id) and {info.id for info in found} == set(by_id)
    for info in found:
        agrees(info, by_id[info.id])


def test_the_client_shows_our_message(api: HfApi) -> None:
    for ask, status, message in (
        (lambda: api.paper_info("9999.99999"), 404, "there is no paper '9999.99999' in this collection"),
        (lambda: list(api.list_daily_papers(date="yesterday")), 400, "'yesterday' is not a day"),
        (lambda: list(api.list_papers(query="x" * 251)), 400, "at most 250 are accepted"),
        (lambda: list(api.list_daily_papers(limit=101)), 400, "less than or equal to 100"),
    ):
        with pytest.raises(HfHubHTTPError, match=message) as caught:
            ask()
        assert caught.value.response.status_code == status


@pytest.fixture
def hf(address: str, tmp_path: Path) -> Callable[..., str]:
    """The Hub's command line, told by its own variable where to ask."""
    command = shutil.which("hf", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the command hf is not beside this Python")
    names = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}

    def ask(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [command, "papers", *arguments], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    return ask


def test_the_hubs_command_line(hf: Callable[..., str], few: list[Paper]) -> None:
    day: list[dict[str, Any]] = json.loads(hf("list", "--date", "2026-08-21", "--format", "json"))
    wanted = in_feed(few, lambda paper: str(paper.daily_date) == "2026-08-21")
    assert {item["id"] for item in day} == set(wanted)
    assert all(item["submitted_by_name"] == (wanted[item["id"]].submitted_by or "") for item in day)
    found = json.loads(hf("search", few[3].title[:200], "--limit", "3", "--format", "json"))
    assert len(found) == 3 and found[0]["id"] == few[3].id
    assert json.loads(hf("info", few[3].id, "--format", "json"))["title"] == few[3].title
    assert "## Abstract" in hf("read", few[3].id)
    assert "Paper '9999.99999' not found" in hf("info", "9999.99999", code=1)
