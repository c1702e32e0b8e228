"""Queues over the real core, with a clock that tests move."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support import NOW_MS, ONE, TWO, Desk, with_desk
from waypost.call import Reply
from waypost.core.policy import MINUTE, SECOND
from waypost.core.ports import Answer, Bell, Item, Key, Put

URL = "https://a.example.com/in"


async def enqueue(desk: Desk, queue: str = "q", headers: dict[str, str] | None = None, to: str = URL) -> str:
    reply = await desk.call("POST", f"/v2/enqueue/{queue}/{to}", headers, b"x")
    assert reply.status in (201, 202), reply
    return str(reply.content["messageId"])


async def upsert(desk: Desk, **wanted: Any) -> Reply:
    return await desk.call("POST", "/v2/queues", body=json.dumps({"queueName": "q", **wanted}).encode())


async def queue(desk: Desk, name: str = "q") -> dict[str, Any]:
    reply = await desk.call("GET", f"/v2/queues/{name}")
    assert reply.status == 200, reply
    return dict(reply.content)


async def sent(desk: Desk) -> list[str]:
    """Rings what is to be rung, and what follows from that, and returns whose requests left meanwhile."""
    before = len(desk.sender.sent)
    while await desk.deliver():
        pass
    return [dict(one.headers)["Upstash-Message-Id"] for one in desk.sender.sent[before:]]


def while_sent(desk: Desk, do: Callable[[str], Awaitable[object]]) -> None:
    """Does that, with the message's id, while each request is out."""
    send = desk.sender.send

    async def sending(request: Any) -> Any:
        await do(dict(request.headers)["Upstash-Message-Id"])
        return await send(request)

    desk.sender.send = sending  # type: ignore[method-assign]


async def logged(desk: Desk, query: str) -> set[str]:
    """The messages whose events fit."""
    await desk.service.log.flush()
    desk.clock.ms += MINUTE
    events = json.loads((await desk.call("GET", "/v2/logs", query=query)).body())["logs"]
    return {one["messageId"] for one in events}


