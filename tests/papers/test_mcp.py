"""The tools for language models, over standard input and output, asked by the protocol's own client."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import HashEncoder

from nextvec.encoder import bundled_models
from nextvec.papers.ingest import ingest
from nextvec.papers.mcp_server import PaperTools, create_server
from nextvec.papers.records import Paper
from nextvec.papers.search import search
from nextvec.papers.site import Site
from nextvec.types import MissingExtraError

mcp = pytest.importorskip("mcp")


def talk(server: Any, conversation: Callable[[Any], Awaitable[None]]) -> None:
    async def run() -> None:
        async with mcp.Client(server, read_timeout_seconds=60) as client:
            await conversation(client)

    asyncio.run(run())


def entries(result: Any) -> list[dict[str, Any]]:
    assert not result.is_error, result.content
    found: list[dict[str, Any]] = result.structured_content["result"]
    return found


def test_each_tool_answers_from_the_site(small: Site, few: list[Paper]) -> None:
    async def conversation(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"search", "similar", "read", "daily"}
        assert all(tool.description and tool.annotations.read_only_hint for tool in tools.values())
        assert tools["search"].input_schema["required"] == ["query"]
        found = entries(await client.call_tool("search", {"query": "video generation", "votes": 5, "limit": 7}))
        votes = {paper.id: paper.upvotes for paper in few}
        assert len(found) == 7 and all(votes[entry["id"]] >= 5 and entry["why"] for entry in found)
        everything = entries(await client.call_tool("search", {"query": "video generation", "limit": 5}))
        wanted = [match.stored.paper.id for match in search(small, "video generation", size=5).matches]
        assert [entry["id"] for entry in everything] == wanted
        near = entries(await client.call_tool("similar", {"id": few[0].id, "limit": 3}))
        assert [entry["id"] for entry in near] == [stored.paper.id for stored, _ in small.similar(few[0].id, 3)]
        day = entries(await client.call_tool("daily", {}))
        newest = [paper for paper in few if str(paper.daily_date) == "2026-08-21"]
        assert [entry["votes"] for entry in day] == sorted((paper.upvotes for paper in newest), reverse=True)
        text = (await client.call_tool("read", {"id": f"https://arxiv.org/abs/{few[0].id}v2"})).content[0].text
        assert few[0].authors[0] in text and "## Abstract" in text

    talk(create_server(small), conversation)


def test_a_search_is_narrowed_to_venues_and_categories(tmp_path: Path) -> None:
    filed = (("a", ("cs.CL", "emnlp")), ("b", ("cs.CV",)), ("c", ("cs.LG",)), ("d", ()))
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, [Paper(id=name, title=f"Zebra {name}", summary="Of zebras.", categories=of) for name, of in filed])

    async def conversation(client: Any) -> None:
        told = (await client.list_tools()).tools[0].input_schema["properties"]["category"]
        assert "cs.CL,emnlp" in told["description"] and told["default"] == ""
        for category, wanted in (("CS.cl", {"a"}), ("emnlp, cs.cv", {"a", "b"}), ("", {"a", "b", "c", "d"})):
            found = entries(await client.call_tool("search", {"query": "zebra", "category": category}))
            assert {entry["id"] for entry in found} == wanted
        result = await client.call_tool("search", {"query": "zebra", "category": "emlnp"})
        assert result.is_error and "in the venue or category 'emlnp'; did you mean 'emnlp'?" in result.content[0].text

    talk(create_server(site), conversation)
    site.close()


def test_a_period_is_a_day_a_week_or_a_month(small: Site, few: list[Paper]) -> None:
    tools = PaperTools(small)
    for period, fits in (
        ("2026-08-20", lambda day: str(day) == "2026-08-20"),
        ("2026-W34", lambda day: day.isocalendar()[:2] == (2026, 34)),
        ("2025-02", lambda day: (day.year, day.month) == (2025, 2)),
    ):
        wanted = {paper.id for paper in few if paper.daily_date and fits(paper.daily_date)}
        found = {entry.id for entry in tools.daily(period, limit=50)}
        assert found and found <= wanted and len(found) == min(50, len(wanted))


def test_a_model_is_told_what_to_do_better(small: Site) -> None:
    async def conversation(client: Any) -> None:
        for tool, arguments, message in (
            ("read", {"id": "9999.99999"}, "there is no paper '9999.99999' in this collection"),
            ("similar", {"id": "../../etc/passwd"}, "there is no paper"),
            ("search", {"query": " "}, "the query is empty"),
            ("search", {"query": "x" * 251}, "at most 250"),
            ("search", {"query": "model", "organization": "NVIDA"}, "did you mean 'NVIDIA'"),
            ("search", {"query": "model", "start": "yesterday"}, "from: 'yesterday' is not a day"),
            ("daily", {"period": "2025-W54"}, "is not a week"),
            ("daily", {"limit": 1000}, "less than or equal to 50"),
        ):
            result = await client.call_tool(tool, arguments)
            assert result.is_error and message in result.content[0].text, result.content
            assert "Traceback" not in result.content[0].text

    talk(create_server(small), conversation)


def test_an_empty_site_has_no_day(tmp_path: Path) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    assert PaperTools(site).daily() == []
    site.close()


def test_the_command_speaks_over_standard_input_and_output(few: list[Paper], tmp_path: Path) -> None:
    if "nextvec-mini" not in bundled_models():
        pytest.skip("the bundled encoder nextvec-mini is not in this checkout")
    site = Site(tmp_path)
    ingest(site, few[:60])
    wanted = [match.stored.paper.id for match in search(site, few[7].title, size=3).matches]
    site.close()

    async def conversation(client: Any) -> None:
        found = entries(await client.call_tool("search", {"query": few[7].title, "limit": 3}))
        assert [entry["id"] for entry in found] == wanted and wanted[0] == few[7].id
        assert "exact title" in found[0]["why"] and "cosine" in found[0]["why"]
        text = (await client.call_tool("read", {"id": few[7].id})).content[0].text
        assert few[7].authors[0] in text

    arguments = ["-m", "nextvec.cli.main", "papers", "mcp", "--home", str(tmp_path)]
    server = mcp.StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    talk(server, conversation)


def test_without_the_package_one_line_names_the_extra(small: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mcp"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nextvec\[mcp\]'"):
        create_server(small)


def test_the_command_needs_a_site(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nextvec.cli.main", "papers", "mcp", "--home", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert (done.returncode, done.stdout) == (1, "") and "there is no paper site in" in done.stderr
    assert done.stderr.count("\n") == 1
