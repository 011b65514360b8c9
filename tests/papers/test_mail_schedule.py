"""When digests are due: weekdays, weekends, zones, and the nights in which clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextvec.papers.mail.schedule import Schedule, latest, next_slot, read_schedule, slot, zones
from nextvec.types import InputError


def periods(schedule: Schedule, start: datetime, end: datetime, *, step: timedelta) -> list[tuple[str, datetime]]:
    """What somebody who looks every ``step`` finds due, each once."""
    found: dict[str, datetime] = {}
    now = start
    while now <= end:
        due = latest(schedule, now)
        if due.moment > start:
            found.setdefault(due.period, now)
        now += step
    return list(found.items())


def test_the_night_in_which_an_hour_vanishes() -> None:
    berlin = Schedule(at="02:30", zone="Europe/Berlin", weekend="send")  # 29 March 2026: 02:00 is 03:00
    found = periods(berlin, datetime(2026, 3, 28, 12), datetime(2026, 3, 30, 12), step=timedelta(minutes=5))
    assert found == [("2026-03-29", datetime(2026, 3, 29, 1, 30)), ("2026-03-30", datetime(2026, 3, 30, 0, 30))]


def test_the_night_in_which_an_hour_comes_twice() -> None:
    berlin = Schedule(at="02:30", zone="Europe/Berlin", weekend="send")  # 25 October 2026: 02:30 twice
    found = periods(berlin, datetime(2026, 10, 24, 12), datetime(2026, 10, 26, 12), step=timedelta(minutes=5))
    assert found == [("2026-10-25", datetime(2026, 10, 25, 0, 30)), ("2026-10-26", datetime(2026, 10, 26, 1, 30))]


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Tehran", "UTC"])
@pytest.mark.parametrize("at", ["00:00", "01:59", "02:30", "23:59"])
def test_every_day_of_a_year_has_exactly_one(zone: str, at: str) -> None:
    schedule = Schedule(at=at, zone=zone, weekend="send")
    days = [date(2026, 1, 1) + timedelta(days=i) for i in range(365)]
    moments = [slot(schedule, day).moment for day in days]
    assert moments == sorted(set(moments))
    for day, moment in zip(days, moments, strict=True):
        assert latest(schedule, moment).period == day.isoformat()
        assert latest(schedule, moment - timedelta(seconds=1)).period == (day - timedelta(days=1)).isoformat()


def test_a_day_that_a_zone_skipped_brings_no_second_mail() -> None:
    apia = Schedule(at="08:00", zone="Pacific/Apia", weekend="send")  # 30 December 2011 did not exist there
    found = periods(apia, datetime(2011, 12, 28), datetime(2012, 1, 2), step=timedelta(minutes=30))
    assert len({moment for _, moment in found}) == len(found) and len(found) in (4, 5)


def test_weekends() -> None:
    days = [date(2026, 3, 6) + timedelta(days=i) for i in range(4)]  # Friday to Monday
    for weekend, expected in [("join", "FM"), ("skip", "FM"), ("send", "FSSM")]:
        schedule = Schedule(weekend=weekend)  # type: ignore[arg-type]
        assert "".join(f"{day:%A}"[0] for day in days if schedule.chosen(day)) == expected
    assert [Schedule(every="week", days="6").chosen(day) for day in days] == [False, False, True, False]
    assert [Schedule(days="4").chosen(day) for day in days] == [True, False, False, False]


def test_a_week_is_an_iso_week() -> None:
    schedule = Schedule(every="week", days="2")
    assert slot(schedule, date(2024, 12, 30)).period == "2025-W01"
    assert slot(schedule, date(2021, 1, 1)).period == "2020-W53"
    # Whoever moves the day within a week that had its mail gets no second one: the period is the same.
    assert slot(Schedule(every="week", days="4"), date(2026, 3, 6)).period == slot(schedule, date(2026, 3, 4)).period


def test_a_reader_who_flies_west_has_one_mail_a_day() -> None:
    auckland, angeles = Schedule(zone="Pacific/Auckland"), Schedule(zone="America/Los_Angeles")
    now = datetime(2026, 3, 3, 20)
    assert latest(auckland, now).period == "2026-03-04" and latest(angeles, now).period == "2026-03-03"


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(zones()),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    st.times(),
    st.sampled_from(["join", "skip", "send"]),
    st.sets(st.sampled_from("01234"), min_size=1),
)
def test_the_last_and_the_next_slot_enclose_now(
    zone: str, now: datetime, at: object, weekend: str, days: set[str]
) -> None:
    schedule = Schedule(zone=zone, at=f"{at:%H:%M}", weekend=weekend, days="".join(sorted(days)))  # type: ignore[arg-type]
    before, after = latest(schedule, now), next_slot(schedule, now)
    assert before.moment <= now < after.moment and schedule.chosen(before.day) and schedule.chosen(after.day)
    local = before.moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    assert abs((local.replace(tzinfo=None) - datetime.combine(before.day, schedule.clock)).total_seconds()) <= 3 * 3600


def test_what_a_form_says() -> None:
    schedule = read_schedule(
        {"every": "day", "at": "07:05", "zone": "Europe/Berlin", "weekend": "skip"}, ["4", "0", "4"]
    )
    assert schedule == Schedule(days="04", at="07:05", zone="Europe/Berlin", weekend="skip")
    assert schedule.said() == "on Monday, Friday at 07:05 (Europe/Berlin)"
    assert read_schedule({"every": "week", "weekday": "6"}, []).said() == "every Sunday at 08:00 (UTC)"
    assert read_schedule({}, []).said() == "on weekdays at 08:00 (UTC)"
    assert read_schedule({"weekend": "send"}, []).said() == "every day at 08:00 (UTC)"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"every": "hour"}, "expected day or week"), ({"at": "24:00"}, "such as 08:00"), ({"at": "8"}, "such as 08:00"),
        ({"zone": "Europe/Berlim"}, "did you mean 'Europe/Berlin'"), ({"zone": "../../etc/passwd"}, "no time zone"),
        ({"weekend": "party"}, "one of join, skip, send"), ({"every": "week", "weekday": "7"}, "0 (Monday) to 6"),
    ],
)  # fmt: skip
def test_what_a_form_cannot_say(form: dict[str, str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_schedule(form, [])
    assert said in str(caught.value)
