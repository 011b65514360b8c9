"""A papers site at an address, read through its interface for programs: ``Reading`` over HTTP.

What comes from there is somebody else's: answers are bounded in size and time, records are checked like an ingested
file, redirects stay on the site, and a token goes to nobody else and stands in no message.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from nextvec.extras import require
from nextvec.papers import feed
from nextvec.papers.feed import Period
from nextvec.papers.params import check_query
from nextvec.papers.reading import Form, Found, Listed
from nextvec.papers.records import Paper, parse_record
from nextvec.papers.responses import check_base
from nextvec.papers.search import Mode, paper_id
from nextvec.papers.views import Named
from nextvec.types import InputError, NextvecError, NotFoundError, OfflineError

__all__ = ["LONGEST_WAIT", "SECONDS", "Remote", "check_site", "paper_of"]

SECONDS = 30.0
"""How long an answer may take, from connecting to its last byte."""
LONGEST_WAIT = 120
"""Seconds that a site's Retry-After is waited for."""
_MOST_BYTES = 32 * 2**20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
T = TypeVar("T")
Params = Mapping[str, str | int | Sequence[str]]


def check_site(address: str, *, token: bool) -> str:
    """The address of a site. InputError for what is none, and for one to which a token would go unencrypted."""
    base = check_base(address)
    parts = urlsplit(base)
    if token and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise InputError(f"a token is sent by https only, and the site is {base}: use its https address, or no token")
    return base


