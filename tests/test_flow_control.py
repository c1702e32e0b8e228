"""Flow-control keys over the real core, with a clock that tests move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from support import NOW_MS, TWO, Desk, with_desk
from test_queues import URL, enqueue, logged, sent, while_sent
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
        ("rate=1.5", "rate=1.5"),
        ("rate=1,period=1500ms", "period=1500ms"),
        ("rate=1,", '"" is none of its parts'),
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
            (f"/v2/publish/{URL}", {"Upstash-Flow-Control-Key": "k"}, "Upstash-Flow-Control-Value"),
            (
                f"/v2/publish/{URL}",
                {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Values": "rate=1"},
                "Upstash-Flow-Control-Value",
            ),
            (
                f"/v2/publish/{URL}",
                {"Upstash-Callback": URL, "Upstash-Callback-Flow-Control-Key": "k"},
                "Upstash-Callback-Flow-Control-Value",
            ),
            (f"/v2/publish/{URL}", under_key("rate=1", "k" * 2_000), "Upstash-Flow-Control-Key"),
            (f"/v2/enqueue/q/{URL}", under_key("rate=1"), "queue"),
            (f"/v2/publish/{URL}", {"Upstash-Queue-Name": "q"}, "/v2/enqueue/"),
        ):
            reply = await desk.call("POST", path, headers, b"x")
            assert (reply.status, named in reply.content["error"]) == (400, True), reply

    with_desk(tmp_path, test)


def test_a_key_is_the_same_in_every_spelling(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        as_bytes = "Zürich".encode().decode("latin-1")
        utf_8 = {**under_key("parallelism=3", as_bytes), "Upstash-Label": as_bytes}
        latin_1 = {**under_key("parallelism=3", "Zürich"), "Upstash-Label": "Zürich"}
        query = (
            "upstash-flow-control-key=Z%C3%BCrich&upstash-flow-control-value=parallelism=3&upstash-label=Z%C3%BCrich"
        )
        ids = [await desk.publish(utf_8), await desk.publish(latin_1), await desk.publish(query=query)]
        item = {"destination": URL, "headers": {**under_key("parallelism=3", "Zürich"), "Upstash-Label": "Zürich"}}
        ids.append((await desk.call("POST", "/v2/batch", body=json.dumps([item]).encode())).content[0]["messageId"])
        shown = [await desk.seen(one) for one in ids]
        assert {(one["flowControlKey"], one["label"]) for one in shown} == {("Zürich", "Zürich")}
        assert (await key(desk, "Z%C3%BCrich"))["parallelismCount"] == 3

    with_desk(tmp_path, test)


def test_a_period_is_shown_with_its_rate(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        without, with_it = [await desk.publish(under_key(text)) for text in ("parallelism=3", "rate=2,period=1m")]
        assert "period" not in await desk.seen(without)
        assert (await desk.seen(with_it))["period"] == 60

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
        # The second to start in a window starts a little later, and its bell moves the clock.
        apart_ms = desk.policy.starts_apart_ms
        assert windows == [[NOW_MS]] * 2 + [[NOW_MS + 10_000]] * 2 + [[NOW_MS + 20_000 + apart_ms]]

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


def test_a_delayed_messages_limits_count_from_its_acceptance_on(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        first, second = [await desk.publish(under_key("rate=1,period=1h")) for _ in range(2)]
        assert await sent_until_the_window_ends(desk) == [first]
        delayed = await desk.publish({**under_key("rate=7,period=1h"), "Upstash-Delay": "1m"})
        assert (await key(desk))["rateMax"] == 7
        assert await sent_until_the_window_ends(desk) == [second], "more may start, and nobody else comes"
        desk.clock.ms += 1
        await desk.publish(under_key("rate=9,period=1h"))
        desk.clock.ms += MINUTE
        assert delayed in await sent(desk)
        assert (await key(desk))["rateMax"] == 9, "a newer message has changed them since"

    with_desk(tmp_path, test)


def test_a_key_is_paused_and_its_rate_is_reset(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.call("POST", f"{KEY}/pin", query="rate=1&period=3600")
        first, second = [await desk.publish(under_key()) for _ in range(2)]
        assert await sent_until_the_window_ends(desk) == [first]
        await desk.call("POST", f"{KEY}/pause")
        await desk.call("POST", f"{KEY}/resetRate")
        assert await sent_until_the_window_ends(desk) == []
        assert (await desk.seen(second))["waiting"].startswith("key k has been paused since 2")
        await desk.call("POST", f"{KEY}/resume")
        assert await sent_until_the_window_ends(desk) == [second]
        for what in ("pause", "resume", "resetRate", "unpin"):
            assert (await desk.call("POST", f"/v2/flowControl/other/{what}", query="")).status == 404

    with_desk(tmp_path, test)


async def sent_until_the_window_ends(desk: Desk) -> list[str]:
    before = len(desk.sender.sent)
    while any(bell.delay_ms < 500 for bell in desk.rung.bells):
        later = [bell for bell in desk.rung.bells if bell.delay_ms >= 500]
        desk.rung.bells = [bell for bell in desk.rung.bells if bell.delay_ms < 500]
        await desk.deliver()
        desk.rung.bells += later
    return [dict(one.headers)["Upstash-Message-Id"] for one in desk.sender.sent[before:]]


def test_a_pin_without_a_period_keeps_the_key_s(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish(under_key("rate=10,period=1m"))
        for query, rate, period in (("rate=5", 5, 60), ("rate=5&period=7", 5, 7), ("parallelism=2", 5, 7)):
            await desk.call("POST", f"{KEY}/pin", query=query)
            assert ((await key(desk))["rateMax"], (await key(desk))["ratePeriod"]) == (rate, period)
        await desk.call("POST", "/v2/flowControl/new/pin", query="rate=5")
        assert (await key(desk, "new"))["ratePeriod"] == 1

    with_desk(tmp_path, test)


def test_after_a_restart_the_window_that_was_full_ends_as_before(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(under_key("rate=2,period=5s")) for _ in range(5)]
        assert await sent_until_the_window_ends(desk) == ids[:2]
        await desk.restart()
        assert (await desk.seen(ids[2]))["waiting"].startswith("the rate window of key k opens at 2")
        while len(desk.sender.sent) < 4 and await desk.deliver():
            pass
        assert [dict(one.headers)["Upstash-Message-Id"] for one in desk.sender.sent] == ids[:4]
        assert desk.clock.ms < NOW_MS + 15 * SECOND

    with_desk(tmp_path, test)


def test_a_key_that_is_paused_counts_those_who_were_let_in_as_waiting(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        for _ in range(30):
            await desk.publish(under_key("parallelism=10"))

        async def count(_: str) -> None:
            if len(desk.sender.sent) == 0:
                await desk.call("POST", f"{KEY}/pause")
                now = await key(desk)
                assert (now["waitListSize"], now["parallelismCount"]) == (29, 1)
                together = (await desk.call("GET", "/v2/globalParallelism")).content
                assert together == {"parallelismMax": 10, "parallelismCount": 1}

        while_sent(desk, count)
        assert len(await sent(desk)) == 1
        assert ((await key(desk))["waitListSize"], (await key(desk))["parallelismCount"]) == (29, 0)
        await desk.call("POST", f"{KEY}/resume")
        assert len(await sent(desk)) == 29

    with_desk(tmp_path, test)


def test_after_an_unpin_only_newer_messages_bring_limits(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish(under_key("parallelism=1"))
        await desk.call("POST", f"{KEY}/pin", query="parallelism=5")
        await desk.publish({**under_key("parallelism=2"), "Upstash-Delay": "3s"})
        await desk.publish(under_key("parallelism=9"))
        desk.clock.ms += SECOND
        await desk.call("POST", f"{KEY}/unpin", query="parallelism=true")
        await sent(desk)
        assert (await key(desk))["parallelismMax"] == 5
        await desk.publish(under_key("parallelism=4"))
        assert (await key(desk))["parallelismMax"] == 4

    with_desk(tmp_path, test)


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
    ("what", "query", "named"),
    [
        ("pin", "", "parallelism and rate are missing"),
        ("pin", "period=60", "parallelism and rate are missing"),
        ("pin", "parallelism=0", 'parallelism: "0"'),
        ("pin", "rate=many", 'rate: "many"'),
        ("pin", "rate=1&period=604801", 'period: "604801"'),
        ("pin", "speed=1", '"speed" is no limit of a pin'),
        ("unpin", "rate=yes", 'rate: "yes"'),
    ],
)
def test_what_can_not_be_pinned_is_named(tmp_path: Path, what: str, query: str, named: str) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", f"{KEY}/{what}", query=query)
        assert (reply.status, named in reply.content["error"]) == (400, True), reply
        assert (await desk.call("GET", KEY)).status == 404

    with_desk(tmp_path, test)


def test_a_pin_lets_in_who_waits_and_begins_a_window(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        first, second = [await desk.publish(under_key("rate=1,period=1h")) for _ in range(2)]
        assert await sent_until_the_window_ends(desk) == [first]
        desk.clock.ms += MINUTE
        await desk.call("POST", f"{KEY}/pin", query="rate=1&period=7200")
        assert await sent_until_the_window_ends(desk) == [second]
        found = await key(desk)
        assert (found["rateCount"], found["ratePeriod"]) == (1, 7_200)
        assert found["ratePeriodStart"] == (NOW_MS + MINUTE) // SECOND

    with_desk(tmp_path, test)


def test_a_new_limit_counts_for_those_that_wait(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(under_key("rate=1,period=1h")) for _ in range(3)]
        ids.append(await desk.publish(under_key("rate=9,period=1h")))
        assert await sent_until_the_window_ends(desk) == ids

    with_desk(tmp_path, test)


def test_both_limits_must_allow_a_start(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(under_key("parallelism=2,rate=3,period=10s")) for _ in range(5)]
        assert (await desk.seen(ids[2]))["waiting"] == "behind 2 in key k"
        counts: list[int] = []

        async def count(_: str) -> None:
            counts.append((await key(desk))["parallelismCount"])

        while_sent(desk, count)
        assert await sent_until_the_window_ends(desk) == ids[:3]
        opens = "the rate window of key k opens at 2026-09-21T14:13:30Z"
        assert (await desk.seen(ids[3]))["waiting"] == opens
        assert await sent(desk) == ids[3:]
        assert max(counts) == 2
        windows = [(await desk.seen(one))["rateWindows"] for one in ids]
        assert windows == [[NOW_MS]] * 3 + [[NOW_MS + 10_000]] * 2

    with_desk(tmp_path, test)


def test_each_attempt_counts_in_a_window(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        retried = await desk.publish({**under_key("rate=1,period=1m"), "Upstash-Retry-Delay": "1000"})
        desk.sender.answers = [Answer(500, (), b"")]
        assert await sent(desk) == [retried] * 2
        assert (await desk.seen(retried))["rateWindows"] == [NOW_MS, NOW_MS + MINUTE]

    with_desk(tmp_path, test)


def test_a_first_parallelism_counts_what_begins_after_it(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        first = await desk.publish(under_key("rate=100"))
        limited: list[str] = []

        async def limit(message_id: str) -> None:
            if message_id == first:
                limited.append(await desk.publish(under_key("parallelism=1")))
                assert (await key(desk))["parallelismCount"] == 1
                assert "waiting" not in await desk.seen(limited[0])

        while_sent(desk, limit)
        assert await sent(desk) == [first, *limited]

    with_desk(tmp_path, test)


def test_a_message_says_why_it_waits(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        delayed = await desk.publish({**under_key("parallelism=1"), "Upstash-Delay": "1h"})
        assert (await desk.seen(delayed))["waiting"] == "delayed until 2026-09-21T15:13:20Z"
        first, second = [await desk.publish(under_key("parallelism=1")) for _ in range(2)]
        assert "waiting" not in await desk.seen(first)
        assert (await desk.seen(second))["waiting"] == "behind 1 in key k"
        await desk.call("POST", f"{KEY}/pause")
        desk.clock.ms += MINUTE
        await desk.call("POST", f"{KEY}/pause")
        assert (await desk.seen(second))["waiting"] == "key k has been paused since 2026-09-21T14:13:20Z"
        await desk.call("POST", f"{KEY}/resume")
        desk.sender.answers = [Answer(500, (), b"")]
        await sent_until_the_window_ends(desk)
        assert (await desk.seen(first))["waiting"] == "retry 1 at 2026-09-21T14:14:30Z"
        assert (await desk.seen(second))["state"] == "DELIVERED"
        await desk.call("DELETE", f"/v2/messages/{first}")
        assert "waiting" not in await desk.seen(first)

    with_desk(tmp_path, test)


def test_logs_and_dead_letters_tell_of_one_key(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        one, other, _ = [
            await desk.publish({**under_key("parallelism=3", name), "Upstash-Retries": "0"})
            for name in ("k", "other", "third")
        ]
        desk.sender.answers = [Answer(500, (), b"")] * 3
        await sent(desk)
        assert await logged(desk, "flowControlKey=k") == {one}
        assert await logged(desk, "flowControlKey=k&flowControlKey=other") == {one, other}
        [letter] = (await desk.call("GET", "/v2/dlq", query="flowControlKey=k")).content["messages"]
        assert (letter["messageId"], letter["flowControlKey"], letter["parallelism"]) == (one, "k", 3)
        await desk.call("POST", f"{KEY}/pause")
        again = (await desk.call("POST", f"/v2/dlq/retry/{letter['dlqId']}")).content["messageId"]
        assert await sent(desk) == []
        assert (await desk.seen(again))["waiting"].startswith("key k has been paused")

    with_desk(tmp_path, test)


def test_a_dead_letter_of_a_queue_is_given_a_key(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await enqueue(desk, headers={"Upstash-Retries": "0"})
        desk.sender.answers = [Answer(500, (), b"")]
        await sent(desk)
        [letter] = (await desk.call("GET", "/v2/dlq")).content["messages"]
        again = await desk.call("POST", f"/v2/dlq/retry/{letter['dlqId']}", under_key("rate=5"))
        seen = await desk.seen(again.content["messageId"])
        assert (seen["flowControlKey"], seen["rate"], "queueName" in seen) == ("k", 5, False)

    with_desk(tmp_path, test)


def test_a_schedules_messages_have_its_key(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        headers = {"Upstash-Cron": "@daily", **under_key("parallelism=2, rate=3, period=1m")}
        made = (await desk.call("POST", f"/v2/schedules/{URL}", headers, b"x")).content["scheduleId"]
        limits = {"flowControlKey": "k", "parallelism": 2, "rate": 3, "period": 60}
        shown = (await desk.call("GET", f"/v2/schedules/{made}")).content
        assert {name: shown.get(name) for name in limits} == limits
        assert (await desk.call("GET", KEY)).status == 404, "its messages make it"
        fired = (await desk.call("POST", f"/v2/schedules/{made}/run")).content["messageId"]
        seen = await desk.seen(fired)
        assert {name: seen.get(name) for name in limits} == limits
        assert ((await key(desk))["parallelismMax"], (await key(desk))["rateMax"]) == (2, 3)

    with_desk(tmp_path, test)


@pytest.mark.parametrize("name", ["a%2Fpause", "a%20b", "%C3%A9"])
def test_a_key_is_any_text(tmp_path: Path, name: str) -> None:
    async def test(desk: Desk) -> None:
        assert (await desk.call("POST", f"/v2/flowControl/{name}/pin", query="rate=1")).status == 200
        assert (await desk.call("POST", f"/v2/flowControl/{name}/pause")).status == 200
        found = await key(desk, name)
        assert (found["isPaused"], found["flowControlKey"]) == (True, unquote(name))

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", {}),
        ("parallelism=3", {"parallelism": 3}),
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
        own = under_key("", "own")
        assert await published("/v2/publish/g", own) == {"flowControlKey": "own"}, "limits are of one key"
        assert await published("/v2/enqueue/q/g", {}) == {"queueName": "q"}
        made = await desk.call("POST", "/v2/schedules/g", {"Upstash-Cron": "@daily", "Upstash-Queue-Name": "q"}, b"x")
        schedule = (await desk.call("GET", f"/v2/schedules/{made.content['scheduleId']}")).content
        assert (schedule["queueName"], "flowControlKey" in schedule) == ("q", False)

    with_desk(tmp_path, test)


def test_a_list_that_no_answer_holds_says_how_to_ask_for_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish(under_key("rate=1"))
        monkeypatch.setattr(limits, "LIST_BYTES", 100)
        reply = await desk.call("GET", "/v2/flowControl")
        assert (reply.status, "?search=" in reply.content["error"]) == (409, True)
        assert (await desk.call("GET", "/v2/flowControl", query="search=x")).status == 200

    with_desk(tmp_path, test)


def test_bells_that_take_longer_than_a_period_keep_nobody_from_beginning(tmp_path: Path) -> None:
    """Who was let in counts in the next window before others are let in."""

    async def test(desk: Desk) -> None:
        late, other = [await desk.publish(under_key("rate=1,period=10s")) for _ in range(2)]
        slow = [bell for bell in desk.rung.bells if bell.ref.endswith(late)]
        desk.rung.bells = [bell for bell in desk.rung.bells if bell not in slow]
        await desk.deliver()
        desk.rung.bells = [*slow, *desk.rung.bells]
        assert await sent(desk) == [late, other]
        windows = [(await desk.seen(one))["rateWindows"] for one in (late, other)]
        assert windows == [[NOW_MS + 10_000], [NOW_MS + 20_000]]

    with_desk(tmp_path, test)


def test_who_comes_too_late_goes_back_to_the_front_of_the_line(tmp_path: Path) -> None:
    """The rate was lowered, and the window is full: it is neither lost nor overtaken, nor counted twice."""

    async def test(desk: Desk) -> None:
        first, second = [await desk.publish(under_key("rate=2,period=10s")) for _ in range(2)]
        last = await desk.publish(under_key("rate=1,period=10s"))
        bells = {one: [bell for bell in desk.rung.bells if bell.ref.endswith(one)] for one in (first, second)}
        desk.rung.bells.clear()
        desk.clock.ms += 10_000
        await desk.call("POST", f"{KEY}/resume")
        of_the_lane = [bell for bell in desk.rung.bells if bell.delay_ms]
        desk.rung.bells = bells[second]
        await desk.deliver()
        assert desk.sender.sent == []
        assert (await key(desk))["waitListSize"] == 2
        desk.rung.bells += [*bells[first], *of_the_lane]
        assert await sent(desk) == [first, second, last]
        assert (await key(desk))["waitListSize"] == 0

    with_desk(tmp_path, test)
