"""A limit on requests for each client address: token buckets in memory.

A bucket holds what is allowed in a stretch of time (by itself a minute) and refills evenly. The number of buckets is
bounded: where there are more clients, the one that was not seen for the longest time is forgotten and would begin anew.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from nextvec.types import InputError

__all__ = ["DEFAULT_RATE", "DEFAULT_TOKEN_RATE", "RateLimit", "Verdict", "network"]

DEFAULT_RATE = 600
"""Requests per minute and client address."""
DEFAULT_TOKEN_RATE = 3_000
"""Requests per minute and token that may read."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reset``: whole seconds until the bucket is full again; ``wait``: until one request is allowed (0: now)."""

    limit: int
    remaining: int
    reset: int
    wait: int

    @property
    def allowed(self) -> bool:
        return self.wait == 0

    def headers(self) -> dict[str, str]:
        """What a client is told."""
        told = {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset),
        }
        return told if self.allowed else told | {"Retry-After": str(self.wait)}


class RateLimit:
    """``rate`` requests in ``seconds`` for each client. Not for several threads at once without a lock of theirs."""

    def __init__(
        self,
        rate: int,
        *,
        seconds: int = 60,
        clients: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if rate < 1 or clients < 1 or seconds < 1:
            raise InputError(
                f"the rate is {rate} in {seconds} seconds for {clients} clients; expected at least 1 of each"
            )
        self.rate = rate
        self.seconds = seconds
        self.clients = clients
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many clients are remembered."""
        return len(self._buckets)

    def take(self, client: str) -> Verdict:
        """Take one request out of ``client``'s bucket, if there is one in it."""
        now = self._clock()
        tokens, before = self._buckets.get(client, (float(self.rate), now))
        per_second = self.rate / self.seconds
        tokens = min(float(self.rate), tokens + (now - before) * per_second)
        wait = 0
        if tokens >= 1:
            tokens -= 1
        else:
            wait = max(1, math.ceil((1 - tokens) / per_second))
        self._buckets[client] = (tokens, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > self.clients:
            self._buckets.popitem(last=False)
        return Verdict(self.rate, int(tokens), math.ceil((self.rate - tokens) / per_second), wait)


def network(address: str | None) -> str:
    """Who counts as one client: an IPv4 address, the /64 of an IPv6 address (one household has them all)."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
