"""When a cron expression says that it is time, above all where clocks are changed."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from waypost.core.cron import Cron, CronError
from waypost.core.policy import DAY, MINUTE

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
#: The days on which the clocks of a zone go forward, and back.
CHANGES = {
    BERLIN: ("2026-03-29", "2026-10-25"),
    NEW_YORK: ("2026-03-08", "2026-11-01"),
    # By half an hour.
    LORD_HOWE: ("2026-10-04", "2026-04-05"),
    # At midnight, so that a day begins at one.
    "Africa/Cairo": ("2026-04-24", "2026-10-30"),
}


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def occurrences(text: str, start_ms: int, end_ms: int) -> list[int]:
    cron, found, at = Cron(text), [], start_ms - 1
    while (following := cron.after(at)) is not None and following < end_ms:
        found.append(following)
        at = following
    return found


def on(day: str, zone: str, text: str) -> list[str]:
    """What the zone's clocks show, with their distance from UTC, at each occurrence of that day."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    start = int(midnight.timestamp() * 1000)
    shown = (
        datetime.fromtimestamp(at // 1000, ZoneInfo(zone))
        for at in occurrences(f"CRON_TZ={zone} {text}", start, start + 26 * 60 * MINUTE)
    )
    return [
        f"{at:%H:%M%z}"[:-2] if at.strftime("%z").endswith("00") else f"{at:%H:%M%z}"
        for at in shown
        if f"{at:%Y-%m-%d}" == day
    ]


@pytest.mark.parametrize(
    ("zone", "text", "expected"),
    [
        # Two o'clock is three: what was to be done in between is done at once.
        (BERLIN, "30 1 * * *", ["01:30+01"]),
        (BERLIN, "30 2 * * *", ["03:00+02"]),
        (BERLIN, "0,30 2 * * *", ["03:00+02"]),
        (BERLIN, "0 2,3 * * *", ["03:00+02"]),
        (BERLIN, "15 2,3 * * *", ["03:00+02", "03:15+02"]),
        (BERLIN, "0 4 * * *", ["04:00+02"]),
        (BERLIN, "30 2 29 3 *", ["03:00+02"]),
        # By the clock on the wall.
        (BERLIN, "* 2 * * *", []),
        (BERLIN, "*/30 2 * * *", []),
        (BERLIN, "30 */2 * * *", [f"{hour:02}:30+0{1 + (hour > 2)}" for hour in range(0, 24, 2) if hour != 2]),
        (NEW_YORK, "30 2 * * *", ["03:00-04"]),
        (NEW_YORK, "59 1 * * *", ["01:59-05"]),
        (NEW_YORK, "*/20 2 * * *", []),
        (LORD_HOWE, "0 2 * * *", ["02:30+11"]),
        (LORD_HOWE, "15 2 * * *", ["02:30+11"]),
        (LORD_HOWE, "45 2 * * *", ["02:45+11"]),
        (LORD_HOWE, "*/15 2 * * *", ["02:30+11", "02:45+11"]),
        (LORD_HOWE, "*/30 3 * * *", ["03:00+11", "03:30+11"]),
    ],
)
def test_where_clocks_go_forward(zone: str, text: str, expected: list[str]) -> None:
    assert on(CHANGES[zone][0], zone, text) == expected


@pytest.mark.parametrize(
    ("zone", "text", "expected"),
    [
        # Two o'clock comes twice: the first is meant.
        (BERLIN, "30 2 * * *", ["02:30+02"]),
        (BERLIN, "0,30 2,3 * * *", ["02:00+02", "02:30+02", "03:00+01", "03:30+01"]),
        (BERLIN, "30 1 * * *", ["01:30+02"]),
        # Twice.
        (BERLIN, "*/30 2 * * *", ["02:00+02", "02:30+02", "02:00+01", "02:30+01"]),
        (BERLIN, "0 */3 * * *", [f"{hour:02}:00+0{2 - (hour > 2)}" for hour in range(0, 24, 3)]),
        (BERLIN, "0 */2 * * *", ["00:00+02", "02:00+02", *(f"{hour:02}:00+01" for hour in range(2, 24, 2))]),
        (NEW_YORK, "30 1 * * *", ["01:30-04"]),
        (NEW_YORK, "*/30 1 * * *", ["01:00-04", "01:30-04", "01:00-05", "01:30-05"]),
        (LORD_HOWE, "45 1 * * *", ["01:45+11"]),
        (LORD_HOWE, "15 1 * * *", ["01:15+11"]),
        (LORD_HOWE, "*/15 1 * * *", ["01:00+11", "01:15+11", "01:30+11", "01:45+11", "01:30+1030", "01:45+1030"]),
    ],
)
def test_where_clocks_go_back(zone: str, text: str, expected: list[str]) -> None:
    assert on(CHANGES[zone][1], zone, text) == expected


WILDCARDS = ("* * * * *", "*/7 * * * *", "30 * * * *", "*/10 3 * * *", "* 1-2 * * *", "15 */2 * * *", "5 */4 * * 0,5")


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("text", WILDCARDS)
def test_a_job_at_any_minute_or_hour_runs_whenever_the_clock_shows_its_time(zone: str, text: str) -> None:
    fields = CronSim(text, datetime(2026, 1, 1))  # noqa: DTZ001 - what its sets say needs no zone
    for day in CHANGES[zone]:
        start = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(days=1)
        minutes = [start + timedelta(minutes=number) for number in range(2 * 24 * 60 + 180)]
        shown = [(minute, minute.astimezone(ZoneInfo(zone))) for minute in minutes]
        expected = [
            int(minute.timestamp()) * 1000
            for minute, at in shown
            if at.minute in fields.minutes and at.hour in fields.hours and fields.match_day(at.date())
        ]
        assert occurrences(f"CRON_TZ={zone} {text}", ms(f"{start:%Y-%m-%d}"), expected[-1] + 1) == expected


def test_the_most_recent_one_is_found_wherever_one_looks_from() -> None:
    rng = random.Random(5)
    for text in (*WILDCARDS, "30 2 * * *", "* 3 1 * *"):
        text = f"CRON_TZ={BERLIN} {text}"
        cron, start = Cron(text), ms("2026-10-01")
        all_of_them = occurrences(text, start, start + 40 * DAY)
        for _ in range(20):
            now = rng.randrange(all_of_them[0], all_of_them[-1])
            assert cron.latest(all_of_them[0], now) == max(at for at in all_of_them if at <= now)


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        (f"CRON_TZ={NEW_YORK}  @daily", f"CRON_TZ={NEW_YORK} 0 0 * * *"),
        ("0 0 * * SUN", "0 0 * * 7"),
        ("0 0 1 jan *", "0 0 1 1 *"),
        # In either of the two, where both are given; in both, where one begins with a star.
        ("0 0 13 * 5", "0 0 13 * FRI"),
        ("0 0 ? * 1", "0 0 * * 1"),
        # A range of one is one, whatever its step.
        ("2-2/7 0 * * *", "2 0 * * *"),
        ("1,2-2/7,30-50/10 0 * * MON-MON/2", "1,2,30,40,50 0 * * MON"),
    ],
)
def test_other_ways_to_say_it(text: str, same_as: str) -> None:
    start = ms("2026-01-01")
    found = occurrences(text, start, start + 800 * DAY)
    assert found
    assert found == occurrences(same_as, start, start + 800 * DAY)


