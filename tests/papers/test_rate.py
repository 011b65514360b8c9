from __future__ import annotations

import pytest

from nextvec.papers.rate import RateLimit, network
from nextvec.types import InputError


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_holds_a_minute_and_refills_evenly() -> None:
    clock = Clock()
    limit = RateLimit(6, clock=clock)
    taken = [limit.take("a") for _ in range(7)]
    assert [verdict.allowed for verdict in taken] == [True] * 6 + [False]
    assert [verdict.remaining for verdict in taken] == [5, 4, 3, 2, 1, 0, 0]
    assert taken[0].reset == 10 and taken[5].reset == 60 and taken[6].wait == 10
    assert taken[6].headers() == {
        "RateLimit-Limit": "6", "RateLimit-Remaining": "0", "RateLimit-Reset": "60", "Retry-After": "10",
    }  # fmt: skip
    assert "Retry-After" not in taken[0].headers()
    clock.now += 9.5
    assert limit.take("a").wait == 1
    clock.now += 0.5
    assert limit.take("a").allowed and not limit.take("a").allowed
    clock.now += 10_000
    assert limit.take("a").remaining == 5, "it never holds more than a minute's worth"


def test_clients_do_not_share_and_are_forgotten_in_turn() -> None:
    clock = Clock()
    limit = RateLimit(1, clients=3, clock=clock)
    assert all(limit.take(name).allowed for name in "abc") and not limit.take("a").allowed
    assert limit.take("d").allowed and len(limit) == 3
    assert not limit.take("a").allowed, "seen after b, so b was forgotten"
    assert limit.take("b").allowed and len(limit) == 3
    for number in range(10_000):
        limit.take(str(number))
    assert len(limit) == 3


def test_what_counts_as_one_client() -> None:
    assert network("10.0.0.1") == "10.0.0.1" != network("10.0.0.2")
    assert network("2001:db8::1") == network("2001:db8::ffff:1") != network("2001:db8:0:1::1")
    assert network("::ffff:10.0.0.1") == network("10.0.0.1")
    assert network(None) == network("") == "unknown" and network("testclient") == "testclient"


def test_a_rate_has_to_be_one() -> None:
    with pytest.raises(InputError, match="the rate is 0 in 60 seconds for 10000 clients; expected at least 1"):
        RateLimit(0)