def test_the_first_message_makes_its_queue(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        assert (await desk.call("GET", "/v2/queues/q")).status == 404
        message_id = await enqueue(desk)
        made = {"name": "q", "parallelism": 1, "createdAt": NOW_MS, "updatedAt": NOW_MS, "lag": 1, "paused": False}
        assert await queue(desk) == made
        assert (await desk.seen(message_id))["queueName"] == "q"
        assert await sent(desk) == [message_id]
        assert await queue(desk) == {**made, "lag": 0}
        assert json.loads((await desk.call("GET", "/v2/queues")).body()) == [{**made, "lag": 0}]
        assert (await desk.call("GET", "/v2/queues/q", token=TWO.token)).status == 404
        assert (await desk.call("GET", "/v2/queues", token=TWO.token)).content == []

    with_desk(tmp_path, test)


def test_an_upsert_makes_changes_and_unpauses(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        assert (await upsert(desk, parallelism=3, paused=True)).status == 200
        assert ((await queue(desk))["parallelism"], (await queue(desk))["paused"]) == (3, True)
        desk.clock.ms += 1
        assert (await upsert(desk)).status == 200
        changed = await queue(desk)
        assert (changed["parallelism"], changed["paused"], changed["updatedAt"]) == (3, False, NOW_MS + 1)
        for wrong in (
            {"parallelism": 0},
            {"parallelism": 1.5},
            {"parallelism": 1_001},
            {"parallelism": "2"},
            {"paused": "yes"},
            {"queueName": "a b"},
            {"queueName": ""},
            {"queueName": "."},
            {"queueName": ".."},
        ):
            refused = await upsert(desk, **wrong)
            assert refused.status == 400
            assert next(iter(wrong)) in refused.content["error"]
        assert (await desk.call("POST", "/v2/enqueue/a%20b/https://a.example.com")).status == 400

    with_desk(tmp_path, test)


def test_one_after_the_other_through_a_retry(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        first, second, third = [await enqueue(desk) for _ in range(3)]
        desk.sender.answers = [Answer(500, (), b""), Answer(200, (), b"")]
        assert (await desk.seen(third))["waiting"] == "behind 2 in queue q"
        await desk.deliver()
        retries_at = await desk.seen(first)
        assert retries_at["waiting"].startswith("retry 1 at 2")
        assert (await desk.seen(second))["waiting"] == "behind 1 in queue q"
        assert (await queue(desk))["lag"] == 3
        assert await sent(desk) == [first, second, third]
        assert "waiting" not in await desk.seen(third)

    with_desk(tmp_path, test)


def test_a_paused_queue_takes_messages_and_sends_none(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk)
        for _ in range(2):
            assert (await desk.call("POST", "/v2/queues/q/pause")).status == 200
        waiting = await enqueue(desk)
        assert await sent(desk) == []
        assert (await desk.seen(waiting))["waiting"].startswith("queue q has been paused since 2")
        for _ in range(2):
            assert (await desk.call("POST", "/v2/queues/q/resume")).status == 200
        assert await sent(desk) == [waiting]
        for what in ("pause", "resume"):
            assert (await desk.call("POST", f"/v2/queues/unknown/{what}")).status == 404

    with_desk(tmp_path, test)


def test_what_waits_in_a_deleted_queue_is_cancelled(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, paused=True)
        waiting = [await enqueue(desk) for _ in range(3)]
        assert (await desk.call("DELETE", "/v2/queues/q")).status == 200
        assert (await desk.call("GET", "/v2/queues/q")).status == 404
        again = await enqueue(desk)
        assert await sent(desk) == [again]
        assert {(await desk.seen(one))["state"] for one in waiting} == {"CANCELED"}
        assert ((await queue(desk))["parallelism"], (await queue(desk))["lag"]) == (1, 0)
        assert (await desk.call("DELETE", "/v2/queues/unknown")).status == 200

    with_desk(tmp_path, test)


def test_a_delayed_message_takes_its_place_when_it_is_due(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, paused=True)
        later = await enqueue(desk, headers={"Upstash-Delay": "60s"})
        paused = "queue q has been paused since 2026-09-21T14:13:20Z"
        assert (await desk.seen(later))["waiting"] == f"delayed until 2026-09-21T14:14:20Z; {paused}"
        before = await enqueue(desk)
        assert (await queue(desk))["lag"] == 1
        await desk.deliver()
        assert (desk.clock.ms, (await queue(desk))["lag"]) == (NOW_MS + MINUTE, 2)
        after = await enqueue(desk)
        await desk.call("POST", "/v2/queues/q/resume")
        assert await sent(desk) == [before, later, after]

    with_desk(tmp_path, test)


def test_what_is_cancelled_while_it_asks_whether_it_may_start_has_ended(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        _, second = [await enqueue(desk) for _ in range(2)]
        desk.rung.bells = [Bell(f"{ONE.name}#{second}", 0)]
        read = desk.table.get

        async def get(key: Key) -> Item | None:
            if key.sk == "lane":
                await desk.call("DELETE", f"/v2/messages/{second}")
            return await read(key)

        desk.table.get = get  # type: ignore[method-assign]
        await desk.deliver()
        assert desk.sender.sent == []
        assert (await desk.seen(second))["state"] == "CANCELED"

    with_desk(tmp_path, test)


def test_a_cancelled_message_leaves_the_line(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        first, second, third = [await enqueue(desk) for _ in range(3)]
        assert (await desk.call("DELETE", f"/v2/messages/{second}")).content == {"cancelled": 1}
        assert (await queue(desk))["lag"] == 2
        assert await sent(desk) == [first, third]
        assert (await queue(desk))["lag"] == 0

    with_desk(tmp_path, test)


def test_the_lag_counts_who_takes_his_place_while_the_queue_runs_empty(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        first = await enqueue(desk)
        write_many = desk.table.write_many

        async def late(writes: Any, **how: Any) -> Any:
            desk.table.write_many = write_many  # type: ignore[method-assign]
            assert await sent(desk) == [first]
            return await write_many(writes, **how)

        desk.table.write_many = late  # type: ignore[method-assign]
        second = await enqueue(desk)
        assert (await queue(desk))["lag"] == 1

        async def read_it(_: str) -> None:
            assert (await queue(desk))["lag"] == 1

        while_sent(desk, read_it)
        assert await sent(desk) == [second]
        assert (await queue(desk))["lag"] == 0

    with_desk(tmp_path, test)


def test_the_lag_of_a_long_line(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, paused=True)
        ids = []
        for _ in range(2):
            items = json.dumps([{"destination": URL, "queue": "q"}] * 900).encode()
            ids += [one["messageId"] for one in (await desk.call("POST", "/v2/batch", body=items)).content]
        assert (await queue(desk))["lag"] == 1_800
        await desk.call("DELETE", f"/v2/messages/{ids[0]}")
        assert (await queue(desk))["lag"] == 1_799
        assert (await desk.seen(ids[1_200]))["waiting"].startswith("queue q has been paused since")
        await upsert(desk)
        assert (await desk.seen(ids[1_200]))["waiting"] == "behind 1,000 or more in queue q"
        assert (await desk.seen(ids[500]))["waiting"] == "behind 499 in queue q"
        assert (await queue(desk))["lag"] == 1_799

    with_desk(tmp_path, test)


def test_whose_publisher_died_counts_no_more_in_the_lag(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        write = desk.table.write

        async def dies(one: Any, **how: Any) -> Any:
            if isinstance(one, Put) and one.item.get("url"):
                raise KeyboardInterrupt
            return await write(one, **how)

        desk.table.write = dies  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            await enqueue(desk)
        desk.table.write = write  # type: ignore[method-assign]
        await enqueue(desk)
        assert (await queue(desk))["lag"] == 1

    with_desk(tmp_path, test)


def test_who_waits_for_the_first_attempt_is_not_called_a_retry(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, paused=True)
        delayed = await enqueue(desk, headers={"Upstash-Delay": "60s"})
        made_due = await enqueue(desk, headers={"Upstash-Delay": "1h"})
        await desk.call("POST", f"/v2/messages/{made_due}/retry")
        for _ in range(3):
            await desk.deliver()
        for one in (delayed, made_due):
            shown = await desk.seen(one)
            assert (shown["state"], shown["retried"], "nextDeliveryTime" in shown) == ("CREATED", 0, False)
            assert shown["waiting"].startswith("queue q has been paused since 2")
        desk.sender.answers = [Answer(500, (), b"")]
        await upsert(desk)
        await desk.deliver()
        shown = await desk.seen(made_due)
        assert (shown["state"], shown["retried"]) == ("RETRY", 1)
        await desk.call("POST", "/v2/queues/q/pause")
        waiting = (await desk.seen(made_due))["waiting"]
        assert waiting.startswith("retry 1 at 2")
        assert "; queue q has been paused since 2" in waiting

    with_desk(tmp_path, test)


def test_who_is_hurried_while_he_stands_in_line_waits_for_his_turn(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        first, second, third = [await enqueue(desk) for _ in range(3)]
        await desk.call("POST", f"/v2/messages/{third}/retry")
        states = []

        async def read(_: str) -> None:
            states.append((await desk.seen(third))["state"])

        while_sent(desk, read)
        assert await sent(desk) == [first, second, third]
        assert states == ["CREATED", "CREATED", "ACTIVE"]

    with_desk(tmp_path, test)


def test_who_is_made_due_stands_in_line_when_that_is_answered(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        dead = await enqueue(desk, headers={"Upstash-Retries": "0"})
        desk.sender.answers = [Answer(500, (), b"")]
        assert await sent(desk) == [dead]
        await upsert(desk, paused=True)
        later = await enqueue(desk, headers={"Upstash-Delay": "1h"})
        await desk.call("POST", f"/v2/messages/{later}/retry")
        assert (await queue(desk))["lag"] == 1
        [again] = (await desk.call("POST", "/v2/dlq/retry")).content["responses"]
        assert (await queue(desk))["lag"] == 2
        assert (await desk.seen(again["messageId"]))["waiting"].startswith("queue q has been paused since 2")
        last = await enqueue(desk)
        await desk.call("POST", "/v2/queues/q/resume")
        assert await sent(desk) == [later, again["messageId"], last]

    with_desk(tmp_path, test)


def test_who_is_made_due_in_a_deleted_queue_ends(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        later = await enqueue(desk, headers={"Upstash-Delay": "1h"})
        await desk.call("DELETE", "/v2/queues/q")
        await desk.call("POST", f"/v2/messages/{later}/retry")
        assert await sent(desk) == []
        assert (await desk.seen(later))["error"] == "its queue was deleted"

    with_desk(tmp_path, test)


def test_what_is_still_out_of_a_deleted_queue_is_none_of_the_next_ones_lag(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await enqueue(desk)

        async def use_again(_: str) -> None:
            if len(desk.sender.sent) == 0:
                await desk.call("DELETE", "/v2/queues/q")
                await enqueue(desk)
                assert (await queue(desk))["lag"] == 1

        while_sent(desk, use_again)
        assert len(await sent(desk)) == 2
        assert (await queue(desk))["lag"] == 0

    with_desk(tmp_path, test)


def test_batches_groups_and_schedules_put_messages_into_queues(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, parallelism=2, paused=True)
        endpoints = json.dumps({"endpoints": [{"url": f"{URL}?n={n}"} for n in range(2)]}).encode()
        await desk.call("POST", "/v2/topics/g/endpoints", body=endpoints)
        items = [
            {"destination": URL, "queue": "q"},
            {"destination": "g", "queue": "q"},
            {"destination": URL, "queue": None},
        ]
        reply = await desk.call("POST", "/v2/batch", body=json.dumps(items).encode())
        assert [len(one) if isinstance(one, list) else 1 for one in reply.content] == [1, 2, 1]
        assert len((await desk.call("POST", "/v2/enqueue/q/g", body=b"x")).content) == 2
        made = await desk.call(
            "POST", f"/v2/schedules/{URL}", {"Upstash-Cron": "@daily", "Upstash-Queue-Name": "q"}, b"x"
        )
        schedule_id = made.content["scheduleId"]
        assert (await desk.call("GET", f"/v2/schedules/{schedule_id}")).content["queueName"] == "q"
        fired = await desk.call("POST", f"/v2/schedules/{schedule_id}/run")
        assert (await desk.seen(fired.content["messageId"]))["queueName"] == "q"
        assert ((await queue(desk))["lag"], (await queue(desk))["parallelism"]) == (6, 2)
        assert len(await sent(desk)) == 1, "the one that is in no queue"
        cancelled = await desk.call("DELETE", "/v2/messages", query="queueName=q&count=100")
        assert cancelled.content["cancelled"] == 6

    with_desk(tmp_path, test)


def test_a_dead_letter_goes_back_to_its_queue(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        failed = await enqueue(desk, headers={"Upstash-Retries": "0"})
        desk.sender.answers = [Answer(500, (), b"")]
        assert await sent(desk) == [failed]
        [letter] = (await desk.call("GET", "/v2/dlq", query="queueName=q")).content["messages"]
        assert (letter["queueName"], (await queue(desk))["lag"]) == ("q", 0)
        assert (await desk.call("GET", "/v2/dlq", query="queueName=other")).content["messages"] == []
        again = await desk.call("POST", f"/v2/dlq/retry/{letter['dlqId']}")
        message_id = again.content["messageId"]
        assert (await desk.seen(message_id))["queueName"] == "q"
        assert await sent(desk) == [message_id]

    with_desk(tmp_path, test)


def test_a_duplicate_takes_no_place(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        one, other = [await enqueue(desk, headers={"Upstash-Deduplication-Id": "d"}) for _ in range(2)]
        assert one == other
        assert (await queue(desk))["lag"] == 1
        assert await sent(desk) == [one]

    with_desk(tmp_path, test)


@pytest.mark.parametrize("minutes", [0, 5])
def test_the_next_waits_for_callbacks(tmp_path: Path, minutes: int) -> None:
    async def test(desk: Desk) -> None:
        callback = {"Upstash-Callback": "https://c.example.com/done", "Upstash-Callback-Delay": f"{minutes}m"}
        first, second = await enqueue(desk, headers=callback), await enqueue(desk)
        await desk.deliver()
        asked = desk.clock.ms
        await desk.deliver()
        assert (await desk.seen(second))["state"] == "CREATED"
        assert len(await sent(desk)) == 1
        urls = [one.url for one in desk.sender.sent]
        assert urls == [URL, "https://c.example.com/done", URL]
        assert desk.clock.ms - asked >= minutes * MINUTE
        assert (await desk.seen(first))["state"] == (await desk.seen(second))["state"] == "DELIVERED"

    with_desk(tmp_path, test)


def test_a_slot_of_which_nothing_is_heard_is_asked_after(tmp_path: Path) -> None:
    """A bell is lost; the next who comes finds the slot unused."""

    async def test(desk: Desk) -> None:
        lost = await enqueue(desk)
        desk.rung.bells.clear()
        desk.clock.ms += 31 * SECOND
        await desk.call("POST", "/v2/queues/q/resume")
        assert await sent(desk) == [lost]

    with_desk(tmp_path, test)


def test_a_group_goes_through_a_queue_in_its_order(tmp_path: Path) -> None:
    """Its own flow-control key stands back: a message has one line."""

    async def test(desk: Desk) -> None:
        urls = [f"{URL}?n={n}" for n in range(3)]
        endpoints = json.dumps({"endpoints": [{"url": url} for url in urls]}).encode()
        await desk.call("POST", "/v2/topics/g/endpoints", body=endpoints)
        headers = {"headers": {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=1"}}
        assert (await desk.call("PATCH", "/v2/topics/g", body=json.dumps(headers).encode())).status == 200
        made = [one["messageId"] for one in (await desk.call("POST", "/v2/enqueue/q/g")).content]
        assert await sent(desk) == made
        assert [one.url for one in desk.sender.sent] == urls
        assert (await desk.call("GET", "/v2/flowControl/k")).status == 404
        refused = await desk.call("POST", "/v2/enqueue/q/g", {"Upstash-Flow-Control-Key": "k"})
        assert (refused.status, (await queue(desk))["lag"]) == (400, 0)

    with_desk(tmp_path, test)


@pytest.mark.parametrize("what", ["pause", "delete"])
def test_a_request_that_is_out_ends_as_it_does(tmp_path: Path, what: str) -> None:
    async def test(desk: Desk) -> None:
        first, second = await enqueue(desk), await enqueue(desk)

        async def interfere(_: str) -> None:
            if what == "pause":
                await desk.call("POST", "/v2/queues/q/pause")
            else:
                await desk.call("DELETE", "/v2/queues/q")

        while_sent(desk, interfere)
        assert await sent(desk) == [first]
        states = [(await desk.seen(one))["state"] for one in (first, second)]
        assert states == ["DELIVERED", "CREATED" if what == "pause" else "CANCELED"]

    with_desk(tmp_path, test)


def test_a_retry_in_a_deleted_queue_is_not_sent(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        failing = await enqueue(desk)
        desk.sender.answers = [Answer(500, (), b"")]
        await desk.deliver()
        await desk.call("DELETE", "/v2/queues/q")
        assert await sent(desk) == []
        assert (await desk.seen(failing))["state"] == "CANCELED"

    with_desk(tmp_path, test)


def test_a_failed_message_lets_the_next_go(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        failed, second = await enqueue(desk, headers={"Upstash-Retries": "1"}), await enqueue(desk)
        desk.sender.answers = [Answer(500, (), b""), Answer(500, (), b"")]
        assert await sent(desk) == [failed, failed, second]
        assert (await desk.seen(failed))["state"] == "FAILED"

    with_desk(tmp_path, test)


def test_more_parallelism_counts_at_once(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        three = [await enqueue(desk) for _ in range(3)]
        await upsert(desk, parallelism=2)
        waiting = [(await desk.seen(one)).get("waiting") for one in three]
        assert waiting == [None, None, "behind 2 in queue q"]
        await upsert(desk, parallelism=3)
        await upsert(desk, parallelism=1)
        assert await sent(desk) == three

    with_desk(tmp_path, test)


def test_logs_tell_of_one_queue(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        one, other, none = await enqueue(desk), await enqueue(desk, "other"), await desk.publish()
        await sent(desk)
        assert await logged(desk, "queueName=q") == {one}
        assert await logged(desk, "queueName=q,other") == {one, other}
        assert await logged(desk, "queueName=unknown") == set()
        assert await logged(desk, "") == {one, other, none}

    with_desk(tmp_path, test)


def test_a_queue_waits_for_a_callback_that_waits_for_its_key(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.call("POST", "/v2/flowControl/told/pin", query="parallelism=1")
        await desk.call("POST", "/v2/flowControl/told/pause")
        callback = {
            "Upstash-Callback": "https://c.example.com",
            "Upstash-Callback-Flow-Control-Key": "told",
            "Upstash-Callback-Flow-Control-Value": "",
        }
        first, second = await enqueue(desk, headers=callback), await enqueue(desk)
        assert await sent(desk) == [first]
        assert (await desk.seen(second))["waiting"] == "behind 1 in queue q"
        await desk.call("POST", "/v2/flowControl/told/resume")
        assert (await sent(desk))[1:] == [second]

    with_desk(tmp_path, test)


def test_a_publisher_who_is_overtaken_by_his_helper_takes_no_second_place(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        headers = {"Upstash-Deduplication-Id": "d"}
        write = desk.table.write

        async def helped(one: Any, **how: Any) -> Any:
            written = await write(one, **how)
            if isinstance(one, Put) and one.item["sk"] == "dedup":
                desk.table.write = write  # type: ignore[method-assign]
                await enqueue(desk, headers=headers)
            return written

        desk.table.write = helped  # type: ignore[method-assign]
        first = await enqueue(desk, headers=headers)
        second = await enqueue(desk)
        assert (await queue(desk))["lag"] == 2
        assert await sent(desk) == [first, second]
        assert (await queue(desk))["lag"] == 0

    with_desk(tmp_path, test)


def test_a_queue_that_is_narrowed_keeps_its_order(tmp_path: Path) -> None:
    """Three were let in, of which one slot is left: the first one's retry comes before the others."""

    async def test(desk: Desk) -> None:
        await upsert(desk, parallelism=3)
        ids = [await enqueue(desk) for _ in range(4)]
        await upsert(desk, parallelism=1)
        desk.sender.answers = [Answer(500, (), b"")]
        assert await sent(desk) == [ids[0], *ids]
        assert (await queue(desk))["lag"] == 0

    with_desk(tmp_path, test)


def test_what_was_delayed_ends_with_its_queue(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        later = await enqueue(desk, headers={"Upstash-Delay": "60s"})
        assert ((await queue(desk))["parallelism"], (await queue(desk))["lag"]) == (1, 0)
        in_line = await enqueue(desk)
        await desk.call("DELETE", "/v2/queues/q")
        waiting = [(await desk.seen(one))["waiting"] for one in (later, in_line)]
        assert waiting[0] == "queue q was deleted: it is cancelled at 2026-09-21T14:14:20Z"
        assert waiting[1] == "queue q was deleted: it is cancelled now"
        assert await sent(desk) == []
        for one in (later, in_line):
            shown = await desk.seen(one)
            assert (shown["state"], shown["error"], "waiting" in shown) == ("CANCELED", "its queue was deleted", False)
        assert (await desk.call("GET", "/v2/queues/q")).status == 404

    with_desk(tmp_path, test)


def test_what_waits_in_line_is_reminded_of_rarely(tmp_path: Path) -> None:
    """A paused queue costs each who waits two reminders an hour, and nobody is forgotten."""

    async def test(desk: Desk) -> None:
        await upsert(desk, paused=True)
        ids = [await enqueue(desk) for _ in range(20)]
        desk.rung.bells.clear()
        await ticks(desk, 10)
        desk.table.written = 0
        await ticks(desk, 180)
        assert desk.table.written <= 180 * 10 + 20 * 2 * 2 * 4
        await desk.call("POST", "/v2/queues/q/resume")
        assert await sent(desk) == ids

    with_desk(tmp_path, test)


async def ticks(desk: Desk, minutes: int) -> None:
    for _ in range(minutes):
        desk.clock.ms += MINUTE
        await desk.service.look.tick()