class Remote:
    """The site at ``address``; its lists are those of whose ``token`` it is. Close it, or use it as a context manager.

    ``wait``: sleeps so many seconds where the site asks to; ``transport``: of ``httpx``, another way there.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        wait: Callable[[float], None] = time.sleep,
        transport: Any = None,
    ) -> None:
        self._httpx = require("httpx", why="asking a papers site at an address")
        self.address = check_site(address, token=token is not None)
        self._token = token
        self._wait = wait
        headers = {"Accept": "application/json", "User-Agent": "nextvec-papers"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        self._http = self._httpx.Client(base_url=self.address, headers=headers, timeout=SECONDS, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- papers ----------------------------------------------------------------------------------------------------
    def search(self, query: str, values: Mapping[str, str], *, mode: Mode, limit: int) -> list[Found]:
        return self.find({**values, "q": check_query(query), "mode": mode, "limit": limit})

    def find(self, params: Params) -> list[Found]:
        """The papers of a search with these parameters of ``/api/papers/search``."""
        return self._each("/api/papers/search", params, lambda item: Found(paper_of(item)))

    def facets(self, params: Params) -> dict[str, dict[str, int]]:
        """What the results of a search are made of: facet -> value -> papers."""

        def read(one: Any) -> tuple[str, dict[str, int]]:
            return str(one["facet"]), {str(each["value"]): int(each["papers"]) for each in one["values"]}

        return dict(self._each("/api/papers/search/facets", params, read))

    def similar(self, identifier: str, limit: int) -> list[Found]:
        def read(item: Any) -> Found:
            return Found(paper_of(item), f"cosine {float(item['similarity']):.2f}")

        return self._each(f"/api/papers/{_part(identifier)}/similar", {"limit": limit}, read)

    def markdown(self, identifier: str) -> str:
        part = _part(identifier)
        try:
            return self._ask(f"/papers/{part}.md", {}, "text/markdown")
        except NotFoundError:  # that was a page for people; the interface says why in a line
            self._ask(f"/api/papers/{part}", {}, "application/json")
            raise

    def daily(self, period: Period | None, *, sort: Literal["votes", "newest"], limit: int) -> list[Found]:
        if period is None:
            newest = self._each("/api/daily_papers", {"limit": 1}, paper_of)
            if not newest or newest[0].daily_date is None:
                return []
            period = feed.day(newest[0].daily_date)
        return self.find({"from": str(period.start), "to": str(period.end), "sort": sort, "limit": limit})

    # -- lists -----------------------------------------------------------------------------------------------------
    def lists(self) -> list[Listed]:
        def read(one: Any) -> Listed:
            made = datetime.fromisoformat(one["createdAt"]).astimezone(UTC).replace(tzinfo=None)
            return Listed(str(one["id"]), str(one["name"]), int(one["papers"]), bool(one["shared"]), made)

        return self._each("/api/lists", {}, read)

    def papers_of(self, identifier: str) -> list[Found]:
        def read(one: Any) -> Found:
            return Found(paper_of(one), str(one["note"]) or None)

        return self._each(f"/api/lists/{_part(identifier)}/papers", {}, read)

    def text_of(self, identifier: str, form: Form) -> str:
        kind = "application/x-bibtex" if form == "bibtex" else "application/jsonl"
        return self._ask(f"/api/lists/{_part(identifier)}/papers", {"format": form}, kind)

    def view(self, name: Named, values: Mapping[str, str], *, limit: int, page: int = 0) -> list[Found]:
        return self._each(f"/api/views/{name}", {**values, "limit": limit, "p": page}, lambda one: Found(paper_of(one)))

    # -- what changes something --------------------------------------------------------------------------------------
    def vote(self, identifier: str, *, up: bool) -> int:
        told = self._send("POST" if up else "DELETE", f"/api/papers/{_part(identifier)}/vote")
        return int(self._field(told, "upvotes"))

    def make_list(self, name: str) -> str:
        return str(self._field(self._send("POST", "/api/lists", {"name": name}), "id"))

    def drop_list(self, identifier: str) -> None:
        self._send("DELETE", f"/api/lists/{_part(identifier)}")

    def put(self, identifier: str, paper: str, note: str) -> None:
        known = paper_id(paper) or paper.strip()
        self._send("POST", f"/api/lists/{_part(identifier)}/papers", {"id": known, "note": note})

    def take_out(self, identifier: str, paper: str) -> None:
        self._send("DELETE", f"/api/lists/{_part(identifier)}/papers/{_part(paper)}")

    def _send(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Any:
        """What the site answers to a change, as JSON; None for nothing. All of them may be sent twice."""
        sent = None if body is None else json.dumps(body).encode()
        text = self._asked((200, 201, 204), path, {}, "application/json", method, sent)
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            raise self._strange() from error

    def _field(self, told: Any, name: str) -> Any:
        try:
            return told[name]
        except (TypeError, KeyError) as error:
            raise self._strange() from error

    # -- HTTP ------------------------------------------------------------------------------------------------------
    def _each(self, path: str, params: Params, read: Callable[[Any], T]) -> list[T]:
        """What ``read`` makes of each item of the list at ``path``."""
        text = self._ask(path, params, "application/json")
        try:
            told = json.loads(text)
            if isinstance(told, list):
                return [read(item) for item in told]
        except NextvecError:  # some of them are ValueErrors, and say more
            raise
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise self._strange() from error
        raise self._strange()

    def _ask(self, path: str, params: Params, kind: str) -> str:
        """The text at ``path``, which has to be of this type."""
        return self._asked((200,), path, params, kind)

    def _asked(
        self,
        good: Sequence[int],
        path: str,
        params: Params,
        kind: str,
        method: str = "GET",
        sent: bytes | None = None,
    ) -> str:
        """What is answered with one of the ``good`` statuses. Waits once where the site asks to."""
        status, headers, text = self._once(path, params, kind, method, sent)
        if status == 429:
            seconds = _seconds(headers.get("retry-after"))
            if seconds is None or seconds > LONGEST_WAIT:
                raise OfflineError(f"{self.address} is asked too often: {self._said(text)}")
            self._wait(seconds)
            status, headers, text = self._once(path, params, kind, method, sent)
        if status not in good:
            raise self._refused(status, text)
        if text and headers.get("content-type", "").partition(";")[0].strip() != kind:
            raise self._strange()
        return text

    def _once(
        self, path: str, params: Params, kind: str, method: str, sent: bytes | None
    ) -> tuple[int, Mapping[str, str], str]:
        """(status, headers, body); redirects are followed on the site itself, those of a change are not."""
        until = time.monotonic() + SECONDS
        address = path
        try:
            for _ in range(4):
                headers = {"Accept": kind} | ({"Content-Type": "application/json"} if sent is not None else {})
                asked = {"params": params or None, "headers": headers, "content": sent}
                with self._http.stream(method, address, **asked) as response:
                    target = response.headers.get("location") if method == "GET" else None
                    if response.status_code in (301, 302, 303, 307, 308) and target:
                        address, params = self._followed(str(response.url), target), {}
                        continue
                    return response.status_code, response.headers, self._body(response, until)
        except self._httpx.TimeoutException as error:
            raise OfflineError(
                f"{self.address} gave no answer within {SECONDS:.0f} seconds: try again later"
            ) from error
        except (self._httpx.TransportError, self._httpx.InvalidURL, self._httpx.DecodingError) as error:
            said = self._said(str(error)) or type(error).__name__
            raise OfflineError(f"{self.address} cannot be reached: {said}; check address and network") from error
        raise OfflineError(f"{self.address} leads from one address to the next without end")

    def _body(self, response: Any, until: float) -> str:
        parts: list[bytes] = []
        size = 0
        for part in response.iter_bytes():
            size += len(part)
            if size > _MOST_BYTES:
                raise OfflineError(f"{self.address} answered with more than {_MOST_BYTES // 2**20} MB; that is no list")
            if time.monotonic() > until:
                raise self._httpx.ReadTimeout("the answer takes too long")
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")

    def _followed(self, here: str, target: str) -> str:
        address = urljoin(here, target)
        if not address.startswith(f"{self.address}/"):
            raise OfflineError(f"{self.address} leads to {address[:120]!r}: name that site with --site if it is meant")
        return address

    # -- errors ----------------------------------------------------------------------------------------------------
    def _refused(self, status: int, text: str) -> NextvecError:
        said = self._said(text)
        if status == 401:
            how = "name another with --token-file" if self._token else "name a file with one: --token-file"
            return InputError(f"{self.address} refuses: {said or 'it needs a token'}; {how}")
        if status == 403:
            return InputError(f"{self.address} does not allow this: {said or 'the token is for something else'}")
        if status in (404, 410):
            return NotFoundError(f"{said or 'not found'} ({self.address})")
        if status == 429:
            return OfflineError(f"{self.address} is asked too often: {said}")
        if status >= 500:
            return OfflineError(f"{self.address} cannot answer at the moment ({status}): {said or 'try again later'}")
        return InputError(f"{self.address} refuses ({status}): {said or 'it is no papers site, or an older one'}")

    def _said(self, text: str) -> str:
        """What the site says of an error, in one short line, without the token if it should be in it."""
        try:
            told = json.loads(text)["error"]
        except (ValueError, TypeError, KeyError):
            told = "" if "<" in text else text
        line = " ".join(str(told).split())
        if self._token:
            line = line.replace(self._token, "(token)")
        return line[:300]

    def _strange(self) -> InputError:
        return InputError(f"what {self.address} answers is not that of a papers site: check the address")


def paper_of(item: Mapping[str, Any]) -> Paper:
    """A paper as the interface tells it -> checked. InputError, KeyError or TypeError for what is none."""
    told = item.get("paper", item)
    record = {
        "id": told["id"],
        "title": told["title"],
        "summary": told.get("summary") or "",
        "authors": [author["name"] for author in told.get("authors") or []],
        "upvotes": told.get("upvotes"),
        "num_comments": item.get("numComments", told.get("numComments")),
        "publishedAt": told.get("publishedAt"),
        "submittedOnDailyAt": told.get("submittedOnDailyAt"),
        "daily_date": told.get("dailyDate"),
        "submitted_by": (told.get("submittedOnDailyBy") or {}).get("user"),
        "githubRepo": told.get("githubRepo"),
        "githubStars": told.get("githubStars"),
        "projectPage": told.get("projectPage"),
        "organization": (told.get("organization") or {}).get("fullname"),
        "source": told.get("source"),
        "categories": told.get("categories"),
    }
    return parse_record(record, where="the site's answer")


def _part(identifier: str) -> str:
    """An id as part of an address: of an arXiv address its id, with slashes as they are."""
    known = paper_id(identifier) or identifier.strip()
    if not known or ".." in known or len(known) > 100:
        raise NotFoundError(f"there is no paper {identifier[:80]!r}: expected an id such as 2412.06769")
    return quote(known, safe="/")


def _seconds(text: str | None) -> float | None:
    """Retry-After as seconds; None for what says none (a date is not what these sites send)."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