def test_days_of_the_month_and_of_the_week() -> None:
    start = ms("2026-01-01")

    def days(text: str) -> list[str]:
        found = occurrences(text, start, start + 60 * DAY)
        return [f"{datetime.fromtimestamp(at // 1000, UTC):%m-%d}" for at in found]

    assert days("0 0 13 * 5") == sorted({"01-13", "02-13"} | {f"{d}" for d in days("0 0 * * 5")})
    assert days("0 0 */10 * 0") == ["01-11", "02-01", "03-01"], "both"
    assert days("0 0 L * *") == ["01-31", "02-28"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has 0 fields"),
        ("* * * *", "it has 4 fields"),
        ("0 * * * * *", "it has 6 fields"),
        ("@reboot", '"@reboot" is none of @yearly'),
        ("@every 5m", "is none of"),
        ("61 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("0 0 31 2 *", "bad day-of-month"),
        ("* * * * 8", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("5-1 * * * *", "bad minute"),
        ("a b c d e", "bad minute"),
        ("CRON_TZ=Europe/Berlin", "it has 1 field;"),
        ("CRON_TZ=Europe/Nowhere * * * * *", 'no time zone "Europe/Nowhere"'),
        ("CRON_TZ=Europe * * * * *", 'no time zone "Europe"'),
        ("CRON_TZ= * * * * *", 'no time zone ""'),
        ("CRON_TZ=../etc/passwd * * * * *", "no time zone"),
        ("CRON_TZ=/etc/localtime * * * * *", "no time zone"),
        ("CRON_TZ=right/Europe/Berlin * * * * *", "no time zone"),
        ("TZ=Europe/Berlin * * * * *", "it has 6 fields"),
    ],
)
def test_what_can_not_be_used_says_why(text: str, words: str) -> None:
    with pytest.raises(CronError) as wrong:
        Cron(text)
    assert words in str(wrong.value)


def test_a_time_that_never_comes() -> None:
    assert Cron("* * */20 * 1L").after(ms("2026-01-01")) is None
