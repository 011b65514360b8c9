from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextvec.papers import feed, trending
from nextvec.types import InputError

DAYS = st.dates(date(1990, 1, 1), date(2100, 1, 1))


@pytest.mark.parametrize(
    ("day", "key", "start", "end"),
    [
        (date(2024, 12, 30), "2025-W01", date(2024, 12, 30), date(2025, 1, 5)),
        (date(2021, 1, 3), "2020-W53", date(2020, 12, 28), date(2021, 1, 3)),
        (date(2020, 12, 31), "2020-W53", date(2020, 12, 28), date(2021, 1, 3)),
        (date(2025, 2, 28), "2025-W09", date(2025, 2, 24), date(2025, 3, 2)),
    ],
)
def test_iso_weeks(day: date, key: str, start: date, end: date) -> None:
    period = feed.week(day)
    assert (period.key, period.start, period.end) == (key, start, end)
    assert feed.parse_period("week", key) == period


@given(DAYS, st.sampled_from(["day", "week", "month"]))
def test_a_period_holds_its_day_and_is_read_back_from_its_key(day: date, kind: feed.Kind) -> None:
    period = feed.period_of(kind, day)
    assert period.start <= day <= period.end
    assert feed.parse_period(kind, period.key) == period
    after = feed.period_of(kind, period.end + timedelta(days=1))
    assert after.start == period.end + timedelta(days=1)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("day", "2025-13-01"), ("day", "2025-02-30"), ("day", "x"), ("day", ""), ("day", "0000-01-01"),
     ("day", "9999-12-31"),
     ("week", "2025-W53"), ("week", "2025-W00"), ("week", "2025-9"), ("month", "2025-00"), ("month", "2025-2"),
     ("day", "２０２５-01-01"), ("day", "20250101")],
)  # fmt: skip
def test_bad_periods_say_what_is_expected(kind: feed.Kind, text: str) -> None:
    with pytest.raises(InputError, match=f"is not a {kind}; expected the form"):
        feed.parse_period(kind, text)


def test_walk_skips_empty_days() -> None:
    counts = {date(2025, 2, 28): 3, date(2025, 3, 3): 2, date(2025, 3, 10): 1}
    before, after = feed.walk(feed.day(date(2025, 3, 3)), counts)
    assert before == feed.day(date(2025, 2, 28)) and after == feed.day(date(2025, 3, 10))
    assert feed.walk(feed.month(date(2025, 3, 1)), counts) == (feed.month(date(2025, 2, 1)), None)
    assert feed.walk(feed.day(date(2025, 3, 3)), {}) == (None, None)


def test_calendar_has_every_day_once_under_its_weekday() -> None:
    weeks = feed.calendar(date(2025, 2, 10), {date(2025, 2, 3): 10, date(2025, 2, 4): 1})
    cells = [cell for week in weeks for cell in week if cell]
    assert [cell.day.day for cell in cells] == list(range(1, 29))
    assert all(len(week) == 7 for week in weeks)
    assert all(cell.day.weekday() == i for week in weeks for i, cell in enumerate(week) if cell)
    assert [cell.level for cell in cells[2:5]] == [4, 1, 0]


NOW = datetime(2025, 3, 10, 12)


def test_a_vote_counts_half_after_each_half_life() -> None:
    assert trending.score(80, 0, 2) == 80
    assert trending.score(80, 2, 2) == 40
    assert trending.score(80, 6, 2) == 10
    assert trending.score(80, -5, 2) == 80


def test_ranking_prefers_new_votes_and_breaks_ties_the_same_way() -> None:
    rows = [
        ("old", 100, datetime(2025, 3, 1, 8), date(2025, 3, 1)),
        ("new", 20, datetime(2025, 3, 10, 8), date(2025, 3, 10)),
        ("tie-b", 5, datetime(2025, 3, 9, 8), date(2025, 3, 9)),
        ("tie-a", 5, datetime(2025, 3, 9, 8), date(2025, 3, 9)),
        ("untimed", 5, None, date(2025, 3, 9)),
    ]
    ranked = trending.rank(rows, at=NOW, half_life=2)
    assert [trend.id for trend in ranked] == ["new", "old", "tie-a", "tie-b", "untimed"]
    assert all(trend.score == pytest.approx(trend.votes * trend.weight) for trend in ranked)
    with pytest.raises(InputError, match="half-life"):
        trending.rank(rows, at=NOW, half_life=0)


@given(st.integers(0, 10**6), st.floats(0, 400), st.floats(0, 400), st.floats(0.1, 60))
def test_score_never_grows_with_age(votes: int, age: float, more: float, half_life: float) -> None:
    assert 0 <= trending.score(votes, age + more, half_life) <= trending.score(votes, age, half_life) <= votes


def test_the_reference_is_now_but_not_after_the_data() -> None:
    assert trending.reference(date(2025, 3, 10), NOW) == NOW
    assert trending.reference(date(2024, 1, 1), NOW) == datetime(2024, 1, 2)
    assert trending.score(1000, 0, 2) * 2.0**-10 < 1, "what lies before the horizon cannot matter"


@pytest.mark.parametrize(
    "score, shown", [(1234.56, "1234.6"), (12.0, "12.0"), (0.96, "1.0"), (0.044, "0.044"), (0.5, "0.5"), (0.0, "0")]
)
def test_small_scores_keep_the_digits_that_count(score: float, shown: str) -> None:
    assert trending.Trend("2501.00001", score, 1, score, 3.0).shown == shown
