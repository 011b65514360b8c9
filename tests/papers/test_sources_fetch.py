from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from arxiv_fake import XML, Answer, serving

from nextvec.papers.sources import fetch as module
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.xml import parse, text_of
from nextvec.types import InputError, OfflineError

OK = b"<a>fine</a>"


class Place:
    """Gives its answers one after the other, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.paths: list[str] = []
        self.agents: list[str] = []
        self.address = ""

    def answer(self, path: str) -> Answer:
        self.paths.append(path)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def fetcher(clock: Clock | None = None, **options: object) -> Fetcher:
    clock = clock or Clock()
    values: dict[str, object] = {"loopback": True, "sleep": clock.sleep, "clock": clock} | options
    return Fetcher(("example.org",), **values)  # type: ignore[arg-type]


def get(place: Place, **options: object) -> bytes:
    with serving(place):
        return fetcher(**options).get(f"{place.address}/x", types=("text/xml",))  # type: ignore[arg-type]


def test_says_who_it_is_and_keeps_its_distance() -> None:
    place, clock = Place((200, XML, OK)), Clock()
    with serving(place):
        polite = fetcher(clock, contact="mailto:me@example.org")
        for _ in range(3):
            assert polite.get(f"{place.address}/x", types=("text/xml",)) == OK
    assert clock.slept == [3.0, 3.0, 3.0], "three seconds before each, for another process may just have asked"
    assert place.agents[0].startswith("nextvec/") and "mailto:me@example.org" in place.agents[0]
    with pytest.raises(InputError, match="expected a mail address"):
        Fetcher((), contact="a\r\nX-Evil: 1")


@pytest.mark.parametrize(
    ("header", "waited"),
    [("7", 7.0), ("1", 3.0), (None, 6.0), ("soon", 6.0)],
)
def test_503_is_waited_out(header: str | None, waited: float) -> None:
    clock = Clock()
    headers = {"Retry-After": header} if header else {}
    assert get(Place((503, headers, b""), (200, XML, OK)), clock=clock) == OK
    assert clock.slept == [3.0, waited], "the wait is also the distance"


def test_a_retry_after_may_be_a_date() -> None:
    clock = Clock()
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    get(Place((429, {"Retry-After": later}, b""), (200, XML, OK)), clock=clock)
    assert 80 < clock.slept[1] < 91


def test_waits_grow_and_end() -> None:
    clock, place = Clock(), Place((503, {}, b""))
    with pytest.raises(OfflineError, match=r"HTTP 503.*goes on where it was"):
        get(place, clock=clock)
    assert clock.slept == [3.0, 6.0, 12.0, 24.0, 48.0] and len(place.paths) == 5
    with pytest.raises(OfflineError, match="asks to come back in 86400 seconds"):
        get(Place((503, {"Retry-After": "86400"}, b"")))


def test_a_body_that_breaks_off_is_asked_for_again() -> None:
    cut = (200, XML | {"Content-Length": "5000"}, OK)
    place = Place(cut, (200, XML, OK))
    assert get(place) == OK and len(place.paths) == 2
    with pytest.raises(OfflineError, match="IncompleteRead"):
        get(Place(cut))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, {"Content-Type": "text/html"}, OK), "gives 'text/html' where text/xml was expected"),
        ((404, XML, OK), "answers with HTTP 404"),
        ((200, XML | {"X-Endless": "1"}, OK), "gives more than 1,000,000 bytes"),
        ((302, {"Location": "https://evil.example/x"}, b""), "the host 'evil.example' is not one"),
        ((302, {"Location": "http://example.org/x"}, b""), "only https"),
        ((302, {"Location": "https://example.org/x"}, b""), "leads to another host"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "only https"),
        ((302, {"Location": "/x"}, b""), "leads in circles"),
    ],
)
def test_what_is_refused(answer: Answer, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get(Place(answer), max_bytes=1_000_000)


def test_a_redirect_on_the_same_host_is_followed() -> None:
    place = Place((301, {"Location": "/y?z=1"}, b""), (200, XML, OK))
    assert get(place) == OK and place.paths == ["/x", "/y?z=1"]


def test_a_body_that_takes_too_long_is_given_up() -> None:
    ticking = iter(range(0, 10_000, 100))  # each look at the clock finds a hundred seconds gone
    place = Place((200, XML | {"X-Endless": "1"}, OK))
    with serving(place), pytest.raises(OfflineError, match="takes longer than 300 seconds"):
        late = Fetcher((), loopback=True, clock=lambda: float(next(ticking)), sleep=lambda _: None)
        late.get(f"{place.address}/x", types=("text/xml",))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x", "https://other.org/", "https://user:pass@example.org/", "https://example.org:8443/",
        "https://example.org.evil.org/", "ftp://example.org/", "https://127.0.0.1/", "https://[::1]/", "https://",
        "https://example.org/a b", "https://example.org/" + "x" * 5_000, "https://[/", "https://example.org:99999/",
        "https://example.org@evil.org/", "https://localhost/x", "http://169.254.169.254/latest",
    ],
)  # fmt: skip
def test_addresses_that_are_not_asked(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *_, **__: pytest.fail("it looked the name up"))
    with pytest.raises(InputError):
        Fetcher(("example.org",)).get(url, types=("text/xml",))


@pytest.mark.parametrize(
    "address",
    ["10.0.0.7", "127.0.0.1", "169.254.169.254", "192.168.1.1", "::1", "fe80::1", "fc00::1", "::ffff:10.0.0.1",
     "0.0.0.0", "100.64.0.1", "224.0.0.1"],
)  # fmt: skip
def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))
    found = [public, (family, socket.SOCK_STREAM, 6, "", (address, 443))]
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(module.socket, "create_connection", lambda *_, **__: pytest.fail("it connected"))
    with pytest.raises(InputError, match="which is not a public one"):
        Fetcher(("example.org",)).get("https://example.org/", types=("text/xml",))


def test_the_name_is_resolved_once_and_that_address_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, connected = [], []

    def resolve(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))]

    def connect(address: tuple[str, int], **_: object) -> None:
        connected.append(address)
        raise ConnectionRefusedError("no")

    monkeypatch.setattr(module.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(module.socket, "create_connection", connect)
    with pytest.raises(OfflineError, match="cannot be read"):
        Fetcher(("example.org",), sleep=lambda _: None).get("https://example.org/", types=("text/xml",))
    assert set(connected) == {("93.184.216.34", 443)} and len(asked) == len(connected)


BOMB = b'<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]><a>&y;</a>'
OUTSIDE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'


@pytest.mark.parametrize("body", [BOMB, OUTSIDE, b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><a/>'])
def test_xml_with_entities_or_a_document_type_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="document type or entities"):
        parse(body, "here")


@pytest.mark.parametrize(
    "body", [b"", b"<a>", b"<a>&nope;</a>", b"\x00\x01", b'<?xml version="1.0" encoding="x-no"?><a/>']
)
def test_broken_xml_is_one_line(body: bytes) -> None:
    with pytest.raises(InputError, match="here: the XML is broken or cut off") as caught:
        parse(body, "here")
    assert "\n" not in str(caught.value)


def test_text_keeps_its_order_and_deep_xml_is_refused() -> None:
    assert text_of(parse(b"<t>a<b>b<c>c</c>d</b>e</t>", "x")) == "abcde"
    with pytest.raises(InputError, match="nested more than"):
        text_of(parse(b"<a>" * 5_000 + b"</a>" * 5_000, "x"))
