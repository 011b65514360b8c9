"""Fetching: resumed, bounded, verified, from a local server that can misbehave in the ways real ones do."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nextvec.data import catalog
from nextvec.data.catalog import DataFile, DataSet
from nextvec.data.download import download
from nextvec.types import InputError, NotFoundError, OfflineError, StorageError

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """What the server does; ``ranges`` records the Range header of every request."""

    content: bytes = CONTENT
    honour_range: bool = True
    break_after: list[int] = field(default_factory=list)
    status: int | None = None
    redirect: str | None = None
    ranges: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        told = self.behaviour
        asked = self.headers.get("Range")
        told.ranges.append(asked)
        if told.redirect is not None:
            self.send_response(302)
            self.send_header("Location", told.redirect)
            self.end_headers()
            return
        if told.status is not None:
            self.send_error(told.status)
            return
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked and told.honour_range else 0
        body = told.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(told.content) - 1}/{len(told.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: told.break_after.pop(0)] if told.break_after else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour()
    handler = type("Bound", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/", behaviour
        running.shutdown()
        thread.join()


def get(url: str, target: Path, **options: object) -> None:
    download(url, target, **{"size": len(CONTENT), "sha256": DIGEST, **options})  # type: ignore[arg-type]


def test_whole_file_with_progress(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    get(server[0] + "x", tmp_path / "deep" / "x", progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "deep" / "x").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not (tmp_path / "deep" / "x.part").exists()


def test_nothing_is_fetched_twice(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    get(server[0] + "x", tmp_path / "x")
    get(server[0] + "x", tmp_path / "x")
    assert len(server[1].ranges) == 1


def test_broken_connections_are_resumed(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    server[1].break_after = [300_000, 200_000]
    get(server[0] + "x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert server[1].ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on_where_the_first_stopped(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    server[1].break_after = [100_000, 0, 0]
    with pytest.raises(OfflineError, match=r"what arrived is kept\); or put it there yourself"):
        get(server[0] + "x", tmp_path / "x", hint="put it there yourself")
    assert not (tmp_path / "x").exists()
    assert (tmp_path / "x.part").stat().st_size == 100_000
    get(server[0] + "x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert server[1].ranges[-1] == "bytes=100000-"


def test_a_server_without_ranges_starts_anew(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    server[1].honour_range = False
    (tmp_path / "x.part").write_bytes(b"\0" * 5000)
    get(server[0] + "x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_dropped(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"\0" * (len(CONTENT) + 1))
    get(server[0] + "x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"", b"\0" * 5000, b"\0" * len(CONTENT)], ids=["none", "some", "full"])
def test_wrong_contents_are_refused_and_removed(server: tuple[str, Behaviour], tmp_path: Path, part: bytes) -> None:
    if part:
        (tmp_path / "x.part").write_bytes(part)
    else:
        server[1].content = b"\1" * len(CONTENT)
    with pytest.raises(InputError, match=r"not the catalogued file: SHA-256 .* nothing was kept"):
        get(server[0] + "x", tmp_path / "x")
    assert not list(tmp_path.glob("x*[!k]"))
    server[1].content = CONTENT
    get(server[0] + "x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_file_that_does_not_end_is_cut_off(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    server[1].content = CONTENT * 3
    with pytest.raises(InputError, match="sends more than the catalogued"):
        get(server[0] + "x", tmp_path / "x")
    assert (tmp_path / "x.part").stat().st_size <= len(CONTENT)


@pytest.mark.parametrize(("status", "error"), [(404, NotFoundError), (410, NotFoundError), (500, OfflineError)])
def test_refusals_of_the_server(
    server: tuple[str, Behaviour], tmp_path: Path, status: int, error: type[Exception]
) -> None:
    server[1].status = status
    with pytest.raises(error, match=f"HTTP {status}"):
        get(server[0] + "x", tmp_path / "x")


def test_only_https_leaves_this_machine(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    for url in ("http://example.org/x", "ftp://example.org/x", "file:///etc/hostname"):
        with pytest.raises(InputError, match="only https"):
            get(url, tmp_path / "x")
    server[1].redirect = "http://example.org/x"
    with pytest.raises(InputError, match="only https"):
        get(server[0] + "x", tmp_path / "x")


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(OfflineError, match=r"cannot fetch http://127\.0\.0\.1:9/x") as caught:
        get("http://127.0.0.1:9/x", tmp_path / "x", timeout=2)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot use"):
        get(server[0] + "x", tmp_path / "file" / "x")


@pytest.fixture
def small_set(server: tuple[str, Behaviour], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DataSet:
    entry = DataSet(
        name="small",
        group="tests",
        title="two files",
        rows=2,
        unit="files",
        licence="CC0 1.0",
        redistribute="yes",
        source="nobody/nothing",
        files=(DataFile("a.bin", len(CONTENT), DIGEST), DataFile("sub folder/b.bin", len(CONTENT), DIGEST)),
        address=server[0],
    )
    monkeypatch.setattr(catalog, "datasets", lambda: {"small": entry})
    monkeypatch.setenv("NEXTVEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NEXTVEC_DATA", raising=False)
    return entry


def test_fetch_a_set_into_the_cache(small_set: DataSet, server: tuple[str, Behaviour], tmp_path: Path) -> None:
    assert catalog.find("small") is None
    with pytest.raises(NotFoundError, match="run 'nextvec data fetch small'"):
        catalog.locate("small")
    seen: list[int] = []
    folder = catalog.fetch("small", progress=lambda done, total: seen.append(done))
    assert folder == tmp_path / "cache" / "data" / "tests" / "small"
    assert seen[-1] == small_set.bytes
    assert seen == sorted(seen)
    assert catalog.find("small") == ("cache", folder)
    assert catalog.verify("small") == folder
    catalog.fetch("small")
    assert len(server[1].ranges) == 2


def test_fetch_to_a_folder_that_then_serves_as_data_home(
    small_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = catalog.fetch("small", to=tmp_path / "mine")
    monkeypatch.setenv("NEXTVEC_DATA", str(tmp_path / "mine"))
    assert catalog.find("small") == ("NEXTVEC_DATA", folder)
    damaged = bytearray(CONTENT)
    damaged[7] ^= 1
    (folder / "sub folder" / "b.bin").write_bytes(damaged)
    with pytest.raises(StorageError, match=r"b\.bin' is not the catalogued file"):
        catalog.verify("small")
    (folder / "sub folder" / "b.bin").write_bytes(b"short")
    assert catalog.find("small") is None


def test_offline_says_where_to_put_the_files(small_set: DataSet, server: tuple[str, Behaviour]) -> None:
    server[1].status = 503
    with pytest.raises(OfflineError, match=r"put the files of nobody/nothing into \$NEXTVEC_DATA/tests/small/"):
        catalog.fetch("small")
