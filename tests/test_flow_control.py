"""Flow-control keys over the real core, with a clock that tests move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import NOW_MS, TWO, Desk, with_desk
from test_queues import URL, sent
from waypost.core import limits
from waypost.core.flow_control import LimitsError, read_limits
from waypost.core.policy import DAY, HOUR, MINUTE, SECOND
from waypost.core.ports import Answer
from waypost.core.terms import Limits

KEY = "/v2/flowControl/k"


def under_key(value: str = "", key: str = "k") -> dict[str, str]:
    return {"Upstash-Flow-Control-Key": key, "Upstash-Flow-Control-Value": value}


async def key(desk: Desk, name: str = "k") -> dict[str, Any]:
    reply = await desk.call("GET", f"/v2/flowControl/{name}")
    assert reply.status == 200, reply
    return dict(reply.content)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("parallelism=2", Limits(2, 0, SECOND)),
        ("rate=10", Limits(0, 10, SECOND)),
        ("parallelism=2, rate=1, period=1m", Limits(2, 1, MINUTE)),
        ("period=3d5h12m,rate=1", Limits(0, 1, 3 * DAY + 5 * HOUR + 12 * MINUTE)),
        ("rate=1,period=60", Limits(0, 1, MINUTE)),
        (" rate = 1 ,\tperiod=7d", Limits(0, 1, 7 * DAY)),
    ],
)
def test_limits(text: str, wanted: Limits) -> None:
    assert read_limits(text) == wanted


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("period=1m", "neither parallelism nor rate"),
        ("rate=0", "rate=0"),
        ("parallelism=-1", "parallelism=-1"),
        ("rate=1,period=8d", "period=8d"),
        ("rate=1,period=0s", "period=0s"),
        ("rate=1,rate=2", "rate is given twice"),
        ("speed=1", "speed=1"),
        ("parallelism=1000000", "parallelism=1000000"),
    ],
)
def test_what_is_no_limits(text: str, named: str) -> None:
    with pytest.raises(LimitsError, match=named):
        read_limits(text)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        for path, headers, named in (
            (f"/v2/publish/{URL}", under_key("rate=x"), "Upstash-Flow-Control-Value"),
            (f"/v2/publish/{URL}", {"Upstash-Flow-Control-Value": "rate=1"}, "Upstash-Flow-Control-Key"),
            (f"/v2/publish/{URL}", under_key("rate=1", "k" * 2_000), "Upstash-Flow-Control-Key"),
            (f"/v2/enqueue/q/{URL}", under_key("rate=1"), "queue"),
            (f"/v2/publish/{URL}", {"Upstash-Queue-Name": "q"}, "/v2/enqueue/"),
        ):
            reply = await desk.call("POST", path, headers, b"x")
            assert (reply.status, named in reply.content["error"]) == (400, True), reply

    with_desk(tmp_path, test)


def test_a_rate_opens_a_window_at_a_time(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(under_key("rate=2,period=10s")) for _ in range(5)]
        now = await key(desk)
        assert (now["waitListSize"], now["rateMax"], now["rateCount"], now["ratePeriod"]) == (3, 2, 2, 10)
        assert now["ratePeriodStart"] == NOW_MS // 1000
        assert (await desk.seen(ids[2]))["waiting"].startswith("the rate window of key k opens at 2")
        assert (await desk.seen(ids[4]))["waiting"] == "behind 4 in key k"
        assert await sent(desk) == ids
        windows = [(await desk.seen(one))["rateWindows"] for one in ids]
        assert windows == [[NOW_MS]] * 2 + [[NOW_MS + 10_000]] * 2 + [[NOW_MS + 20_000]]

    with_desk(tmp_path, test)


def test_an_attempt_that_fails_takes_its_turn_again_and_burns_nothing_while_it_waits(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        first, second = [await desk.publish(under_key("parallelism=1")) for _ in range(2)]
        desk.sender.answers = [Answer(500, (), b"")]
        assert await sent(desk) == [first, second, first]
        assert ((await desk.seen(first))["retried"], (await desk.seen(second))["retried"]) == (1, 0)

    with_desk(tmp_path, test)


def test_the_newest_messages_limits_count_until_they_are_pinned(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        assert (await desk.call("GET", KEY)).status == 404
        await desk.publish(under_key("parallelism=2"))
        await desk.publish(under_key("rate=7,period=1m"))
        assert ((await key(desk))["parallelismMax"], (await key(desk))["rateMax"]) == (0, 7)
        await desk.publish(under_key())
        assert (await key(desk))["rateMax"] == 7, "a key alone changes nothing"
        pinned = await desk.call("POST", f"{KEY}/pin", query="parallelism=4")
        assert pinned.status == 200
        await desk.publish(under_key("parallelism=9,rate=8"))
        found = await key(desk)
        assert (found["parallelismMax"], found["rateMax"]) == (4, 8)
        assert (found["isPinnedParallelism"], found["isPinnedRate"]) == (True, False)
        await desk.call("POST", f"{KEY}/unpin", query="parallelism=true")
        assert (await key(desk))["parallelismMax"] == 4
        await desk.publish(under_key("parallelism=9"))
        assert (await key(desk))["parallelismMax"] == 9

    with_desk(tmp_path, test)


def test_a_key_is_paused_and_its_rate_is_reset(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.call("POST", f"{KEY}/pin", query="rate=1&period=3600")
        first, second = [await desk.publish(under_key()) for _ in range(2)]
        assert await sent_until_the_window_ends(desk) == [first]
        await desk.call("POST", f"{KEY}/pause")
        await desk.call("POST", f"{KEY}/resetRate")
        assert await sent_until_the_window_ends(desk) == []
        assert (await desk.seen(second))["waiting"].startswith("key k is paused since 2")
        await desk.call("POST", f"{KEY}/resume")
        assert await sent_until_the_window_ends(desk) == [second]
        for what in ("pause", "resume", "resetRate", "unpin"):
            assert (await desk.call("POST", f"/v2/flowControl/other/{what}", query="")).status == 404

    with_desk(tmp_path, test)


async def sent_until_the_window_ends(desk: Desk) -> list[str]:
    before = len(desk.sender.sent)
    while any(not delay_ms for _, delay_ms, _ in desk.rung.bells):
        later = [bell for bell in desk.rung.bells if bell[1]]
        desk.rung.bells = [bell for bell in desk.rung.bells if not bell[1]]
        await desk.deliver()
        desk.rung.bells += later
    return [dict(one.headers)["Upstash-Message-Id"] for one in desk.sender.sent[before:]]


def test_keys_are_listed_and_searched_and_apart(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        for name in ("tenant/1", "tenant/2", "other"):
            await desk.publish(under_key("parallelism=5", name))
        listed = json.loads((await desk.call("GET", "/v2/flowControl", query="search=tenant")).body())
        assert [one["flowControlKey"] for one in listed] == ["tenant/1", "tenant/2"]
        assert (await key(desk, "tenant/1"))["parallelismCount"] == 1
        together = (await desk.call("GET", "/v2/globalParallelism")).content
        assert together == {"parallelismMax": 15, "parallelismCount": 3}
        assert (await desk.call("GET", "/v2/flowControl/other", token=TWO.token)).status == 404
        assert json.loads((await desk.call("GET", "/v2/flowControl", token=TWO.token)).body()) == []

    with_desk(tmp_path, test)


def test_callbacks_have_keys_of_their_own(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish(
            {
                "Upstash-Callback": "https://c.example.com/done",
                "Upstash-Callback-Flow-Control-Key": "told",
                "Upstash-Callback-Flow-Control-Value": "parallelism=1",
            }
        )
        while await desk.deliver():
            pass
        assert [one.url for one in desk.sender.sent][1:] == ["https://c.example.com/done"]
        assert (await key(desk, "told"))["parallelismMax"] == 1

    with_desk(tmp_path, test)


def test_messages_of_a_key_are_cancelled_together(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.call("POST", f"{KEY}/pin", query="parallelism=1")
        await desk.call("POST", f"{KEY}/pause")
        for name in ("k", "k", "other"):
            await desk.publish(under_key("parallelism=1", name))
        cancelled = await desk.call("DELETE", "/v2/messages", query="flowControlKey=k&count=100")
        assert cancelled.content["cancelled"] == 2
        assert (await key(desk))["waitListSize"] == 0

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", {}),
        ("parallelism=3", {"parallelism": 3, "period": 1}),
        ("rate=23, period=1h30m3s", {"rate": 23, "period": 5403}),
    ],
)
def test_messages_schedules_and_events_say_what_they_ask_of_their_key(
    tmp_path: Path, value: str, shown: dict[str, int]
) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish(under_key(value))
        made = await desk.call("POST", f"/v2/schedules/{URL}", {"Upstash-Cron": "@daily", **under_key(value)}, b"x")
        schedule = (await desk.call("GET", f"/v2/schedules/{made.content['scheduleId']}")).content
        [event, *_] = json.loads((await desk.call("GET", "/v2/events", query=f"messageId={message_id}")).body())[
            "events"
        ]
        for one in (await desk.seen(message_id), schedule, event):
            named = {name: one[name] for name in ("flowControlKey", "parallelism", "rate", "period") if name in one}
            assert named == {"flowControlKey": "k", **shown}

    with_desk(tmp_path, test)


def test_logs_and_dead_letters_are_found_by_their_key(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        for name in ("k", "a,b"):
            await desk.publish(under_key("parallelism=1", name) | {"Upstash-Retries": "0"})
        desk.sender.answers = [Answer(500, (), b"")] * 2
        assert len(await sent(desk)) == 2
        await desk.service.log.flush()
        for path, under, wanted, count in (
            ("/v2/dlq", "messages", "flowControlKey=a,b", 1),
            ("/v2/dlq", "messages", "flowControlKey=a", 0),
            ("/v2/dlq", "messages", "flowControlKey=k&flowControlKey=a,b", 2),
            ("/v2/dlq", "messages", "queueName=k", 0),
            ("/v2/events", "events", "flowControlKey=a,b&state=FAILED", 1),
            ("/v2/events", "events", "flowControlKey=b", 0),
            ("/v2/events", "events", "queueName=k", 0),
        ):
            found = json.loads((await desk.call("GET", path, query=wanted)).body())[under]
            assert len(found) == count, wanted
            assert all(one["flowControlKey"] in ("k", "a,b") for one in found)

    with_desk(tmp_path, test)


def test_a_dead_letter_goes_back_to_its_key_or_to_another_one(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish(under_key("parallelism=1") | {"Upstash-Retries": "0"})
        await desk.call("POST", f"/v2/enqueue/q/{URL}", {"Upstash-Retries": "0"}, b"x")
        desk.sender.answers = [Answer(500, (), b"")] * 3
        assert len(await sent(desk)) == 2

        async def retried(headers: dict[str, str]) -> dict[str, Any]:
            [letter] = (await desk.call("GET", "/v2/dlq", query="count=1&order=earliestFirst")).content["messages"]
            again = await desk.call("POST", f"/v2/dlq/retry/{letter['dlqId']}", headers)
            return await desk.seen(again.content["messageId"])

        first = await retried({})
        assert (first["flowControlKey"], first["parallelism"]) == ("k", 1)
        of_queue = await retried(under_key("rate=5", "other"))
        assert (of_queue["flowControlKey"], of_queue["rate"], "queueName" in of_queue) == ("other", 5, False)

    with_desk(tmp_path, test)


def test_headers_of_a_group_give_a_key_to_what_has_none(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.call("POST", "/v2/topics/g/endpoints", body=json.dumps({"endpoints": [{"url": URL}]}).encode())
        headers = json.dumps({"headers": under_key("parallelism=3")}).encode()
        assert (await desk.call("PATCH", "/v2/topics/g", body=headers)).status == 200

        async def published(path: str, own: dict[str, str]) -> dict[str, Any]:
            [one] = (await desk.call("POST", path, own, b"x")).content
            seen = await desk.seen(one["messageId"])
            return {name: seen[name] for name in ("queueName", "flowControlKey", "parallelism") if name in seen}

        assert await published("/v2/publish/g", {}) == {"flowControlKey": "k", "parallelism": 3}
        own = {"Upstash-Flow-Control-Value": "parallelism=4"}
        assert await published("/v2/publish/g", own) == {"flowControlKey": "k", "parallelism": 4}
        own = {"Upstash-Flow-Control-Key": "own"}
        assert await published("/v2/publish/g", own) == {"flowControlKey": "own"}, "limits are of one key"
        assert await published("/v2/enqueue/q/g", {}) == {"queueName": "q"}
        made = await desk.call("POST", "/v2/schedules/g", {"Upstash-Cron": "@daily", "Upstash-Queue-Name": "q"}, b"x")
        schedule = (await desk.call("GET", f"/v2/schedules/{made.content['scheduleId']}")).content
        assert (schedule["queueName"], "flowControlKey" in schedule) == ("q", False)

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("what", "query", "named"),
    [
        ("pin", "", "parallelism and rate are missing"),
        ("pin", "period=60", "parallelism and rate are missing"),
        ("pin", "parallelism=0", 'parallelism: "0"'),
        ("pin", "parallelism=1001", "1 to 1000"),
        ("pin", "rate=100001", "1 to 100000"),
        ("pin", "rate=1&period=604801", "1 to 604800"),
        ("pin", "rate=1&period=1m", 'period: "1m"'),
        ("pin", "paralelism=1", '"paralelism" is no limit'),
        ("unpin", "rate=yes", 'rate: "yes"'),
        ("unpin", "period=true", '"period" is no limit'),
    ],
)
def test_what_can_not_be_pinned_is_named(tmp_path: Path, what: str, query: str, named: str) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", f"{KEY}/{what}", query=query)
        assert (reply.status, named in reply.content["error"]) == (400, True), reply
        assert (await desk.call("GET", KEY)).status == 404

    with_desk(tmp_path, test)


def test_a_pin_begins_a_window_of_its_own(tmp_path: Path) -> None:
    """Else starts before and after it would be counted together, in one millisecond."""

    async def test(desk: Desk) -> None:
        ids = [await desk.publish(under_key("rate=1,period=1h")) for _ in range(2)]
        assert await sent_until_the_window_ends(desk) == ids[:1]
        await desk.call("POST", f"{KEY}/pin", query="rate=1&period=3600")
        assert await sent_until_the_window_ends(desk) == ids[1:]
        first, second = [(await desk.seen(one))["rateWindows"] for one in ids]
        assert first != second

    with_desk(tmp_path, test)


def test_a_list_that_no_answer_holds_says_how_to_ask_for_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish(under_key("rate=1"))
        monkeypatch.setattr(limits, "LIST_BYTES", 100)
        reply = await desk.call("GET", "/v2/flowControl")
        assert (reply.status, "?search=" in reply.content["error"]) == (409, True)
        assert (await desk.call("GET", "/v2/flowControl", query="search=x")).status == 200

    with_desk(tmp_path, test)
