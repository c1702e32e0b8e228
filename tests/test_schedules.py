"""Schedules, over the real core with a clock that tests move: bells ring when they are due, and the tick comes each
minute."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support import TWO, Desk, with_desk
from waypost.call import Reply
from waypost.core import limits
from waypost.core.look import Forget, Leave, Move, plan_errand
from waypost.core.policy import DAY, HOUR, MINUTE, SECOND, Policy
from waypost.core.ports import Answer, Bell, Busy, Put, Unavailable
from waypost.core.schedule import errand_of

URL = "https://example.com/in"
SCHEDULES = "/v2/schedules"
#: Noon of a Tuesday, as it happens.
NOON = 1_790_078_400_000
EACH_MINUTE = {"Upstash-Cron": "* * * * *"}


class Day:
    """Time that passes at a desk. Begins ten seconds before noon."""

    def __init__(self, desk: Desk, tick_at_ms: int = 7_000) -> None:
        self.desk = desk
        self.notes: list[str] = []
        self._bells: list[tuple[int, int, str]] = []
        self._number = 0
        desk.clock.ms = NOON - 10 * SECOND
        self._next_tick = NOON - MINUTE + tick_at_ms
        while self._next_tick < desk.clock.ms:
            self._next_tick += MINUTE

    async def until(self, ms: int, *, ticks: bool = True) -> None:
        """All that is due until then, including."""
        while True:
            self._take_bells()
            tick_ms = self._next_tick if ticks else ms + 1
            bell_ms = self._bells[0][0] if self._bells else ms + 1
            if min(tick_ms, bell_ms) > ms:
                self.desk.clock.ms = max(self.desk.clock.ms, ms)
                return
            self.desk.clock.ms = max(self.desk.clock.ms, min(tick_ms, bell_ms))
            if tick_ms <= bell_ms:
                self._next_tick += MINUTE
                await self.desk.service.look.tick()
            else:
                await self.hear(heapq.heappop(self._bells)[2])

    def skip_to(self, ms: int) -> None:
        """An outage: nobody hears a bell, no tick comes."""
        self._take_bells()
        self._bells = [bell for bell in self._bells if bell[0] > ms]
        self.desk.clock.ms = ms
        while self._next_tick < ms:
            self._next_tick += MINUTE

    def lose_bells(self) -> None:
        self.desk.rung.bells.clear()
        self._bells.clear()

    async def hear(self, ref: str) -> None:
        if self.desk.service.errands.know(ref):
            if note := await self.desk.service.errands.run(ref):
                self.notes.append(note)
        elif message := await self.desk.service.deliverer.find(ref):
            await self.desk.service.deliverer.deliver(message)

    def _take_bells(self) -> None:
        for bell in self.desk.rung.bells:
            self._number += 1
            heapq.heappush(self._bells, (self.desk.clock.ms + bell.delay_ms, self._number, bell.ref))
        self.desk.rung.bells.clear()


async def make(desk: Desk, headers: dict[str, str] | None = None, body: bytes = b"x", to: str = URL, **how: Any) -> str:
    reply = await desk.call("POST", f"{SCHEDULES}/{to}", {**EACH_MINUTE, **(headers or {})}, body, **how)
    assert reply.status == 201, reply
    return str(reply.content["scheduleId"])


async def read(desk: Desk, schedule_id: str) -> dict[str, Any]:
    reply = await desk.call("GET", f"{SCHEDULES}/{schedule_id}")
    assert reply.status == 200, reply
    return dict(reply.content)


async def told(desk: Desk, method: str, path: str) -> Reply:
    reply = await desk.call(method, f"{SCHEDULES}/{path}")
    assert reply.status < 300, reply
    return reply


def sent_to(desk: Desk) -> list[str]:
    return [one.url for one in desk.sender.sent]


def headers_of(desk: Desk, number: int = -1) -> dict[str, str]:
    return dict(desk.sender.sent[number].headers)


class Arrivals:
    """When requests were sent."""

    def __init__(self, desk: Desk) -> None:
        self.at: list[int] = []
        send = desk.sender.send

        async def noted(request: Any) -> Any:
            self.at.append(desk.clock.ms)
            return await send(request)

        desk.sender.send = noted  # type: ignore[method-assign]


# What a schedule says ------------------------------------------------------------------------------------------------


def test_a_schedule_is_read_as_it_was_made(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        Day(desk)
        given = {
            "Upstash-Cron": "  CRON_TZ=Europe/Berlin 30 9 * * 1-5 ",
            "Upstash-Schedule-Id": "Report.daily_1-a",
            "Upstash-Method": "PUT",
            "Upstash-Retries": "7",
            "Upstash-Retry-Delay": "1000 * (1 + retried)",
            "Upstash-Timeout": "20s",
            "Upstash-Delay": "1m30s",
            "Upstash-Label": "a, b",
            "Upstash-Forward-X": "y",
            "Upstash-Forward-Secret": "s",
            "Upstash-Redact-Fields": "header[Secret]",
            "Upstash-Callback": "https://example.com/done",
            "Upstash-Callback-Forward-Y": "z",
            "Upstash-Failure-Callback": "https://example.com/failed",
            "Content-Type": "text/plain",
        }
        assert await make(desk, given, b"hello", query="a=1&upstash-method=put") == "Report.daily_1-a"
        shape = await read(desk, "Report.daily_1-a")
        assert shape.pop("header").pop("Secret")[0].startswith("REDACTED:")
        assert shape == {
            "scheduleId": "Report.daily_1-a",
            "destination": f"{URL}?a=1",
            "cron": "CRON_TZ=Europe/Berlin 30 9 * * 1-5",
            "createdAt": NOON - 10 * SECOND,
            "isPaused": False,
            "callerIP": "192.0.2.7",
            "callerIp": "192.0.2.7",
            "method": "PUT",
            "retries": 7,
            "retryDelayExpression": "1000 * (1 + retried)",
            "timeout": 20_000,
            "delay": 90,
            "label": "a",
            "labels": ["a", "b"],
            "body": "hello",
            "callback": "https://example.com/done",
            # It tells of what is hidden.
            "callbackHeader": {"Y": ["z"]},
            "failureCallback": "https://example.com/failed",
            "failureCallbackHeader": {},
            # Tomorrow at half past seven, in Greenwich.
            "nextScheduleTime": NOON + (19 * 60 + 30) * MINUTE,
        }
        [listed] = (await desk.call("GET", SCHEDULES)).content
        assert listed == await read(desk, "Report.daily_1-a")

    with_desk(tmp_path, test)


def test_ids_are_drawn_and_lists_are_in_order(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        first = await make(desk)
        await day.until(NOON - 5 * SECOND)
        second = await make(desk)
        assert first != second
        assert first.startswith("scd_")
        assert [one["scheduleId"] for one in (await desk.call("GET", SCHEDULES)).content] == [first, second]

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Upstash-Cron": ""}, ["Upstash-Cron is missing"]),
        ({"Upstash-Cron": "* * * *"}, ["Upstash-Cron", "4 fields"]),
        ({"Upstash-Cron": "@reboot"}, ["Upstash-Cron", "@reboot", "@daily"]),
        ({"Upstash-Cron": "CRON_TZ=Moon/Sea * * * * *"}, ["Upstash-Cron", "Moon/Sea", "Area/City"]),
        ({"Upstash-Cron": "0 0 30 2 *"}, ["Upstash-Cron", "day-of-month"]),
        ({"Upstash-Cron": "* * */20 * 1L"}, ["Upstash-Cron", "never comes"]),
        ({"Upstash-Cron": "*" + " " * 300 + "* * * *"}, ["Upstash-Cron", "longer than 256"]),
        ({"Upstash-Schedule-Id": "a b"}, ["Upstash-Schedule-Id", "letters, digits"]),
        ({"Upstash-Schedule-Id": "a/b"}, ["Upstash-Schedule-Id", "letters, digits"]),
        ({"Upstash-Schedule-Id": "a" * 257}, ["Upstash-Schedule-Id", "256"]),
        ({"Upstash-Not-Before": "1790000000"}, ["Upstash-Not-Before", "a schedule can have"]),
        ({"Upstash-Deduplication-Id": "x"}, ["Upstash-Deduplication-Id", "a schedule can have"]),
        ({"Upstash-Content-Based-Deduplication": "true"}, ["Upstash-Content-Based-Deduplication"]),
        ({"Upstash-Queue-Name": "a b"}, ["Upstash-Queue-Name", '"a b"']),
        ({"Upstash-Queue-Name": "q", "Upstash-Flow-Control-Key": "k"}, ["Upstash-Flow-Control-Key", 'queue "q"']),
        (
            {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=0"},
            ["Upstash-Flow-Control-Value", "rate=0"],
        ),
        ({"Upstash-Retries": "many"}, ["Upstash-Retries", "many"]),
        ({"Upstash-Callback-Schedule-Id": "x", "Upstash-Callback": URL}, ["Upstash-Callback-Schedule-Id"]),
    ],
)
def test_what_can_not_be_used_is_named_and_nothing_is_stored(
    tmp_path: Path, headers: dict[str, str], words: list[str]
) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", f"{SCHEDULES}/{URL}", {**EACH_MINUTE, **headers})
        assert reply.status == 400
        for word in words:
            assert word in reply.content["error"]
        assert (await desk.call("GET", SCHEDULES)).content == []

    with_desk(tmp_path, test)


def test_settings_may_stand_in_the_query(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", f"{SCHEDULES}/{URL}", query="upstash-cron=0+4+*+*+*&upstash-schedule-id=q&b=2")
        assert reply.content == {"scheduleId": "q"}
        shape = await read(desk, "q")
        assert (shape["cron"], shape["destination"]) == ("0 4 * * *", f"{URL}?b=2")

    with_desk(tmp_path, test)


def test_an_id_that_is_given_again_replaces_the_whole_definition(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        await make(desk, {"Upstash-Schedule-Id": "s", "Upstash-Retries": "7", "Upstash-Label": "old"}, b"old")
        await day.until(NOON)
        await make(desk, {"Upstash-Schedule-Id": "s", "Upstash-Cron": "0 13 * * *"}, b"", to=f"{URL}/new")
        [shape] = (await desk.call("GET", SCHEDULES)).content
        assert (shape["destination"], shape["body"], shape["retries"]) == (f"{URL}/new", "", 3)
        assert "labels" not in shape
        assert (shape["createdAt"], shape["nextScheduleTime"]) == (NOON - 10 * SECOND, NOON + HOUR)
        assert shape["lastScheduleTime"] == NOON, "what it did is no part of what it is to do"
        await day.until(NOON + HOUR)
        assert sent_to(desk) == [URL, f"{URL}/new"]

    with_desk(tmp_path, test)


def test_nobody_elses_schedules_are_seen_or_touched(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        await make(desk, {"Upstash-Schedule-Id": "s"})
        assert (await desk.call("GET", SCHEDULES, token=TWO.token)).content == []
        for method, path in (
            ("GET", "s"),
            ("DELETE", "s"),
            ("PATCH", "s/pause"),
            ("POST", "s/resume"),
            ("POST", "s/run"),
        ):
            theirs = await desk.call(method, f"{SCHEDULES}/{path}", token=TWO.token)
            unknown = await desk.call(method, f"{SCHEDULES}/{path.replace('s', 'u', 1)}", token=TWO.token)
            assert theirs.status == unknown.status == 404
            assert theirs.content["error"].replace('"s"', '"u"') == unknown.content["error"]
        await make(desk, {"Upstash-Schedule-Id": "s"}, b"theirs", token=TWO.token)
        await day.until(NOON)
        assert sorted(one.body for one in desk.sender.sent) == [b"theirs", b"x"]

    with_desk(tmp_path, test)


# Firing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tick_at_s", [0, 7, 59])
def test_each_occurrence_is_a_message_to_the_second(tmp_path: Path, tick_at_s: int) -> None:
    async def test(desk: Desk) -> None:
        day, arrivals = Day(desk, tick_at_s * SECOND), Arrivals(desk)
        schedule_id = await make(desk, {"Upstash-Forward-X": "y"}, b"hello")
        await day.until(NOON + 10 * MINUTE)
        assert arrivals.at == [NOON + number * MINUTE for number in range(11)]
        assert len({headers_of(desk, number)["Upstash-Message-Id"] for number in range(11)}) == 11
        headers = headers_of(desk)
        assert (headers["Upstash-Schedule-Id"], headers["Upstash-Caller-Ip"]) == (schedule_id, "192.0.2.7")
        assert (headers["X"], desk.sender.sent[-1].body) == ("y", b"hello")
        assert day.notes == []
        shape = await read(desk, schedule_id)
        assert (shape["lastScheduleTime"], shape["nextScheduleTime"]) == (NOON + 10 * MINUTE, NOON + 11 * MINUTE)
        assert shape["lastScheduleStates"] == {headers["Upstash-Message-Id"]: "SUCCESS"}

    with_desk(tmp_path, test)


def test_bells_do_not_become_more_as_time_goes_by(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        await make(desk)
        heard: list[str] = []
        hear = day.hear

        async def counted(ref: str) -> None:
            heard.append(ref)
            await hear(ref)

        day.hear = counted  # type: ignore[method-assign]
        await day.until(NOON + 30 * MINUTE)
        first = len(heard)
        await day.until(NOON + 60 * MINUTE)
        assert len(heard) - first <= first < 30 * 6

    with_desk(tmp_path, test)


def test_whoever_makes_one_rings_for_the_second_and_so_does_the_tick(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        schedule_id = await make(desk, {"Upstash-Cron": "3 12 * * *"})
        ref = f"one#{errand_of(schedule_id)}"
        assert desk.rung.bells == [Bell(ref, 190 * SECOND)]
        day.lose_bells()
        await day.until(NOON + 20 * SECOND)
        assert desk.rung.bells == [], "it is too far ahead for the tick"
        desk.clock.ms = NOON + 67 * SECOND
        await desk.service.look.tick()
        assert desk.rung.bells == [Bell(ref, 113 * SECOND)]
        await make(desk, {"Upstash-Cron": "0 13 * * *"})
        assert len(desk.rung.bells) == 1, "no bell is carried so far"

    with_desk(tmp_path, test)


def test_a_lost_bell_costs_a_tick(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day, arrivals = Day(desk), Arrivals(desk)
        await make(desk, {"Upstash-Cron": "0 12 * * *"})
        day.lose_bells()
        await day.until(NOON + 5 * MINUTE)
        assert arrivals.at == [NOON + 7 * SECOND]

    with_desk(tmp_path, test)


@pytest.mark.parametrize("early_ms", [1_000, 900, 10])
def test_a_change_holds_although_the_bell_is_being_heard(tmp_path: Path, early_ms: int) -> None:
    """The bell comes early, and waits in the worker; what stands when the time has come counts."""

    async def test(desk: Desk) -> None:
        Day(desk)
        for name in ("edited", "paused", "deleted"):
            await make(desk, {"Upstash-Schedule-Id": name}, name.encode())
        desk.clock.ms = NOON - early_ms
        sleep = desk.clock.sleep_ms
        changed: list[Any] = []

        async def meanwhile(ms: int) -> None:
            if not changed:
                changed.append(await make(desk, {"Upstash-Schedule-Id": "edited"}, b"new"))
                changed.append(await told(desk, "PATCH", "paused/pause"))
                changed.append(await told(desk, "DELETE", "deleted"))
            await sleep(ms)

        desk.clock.sleep_ms = meanwhile  # type: ignore[method-assign]
        for name in ("edited", "paused", "deleted"):
            await desk.service.errands.run(f"one#{errand_of(name)}")
        desk.rung.bells = [bell for bell in desk.rung.bells if bell.ref.startswith("one#msg_")]
        await desk.deliver()
        assert [one.body for one in desk.sender.sent] == [b"new"]

    with_desk(tmp_path, test)


def test_a_bell_that_is_much_too_early_does_nothing(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        schedule_id = await make(desk, {"Upstash-Cron": "30 12 * * *"})
        day.lose_bells()
        await day.hear(f"one#{errand_of(schedule_id)}")
        assert desk.rung.bells == []
        assert desk.clock.ms == NOON - 10 * SECOND

    with_desk(tmp_path, test)


def test_a_delay_is_each_messages(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day, arrivals = Day(desk), Arrivals(desk)
        await make(desk, {"Upstash-Delay": "90s"})
        await day.until(NOON + 3 * MINUTE)
        assert arrivals.at == [NOON + 90 * SECOND, NOON + 150 * SECOND]

    with_desk(tmp_path, test)


def test_after_an_outage_the_most_recent_occurrence_comes_late_and_the_operator_is_told_of_the_others(
    tmp_path: Path,
) -> None:
    async def test(desk: Desk) -> None:
        day, arrivals = Day(desk), Arrivals(desk)
        schedule_id = await make(desk, {"Upstash-Cron": "*/10 * * * *"})
        await day.until(NOON)
        back = NOON + 35 * MINUTE + 4 * SECOND
        day.skip_to(back)
        await desk.service.look.recover()
        await day.until(NOON + 50 * MINUTE)
        assert arrivals.at == [NOON, back, NOON + 40 * MINUTE, NOON + 50 * MINUTE]
        [note] = day.notes
        assert f"{schedule_id} skipped its occurrences from 2026-09-22T12:10:00Z to before 2026-09-22T12:30:00Z" in note

    with_desk(tmp_path, test)


def test_an_outage_over_one_occurrence_skips_none(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day, arrivals = Day(desk), Arrivals(desk)
        await make(desk, {"Upstash-Cron": "0 12 * * *"})
        day.skip_to(NOON + 2 * DAY - HOUR)
        await day.until(NOON + 2 * DAY)
        assert len(arrivals.at) == 2
        assert day.notes[0].count("skipped") == 1
        day.notes.clear()
        day.skip_to(NOON + 3 * DAY + 5 * MINUTE)
        await day.until(NOON + 3 * DAY + 7 * MINUTE)
        assert len(arrivals.at) == 3
        assert day.notes == []

    with_desk(tmp_path, test)


@pytest.mark.parametrize("written_ms", [900, 3_000])
def test_an_edit_does_not_take_the_place_of_an_occurrence_that_is_due(tmp_path: Path, written_ms: int) -> None:
    """A deploy that makes its schedules anew may meet one whose bell is a little late."""

    async def test(desk: Desk) -> None:
        day = Day(desk)
        await make(desk, {"Upstash-Schedule-Id": "s", "Upstash-Cron": "0 12 * * *"}, b"old")
        day.skip_to(NOON + written_ms)
        await make(desk, {"Upstash-Schedule-Id": "s", "Upstash-Cron": "0 12 * * *"}, b"new")
        await day.until(NOON + DAY)
        assert [one.body for one in desk.sender.sent] == [b"new", b"new"]

    with_desk(tmp_path, test)


def test_a_thousand_that_are_due_at_once_make_one_message_each_though_ticks_come_twice_and_one_dies(
    tmp_path: Path,
) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        for number in range(1_000):
            await make(desk, {"Upstash-Schedule-Id": f"s{number}", "Upstash-Cron": "0 12 * * *"}, str(number).encode())
        day.lose_bells()
        desk.clock.ms = NOON - 2 * SECOND
        write_many, calls = desk.table.write_many, Counter[str]()

        async def killed_half_way(writes: Any) -> None:
            calls["write_many"] += 1
            if calls["write_many"] == 10:
                raise asyncio.CancelledError
            await write_many(writes)

        desk.table.write_many = killed_half_way  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await desk.service.look.tick()
        desk.table.write_many = write_many  # type: ignore[method-assign]
        await asyncio.gather(desk.service.look.tick(), desk.service.look.tick())
        bells = [bell.ref for bell in desk.rung.bells]
        assert len(set(bells)) == 1_000
        desk.rung.bells.clear()
        # Twice, and at once.
        await asyncio.gather(*(day.hear(ref) for ref in [*bells, *set(bells)]))
        await day.until(NOON + 40 * MINUTE)
        assert Counter(one.body for one in desk.sender.sent) == {str(number).encode(): 1 for number in range(1_000)}

    with_desk(tmp_path, test)


@pytest.mark.parametrize("fails", ["D", "M", "schedule"])
def test_whoever_dies_while_firing_leaves_the_rest_to_the_next(tmp_path: Path, fails: str) -> None:
    """The store is gone at one of the writes, and comes back."""

    async def test(desk: Desk) -> None:
        day = Day(desk)
        await make(desk, {"Upstash-Cron": "0 12 * * *"})
        await day.until(NOON - 1)
        part = {"D": "#dedup#", "M": "m#", "schedule": "#schedules"}[fails]
        desk.table.busy = lambda one: part in one.key.pk
        desk.clock.ms = NOON
        name = errand_of((await desk.call("GET", SCHEDULES)).content[0]["scheduleId"])
        with pytest.raises((Busy, Unavailable)):
            await desk.service.errands.run(f"one#{name}")
        desk.table.busy = lambda one: False
        await day.until(NOON + 20 * MINUTE)
        assert len(desk.sender.sent) == 1

    with_desk(tmp_path, test)


# Groups, and what goes wrong -----------------------------------------------------------------------------------------


async def group(desk: Desk, *urls: str) -> None:
    body = json.dumps({"endpoints": [{"url": url, "name": url[-1]} for url in urls]}).encode()
    assert (await desk.call("POST", "/v2/topics/g/endpoints", body=body)).status == 200


def test_a_group_gets_a_message_for_each_endpoint_that_it_has_then(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        await group(desk, f"{URL}/a")
        defaults = {"Upstash-Retries": "0", "Upstash-Label": "of-g", "Upstash-Content-Based-Deduplication": "true"}
        await desk.call("PATCH", "/v2/topics/g", body=json.dumps({"headers": defaults}).encode())
        schedule_id = await make(desk, {"Upstash-Label": "own"}, to="g")
        shape = await read(desk, schedule_id)
        assert (shape["destination"], shape["retries"], shape["labels"]) == ("g", 0, ["own"])
        await group(desk, f"{URL}/b")
        desk.sender.answers = [Answer(500, (), b"")]
        await day.until(NOON)
        assert sorted(sent_to(desk)) == [f"{URL}/a", f"{URL}/b"]
        headers = headers_of(desk)
        assert (headers["Upstash-Topic-Name"], headers["Upstash-Schedule-Id"]) == ("g", schedule_id)
        assert sorted((await read(desk, schedule_id))["lastScheduleStates"].values()) == ["FAIL", "SUCCESS"]
        letters = (await desk.call("GET", "/v2/dlq", query=f"scheduleId={schedule_id}")).content["messages"]
        assert [(one["scheduleId"], one["topicName"]) for one in letters] == [(schedule_id, "g")]

    with_desk(tmp_path, test)


def test_a_firing_that_cannot_be_says_why_and_the_next_goes_on(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        await group(desk, f"{URL}/a")
        schedule_id = await make(desk, to="g")
        await desk.call("DELETE", "/v2/topics/g")
        await day.until(NOON)
        shape = await read(desk, schedule_id)
        assert 'no URL group "g"' in shape["error"]
        assert shape["lastScheduleStates"] == {}
        assert shape["nextScheduleTime"] == NOON + MINUTE
        assert "was not fired at 2026-09-22T12:00:00Z" in day.notes[0]
        assert (await desk.call("POST", f"{SCHEDULES}/{schedule_id}/run")).status == 404
        await group(desk, f"{URL}/a")
        await day.until(NOON + MINUTE)
        assert sent_to(desk) == [f"{URL}/a"]
        assert "error" not in await read(desk, schedule_id)

    with_desk(tmp_path, test)


def test_messages_are_found_by_their_schedule(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        one = await make(desk, {"Upstash-Callback": "https://example.com/done", "Upstash-Delay": "1h"})
        await make(desk, {"Upstash-Delay": "1h"})
        await day.until(NOON)
        events = json.loads((await desk.call("GET", "/v2/logs", query=f"scheduleId={one}")).body())["logs"]
        assert [event["scheduleId"] for event in events] == [one]
        assert (await desk.seen(events[0]["messageId"]))["scheduleId"] == one
        assert (await desk.call("DELETE", "/v2/messages", query=f"scheduleId={one}")).content["cancelled"] == 1
        shape = await read(desk, one)
        assert shape["lastScheduleStates"] == {events[0]["messageId"]: "FAIL"}

    with_desk(tmp_path, test)


def test_callbacks_tell_of_the_schedule(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        schedule_id = await make(desk, {"Upstash-Callback": "https://example.com/done"})
        await day.until(NOON)
        assert json.loads(desk.sender.sent[1].body)["scheduleId"] == schedule_id
        assert "Upstash-Schedule-Id" not in headers_of(desk, 1)

    with_desk(tmp_path, test)


# Pause, resume, run, delete ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_what_is_missed_while_it_is_paused_is_skipped(tmp_path: Path, method: str) -> None:
    async def test(desk: Desk) -> None:
        day, arrivals = Day(desk), Arrivals(desk)
        schedule_id = await make(desk)
        await day.until(NOON + 59 * SECOND)
        for _ in range(2):
            await told(desk, method, f"{schedule_id}/pause")
        shape = await read(desk, schedule_id)
        assert shape["isPaused"] is True
        assert "nextScheduleTime" not in shape
        await day.until(NOON + 45 * MINUTE + 30 * SECOND)
        for _ in range(2):
            await told(desk, method, f"{schedule_id}/resume")
        assert (await read(desk, schedule_id))["isPaused"] is False
        await day.until(NOON + 47 * MINUTE)
        assert arrivals.at == [NOON, NOON + 46 * MINUTE, NOON + 47 * MINUTE]
        assert day.notes == []

    with_desk(tmp_path, test)


def test_what_is_replaced_stays_paused(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        schedule_id = await make(desk)
        await told(desk, "PATCH", f"{schedule_id}/pause")
        await make(desk, {"Upstash-Schedule-Id": schedule_id}, b"new")
        await day.until(NOON + 5 * MINUTE)
        assert desk.sender.sent == []
        await told(desk, "PATCH", f"{schedule_id}/resume")
        await day.until(NOON + 6 * MINUTE)
        assert [one.body for one in desk.sender.sent] == [b"new"]

    with_desk(tmp_path, test)


def test_a_run_publishes_at_once_and_changes_nothing(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        schedule_id = await make(desk, {"Upstash-Cron": "0 13 * * *"})
        before = await read(desk, schedule_id)
        await told(desk, "PATCH", f"{schedule_id}/pause")
        answers = [(await told(desk, "POST", f"{schedule_id}/run")).content["messageId"] for _ in range(2)]
        assert len(set(answers)) == 2
        await told(desk, "PATCH", f"{schedule_id}/resume")
        assert await read(desk, schedule_id) == before
        await day.until(NOON)
        assert [headers_of(desk, number)["Upstash-Message-Id"] for number in (0, 1)] == answers
        assert headers_of(desk)["Upstash-Schedule-Id"] == schedule_id
        await group(desk, f"{URL}/a", f"{URL}/b")
        of_group = await make(desk, {"Upstash-Cron": "0 13 * * *"}, to="g")
        reply = await told(desk, "POST", f"{of_group}/run")
        assert [one["url"] for one in reply.content] == [f"{URL}/a", f"{URL}/b"]

    with_desk(tmp_path, test)


def test_a_deleted_one_is_unknown_and_its_messages_are_delivered(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        schedule_id = await make(desk, {"Upstash-Delay": "30s"})
        await day.until(NOON)
        await told(desk, "DELETE", schedule_id)
        for method in ("GET", "DELETE"):
            reply = await desk.call(method, f"{SCHEDULES}/{schedule_id}")
            assert reply.status == 404
            assert schedule_id in reply.content["error"]
        await day.until(NOON + 5 * MINUTE)
        assert len(desk.sender.sent) == 1
        await make(desk, {"Upstash-Schedule-Id": schedule_id})
        await day.until(NOON + 7 * MINUTE)
        assert len(desk.sender.sent) == 3, "it is a new one"

    with_desk(tmp_path, test)


# Large bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paused", [False, True])
def test_a_large_body_lives_as_long_as_its_schedule(tmp_path: Path, paused: bool) -> None:
    async def test(desk: Desk) -> None:
        Day(desk)
        body = bytes(number * 31 % 251 for number in range(40_000)) * 2
        schedule_id = await make(desk, {"Upstash-Cron": "0 0 29 2 *"}, body)
        assert "body" not in (await desk.call("GET", SCHEDULES)).content[0]
        if paused:
            await told(desk, "PATCH", f"{schedule_id}/pause")
        # Four years: a tick each week, and what is dropped by age.
        for _ in range(4 * 52):
            desk.clock.ms += 7 * DAY
            # No message lies in the minutes between.
            await desk.table.write(Put({"pk": "cursor", "sk": "look", "v": 1, "minute": desk.clock.ms // MINUTE - 3}))
            desk.rung.bells.clear()
            await desk.service.look.tick()
            for bell in desk.rung.bells:
                if desk.service.errands.know(bell.ref):
                    await desk.service.errands.run(bell.ref)
            await desk.blobs.expire(datetime.fromtimestamp(desk.clock.ms / 1000, UTC).date())
        reply = await told(desk, "POST", f"{schedule_id}/run")
        message = await desk.seen(reply.content["messageId"])
        assert len(message.get("body") or message["bodyBase64"]) >= len(body)

    with_desk(tmp_path, test)


def test_a_body_that_is_gone_is_told_and_does_not_hold_up_the_next(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        schedule_id = await make(desk, body=bytes(range(256)) * 100)

        async def nothing(name: str) -> None:
            pass

        desk.blobs.get = nothing  # type: ignore[method-assign,assignment]
        await day.until(NOON)
        shape = await read(desk, schedule_id)
        assert "missing from the blob store" in shape["error"]
        assert shape["nextScheduleTime"] == NOON + MINUTE
        assert (await desk.call("POST", f"{SCHEDULES}/{schedule_id}/run")).status == 409

    with_desk(tmp_path, test, policy=replace(Policy(), compress_from=10**9))


def test_a_list_has_so_many_bytes_of_bodies_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SCHEDULE_BODIES", 2_500)

    async def test(desk: Desk) -> None:
        for _ in range(3):
            await make(desk, body=b"x" * 1_000)
        listed = (await desk.call("GET", SCHEDULES)).content
        assert ["body" in one for one in listed].count(True) == 2

    with_desk(tmp_path, test)


def test_what_is_redacted_is_hidden_and_sent_as_it_is(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        day = Day(desk)
        schedule_id = await make(desk, {"Upstash-Redact-Fields": "body"}, b"secret")
        assert (await read(desk, schedule_id))["body"].startswith("REDACTED:")
        await day.until(NOON)
        assert desk.sender.sent[0].body == b"secret"

    with_desk(tmp_path, test)


# Reminders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wake_s", "at_s", "plan"),
    [
        # Nothing to do, as far as was read: whoever writes the reminder first may not have come further.
        (None, 1, Leave()),
        (None, 0, Forget()),
        (None, -5, Forget()),
        # Later than the reminder is: likewise.
        (400, 1, Leave()),
        (400, 0, Move(400_000, None)),
        # Earlier than the reminder, and too far ahead to be rung: the reminder does not go back.
        (160, 170, Leave()),
        # Within two ticks and a half: rung, and looked at again after that.
        (150, 140, Move(270_000, 150_000)),
        (0, 0, Move(360_000, 0)),
    ],
)
def test_what_becomes_of_an_errands_reminder(wake_s: int | None, at_s: int, plan: Any) -> None:
    now = NOON
    found = plan_errand(None if wake_s is None else now + wake_s * SECOND, at_ms=now + at_s * SECOND, now_ms=now)
    expected = replace(plan, to_ms=now + plan.to_ms) if isinstance(plan, Move) else plan
    assert found == expected


def test_what_is_resumed_while_the_tick_looks_is_not_forgotten(tmp_path: Path) -> None:
    """The tick reads that it is paused, then it is resumed, and the bell of that is lost."""

    async def test(desk: Desk) -> None:
        day = Day(desk)
        schedule_id = await make(desk, {"Upstash-Cron": "1 12 * * *"})
        await told(desk, "PATCH", f"{schedule_id}/pause")
        wake_at = desk.service.errands.wake_at

        async def slowly(ref: str) -> int | None:
            wake = await wake_at(ref)
            await told(desk, "PATCH", f"{schedule_id}/resume")
            return wake

        desk.service.errands.wake_at = slowly  # type: ignore[method-assign]
        await desk.service.look.tick()
        desk.service.errands.wake_at = wake_at  # type: ignore[method-assign]
        day.lose_bells()
        await day.until(NOON + 10 * MINUTE)
        assert len(desk.sender.sent) == 1

    with_desk(tmp_path, test)
