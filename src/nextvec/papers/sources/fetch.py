"""Requests to other hosts, polite and suspicious: few, named, bounded, and only to hosts that were configured.

- https to hosts on the list, on their own port; no user names in addresses. Plain http only to this machine, and only
  where that was allowed in so many words (tests, a mirror on the same machine).
- A name is resolved once; every address it has must be a public one, and the connection goes to that very address, so
  that a second answer of the name server cannot lead elsewhere.
- Redirects stay on the host. Bodies are bounded in bytes and in time.
- At most one request per ``interval`` seconds, the first one included; 429 and 503 are waited out as Retry-After says,
  or ever longer.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urljoin, urlsplit

from nextvec.types import InputError, OfflineError

__all__ = ["INTERVAL", "Fetcher", "user_agent"]

INTERVAL = 3.0
"""Seconds between two requests: what arXiv asks of those who harvest it."""
MAX_BYTES = 64 << 20
_LONGEST_WAIT = 600.0
_ATTEMPTS = 5
_REDIRECTS = 3
_BLOCK = 1 << 16
_AGAIN = {429, 500, 502, 503, 504}


def user_agent(contact: str | None = None) -> str:
    """Who is asking: the software, and whom to write to."""
    from nextvec import __version__

    if contact is not None and (len(contact) > 200 or not contact.isascii() or not contact.isprintable()):
        raise InputError(f"contact is {contact[:40]!r}; expected a mail address or a page, in plain ASCII")
    return f"nextvec/{__version__} (papers ingest{f'; {contact}' if contact else ''})"


class Fetcher:
    """``get`` gives the body of an address. ``loopback``: this machine may be asked too, without TLS."""

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        contact: str | None = None,
        interval: float = INTERVAL,
        max_bytes: int = MAX_BYTES,
        timeout: float = 60.0,
        deadline: float = 300.0,
        loopback: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hosts = frozenset(host.lower() for host in hosts)
        self.requests = 0
        self._agent = user_agent(contact)
        self._interval = interval
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._deadline = deadline
        self._loopback = loopback
        self._sleep = sleep
        self._clock = clock
        self._last = clock()  # the process before this one may have asked a moment ago

    def get(self, url: str, *, types: Sequence[str]) -> bytes:
        """The body of ``url``, of one of the media ``types``.

        InputError: an address that may not be asked, a body of another type or too large, an answer that is an error.
        OfflineError: nobody answers, or answers in time, or the answer breaks off again and again.
        """
        wait, problem = 0.0, ""
        for attempt in range(_ATTEMPTS):
            if wait:
                self._sleep(wait)
            wait = self._interval * 2 ** (attempt + 1)
            try:
                status, headers, body = self._follow(url, types)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, InputError | OfflineError):
                    raise
                problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                continue
            if status == 200:
                return body
            problem = f"HTTP {status}"
            if status not in _AGAIN:
                raise InputError(f"{_shown(url)} answers with HTTP {status}; check the address and what was asked for")
            asked = _retry_after(headers.get("Retry-After"))
            if asked is not None and asked > _LONGEST_WAIT:
                raise OfflineError(f"{_shown(url)} asks to come back in {asked:.0f} seconds: run this again then")
            wait = wait if asked is None else max(asked, self._interval)
        raise OfflineError(f"{_shown(url)} cannot be read ({problem}): run this again later, it goes on where it was")

    def _follow(self, url: str, types: Sequence[str]) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request, and those that it is redirected to on the same host."""
        first = self.check(url).hostname
        for _ in range(_REDIRECTS + 1):
            status, headers, body = self._ask(url, types)
            target = headers.get("Location")
            if status not in (301, 302, 303, 307, 308) or not target:
                return status, headers, body
            url = urljoin(url, target)
            if self.check(url).hostname != first:
                raise InputError(f"{first} leads to another host, {_shown(url)}: refused")
        raise InputError(f"{_shown(url)} leads in circles: refused")

    def check(self, url: str) -> SplitResult:
        """The parts of an address that may be asked. InputError for any other."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise InputError(f"{url[:80]!r} is not an address") from None
        here = self._loopback and _is_loopback(host)
        if "@" in parts.netloc or not url.isprintable() or len(url) > 4_000 or " " in url:
            raise InputError(f"the address {_shown(url)!r} is refused: no user names, spaces or other oddities")
        if parts.scheme != "https" and not (parts.scheme == "http" and here):
            raise InputError(f"the address {_shown(url)!r} is refused: only https is used")
        if host not in self.hosts and not here:
            raise InputError(
                f"the host {host!r} is not one that this source may ask (those are {', '.join(sorted(self.hosts))})"
            )
        if port is not None and not here and port != 443:
            raise InputError(f"the address {_shown(url)!r} is refused: only port 443 is used")
        return parts

    def _ask(self, url: str, types: Sequence[str]) -> tuple[int, http.client.HTTPMessage, bytes]:
        parts = self.check(url)
        self._pace()
        self.requests += 1
        connection = self._connect(parts)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = {"User-Agent": self._agent, "Accept": ", ".join(types), "Accept-Encoding": "identity"}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                return response.status, response.headers, b""
            given = response.headers.get_content_type()
            if given not in types:
                raise InputError(f"{_shown(url)} gives {given!r} where {' or '.join(types)} was expected")
            return 200, response.headers, self._body(response, url)
        finally:
            connection.close()

    def _body(self, response: http.client.HTTPResponse, url: str) -> bytes:
        until = self._clock() + self._deadline
        parts, size = [], 0
        while block := response.read(_BLOCK):
            size += len(block)
            if size > self._max_bytes:
                raise InputError(f"{_shown(url)} gives more than {self._max_bytes:,} bytes: refused")
            if self._clock() > until:
                raise OfflineError(f"{_shown(url)} takes longer than {self._deadline:.0f} seconds to answer: given up")
            parts.append(block)
        if response.length:  # announced, but the connection ended before
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(parts)

    def _pace(self) -> None:
        now = self._clock()
        if now - self._last < self._interval:
            self._sleep(self._interval - (now - self._last))
        self._last = max(self._clock(), now)

    def _connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = self._resolve(host, port)
        connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        plain = socket.create_connection((address, port), timeout=self._timeout)
        if parts.scheme == "https":
            try:
                connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
            except OSError:
                plain.close()
                raise
        else:
            connection.sock = plain
        return connection

    def _resolve(self, host: str, port: int) -> str:
        """The address to connect to: the first of the host's, all of which must be public."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
        for address in addresses:
            parsed = ipaddress.ip_address(address)
            if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
                parsed = parsed.ipv4_mapped
            if (parsed.is_global and not parsed.is_multicast) or (self._loopback and parsed.is_loopback):
                continue
            raise InputError(f"the host {host!r} has the address {address}, which is not a public one: refused")
        return addresses[0]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after(text: str | None) -> float | None:
    """Seconds, from a number or a date; None for anything else."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _shown(url: str) -> str:
    """An address without what may be secret in it: no user, no query."""
    parts = urlsplit(url[:300])
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:120]
