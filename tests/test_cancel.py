"""Cancelling many messages at once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support import PUBLISH, TWO, Desk, with_desk
from waypost.core.policy import MINUTE, SECOND, Policy
from waypost.core.ports import Answer, Busy, Outgoing

ALL = "/v2/messages"
HOUR = {"Upstash-Delay": "1h"}


async def cancel(desk: Desk, query: str = "", body: bytes = b"", **how: Any) -> dict[str, Any]:
    reply = await desk.call("DELETE", ALL, query=query, body=body, **how)
    assert reply.status == 200, reply
    return dict(reply.content)


async def published(desk: Desk, url: str, **headers: str) -> str:
    given = HOUR | {f"Upstash-{name}": value for name, value in headers.items()}
    reply = await desk.call("POST", f"/v2/publish/{url}", given)
    return str(reply.content["messageId"])


async def states(desk: Desk, *ids: str) -> list[str]:
    return [(await desk.seen(one))["state"] for one in ids]


async def ring_reminders(desk: Desk) -> None:
    """A tick, and all that it rings."""
    await desk.service.look.tick()
    await hear(desk)


async def hear(desk: Desk) -> None:
    """Each bell once, its delay passing on the clock; those of errands too."""
    bells, desk.rung.bells = desk.rung.bells, []
    for ref, delay_ms, _ in bells:
        desk.clock.ms += delay_ms
        if desk.service.errands.know(ref):
            await desk.service.errands.run(ref)
            continue
        message = await desk.service.deliverer.find(ref)
        if message:
            await desk.service.deliverer.deliver(message)


def test_by_ids_in_a_query_or_in_a_body(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(HOUR) for _ in range(6)]
        assert await cancel(desk, f"messageIds={ids[0]}&messageIds={ids[1]},{ids[2]}") == {"cancelled": 3}
        assert await cancel(desk, body=json.dumps({"messageIds": [ids[3], ids[3], ids[0]]}).encode()) == {
            "cancelled": 1
        }
        assert await cancel(desk, f"messageIds={ids[4]}&url=https://elsewhere.example") == {"cancelled": 1}
        assert await cancel(desk, "messageIds=msg_unknown") == {"cancelled": 0}
        assert await states(desk, *ids) == ["CANCELED"] * 5 + ["CREATED"]

    with_desk(tmp_path, test)


def test_an_empty_list_names_nothing(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish(HOUR)
        assert await cancel(desk, body=b'{"messageIds": []}') == {"cancelled": 0}
        assert await states(desk, message_id) == ["CREATED"]

    with_desk(tmp_path, test)


@pytest.mark.parametrize("query", ["", "count=100"])
def test_all_of_one_account(tmp_path: Path, query: str) -> None:
    async def test(desk: Desk) -> None:
        mine = [await desk.publish(HOUR) for _ in range(250)]
        theirs = await desk.publish(HOUR, token=TWO.token)
        ended = await desk.publish()
        await hear(desk)
        assert await cancel(desk, query) == {"cancelled": 250}
        assert set(await states(desk, *mine)) == {"CANCELED"}
        assert (await desk.seen(theirs, TWO.token))["state"] == "CREATED"
        assert await states(desk, ended) == ["DELIVERED"]
        assert await cancel(desk, query) == {"cancelled": 0}

    with_desk(tmp_path, test)


def test_what_is_published_after_the_answer_is_not_covered(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish(HOUR)
        await cancel(desk)
        later = await desk.publish()
        await hear(desk)
        assert await states(desk, later) == ["DELIVERED"]

    with_desk(tmp_path, test)


def test_an_empty_service_has_nothing_to_cancel(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        assert await cancel(desk) == {"cancelled": 0}

    with_desk(tmp_path, test)


def test_filters_must_all_hold_and_their_values_are_alternatives(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        one = await published(desk, "https://a.example/x?q=1", Label="mail,red")
        two = await published(desk, "https://a.example/y", Label="red")
        three = await published(desk, "https://b.example:8443/x", Label="blue")
        await hear(desk)
        for query, expected in [
            ("host=A.example&path=/none", []),
            ("label=green", []),
            ("topicName=none", []),
            ("toDate=1", []),
            ("fromDate=9999999999999", []),
            ("callerIp=192.0.2.8", []),
            ("url=https://a.example/x?q=1", []),
            ("host=b.example:8443&path=/x&label=blue,green", [three]),
            ("host=a.example&path=/x&path=/y&label=mail", [one]),
            (f"url=https://a.example/y&callerIP=192.0.2.7&fromDate={desk.clock.ms - SECOND}", [two]),
        ]:
            assert await cancel(desk, query.replace("?q=1", "%3Fq=2")) == {"cancelled": len(expected)}, query
            assert set(await states(desk, *expected)) <= {"CANCELED"}
        assert await states(desk, one, two, three) == ["CANCELED"] * 3

    with_desk(tmp_path, test)


def test_a_count_limits_it(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(HOUR) for _ in range(7)]
        assert await cancel(desk, "count=3") == {"cancelled": 3}
        assert (await states(desk, *ids)).count("CANCELED") == 3
        assert await cancel(desk, "count=3") == {"cancelled": 3}
        assert await cancel(desk, "count=3") == {"cancelled": 1}
        assert await cancel(desk, "count=3") == {"cancelled": 0}

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("query", "body", "words"),
    [
        ("hots=a", b"", '"hots" is no filter of messages to cancel'),
        ("label=", b"", "label is empty"),
        ("count=0", b"", 'count: "0" can\'t be used'),
        ("messageIds=a,,b", b"", "messageIds names an empty id"),
        ("", b"[]", 'the body must be JSON like {"messageIds": ["..."]}'),
        ("", b'{"messageids": []}', 'its keys are "messageids"'),
        ("", b"{}", "its keys are none"),
        ("", json.dumps({"messageIds": [str(n) for n in range(1001)]}).encode(), "the limit is 1000 at once"),
    ],
)
def test_what_cannot_be_used_cancels_nothing(tmp_path: Path, query: str, body: bytes, words: str) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish(HOUR)
        reply = await desk.call("DELETE", ALL, query=query, body=body)
        assert reply.status == 400
        assert words in reply.content["error"]
        assert await states(desk, message_id) == ["CREATED"]

    with_desk(tmp_path, test)


def test_what_waits_for_a_retry_and_what_is_old_are_covered(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        old = await desk.publish({"Upstash-Delay": "10d"})
        desk.clock.ms += 10 * MINUTE
        await ring_reminders(desk)
        desk.sender.answers = [Answer(500, (), b"")]
        retrying = await desk.publish()
        await hear(desk)
        assert await states(desk, old, retrying) == ["CREATED", "RETRY"]
        assert await cancel(desk) == {"cancelled": 2}
        assert await states(desk, old, retrying) == ["CANCELED", "CANCELED"]
        sent = len(desk.sender.sent)
        desk.clock.ms += 11 * 24 * 60 * MINUTE
        await ring_reminders(desk)
        assert len(desk.sender.sent) == sent

    with_desk(tmp_path, test)


def failing_while_it_is_cancelled(desk: Desk, status: int) -> tuple[asyncio.Event, asyncio.Event]:
    """The endpoint is asked, and answers so when it may."""
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def send(request: Outgoing) -> Any:
        began.set()
        await goes_on.wait()
        return Answer(status, (), b"")

    desk.sender.send = send  # type: ignore[method-assign]
    return began, goes_on


def test_an_attempt_under_way_counts_and_is_the_last(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        began, goes_on = failing_while_it_is_cancelled(desk, 500)
        message_id = await desk.publish()
        attempt = asyncio.create_task(hear(desk))
        await began.wait()
        assert await cancel(desk) == {"cancelled": 1}
        assert await states(desk, message_id) == ["CANCEL_REQUESTED"]
        goes_on.set()
        await attempt
        assert await states(desk, message_id) == ["CANCELED"]

    with_desk(tmp_path, test)


class Slow:
    """A table whose every page takes a while, so that an order takes more than the caller waits."""

    def __init__(self, desk: Desk, ms: int) -> None:
        query = desk.table.query

        async def slowly(pk: str, **how: Any) -> Any:
            if pk.startswith("m#"):
                desk.clock.ms += ms
            return await query(pk, **how)

        desk.table.query = slowly  # type: ignore[method-assign]
        self._desk, self._query = desk, query

    def end(self) -> None:
        self._desk.table.query = self._query  # type: ignore[method-assign]


def test_what_is_left_after_two_seconds_follows_and_none_of_it_is_sent(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish() for _ in range(250)]
        bells = desk.rung.bells[:]
        desk.rung.bells.clear()
        slow = Slow(desk, 1_500)
        answer = await cancel(desk)
        slow.end()
        assert answer["more"] is True
        assert 0 < answer["cancelled"] < 250
        [order] = desk.rung.bells
        # Whoever hears a bell now sends nothing, although the order has not come so far.
        desk.rung.bells = bells
        await hear(desk)
        assert desk.sender.sent == []
        assert set(await states(desk, *ids)) == {"CANCELED"}
        desk.rung.bells = [order]
        await hear(desk)
        assert desk.rung.bells == []

    with_desk(tmp_path, test)


def test_an_order_goes_on_where_it_was(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(HOUR) for _ in range(250)]
        desk.rung.bells.clear()
        slow = Slow(desk, 1_500)
        first = (await cancel(desk))["cancelled"]
        slow.end()
        assert (await states(desk, *ids)).count("CANCELED") == first
        looked_at: list[str] = []
        query = desk.table.query

        async def watched(pk: str, **how: Any) -> Any:
            page = await query(pk, **how)
            looked_at.extend(item["id"] for item in page.items if "url" in item)
            return page

        desk.table.query = watched  # type: ignore[method-assign]
        await hear(desk)
        assert len(looked_at) == 250 - first
        assert set(await states(desk, *ids)) == {"CANCELED"}

    with_desk(tmp_path, test)


def test_an_order_whose_bell_is_lost_is_remembered(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(HOUR) for _ in range(250)]
        slow = Slow(desk, 3_000)
        await cancel(desk)
        slow.end()
        desk.rung.bells.clear()
        await ring_reminders(desk)
        assert set(await states(desk, *ids)) == {"CANCELED"}
        # Then it is forgotten.
        desk.clock.ms += 10 * MINUTE
        await ring_reminders(desk)
        assert (await desk.table.query("due#0")).items == []
        assert (await desk.table.query("one#orders")).items == []

    with_desk(tmp_path, test)


def test_a_busy_store_leaves_the_rest_to_others(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(HOUR) for _ in range(5)]
        query, failed = desk.table.query, 0

        async def busy(pk: str, **how: Any) -> Any:
            nonlocal failed
            if pk.startswith("m#") and not failed:
                failed += 1
                raise Busy("full")
            return await query(pk, **how)

        desk.table.query = busy  # type: ignore[method-assign]
        desk.rung.bells.clear()
        answer = await cancel(desk)
        assert answer == {"cancelled": 0, "more": True}
        await hear(desk)
        assert set(await states(desk, *ids)) == {"CANCELED"}

    with_desk(tmp_path, test)


def test_logs_tell_of_it(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish(HOUR)
        await cancel(desk)
        reply = await desk.call("GET", "/v2/events", query=f"messageId={message_id}")
        events = json.loads(reply.body())["events"]
        assert [event["state"] for event in events] == ["CANCELED", "CANCEL_REQUESTED", "CREATED"]

    with_desk(tmp_path, test)


def test_orders_over_many_shards(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        old = [await desk.publish({"Upstash-Delay": "1d"}) for _ in range(60)]
        desk.clock.ms += 10 * MINUTE
        await ring_reminders(desk)
        new = [await desk.publish(HOUR) for _ in range(60)]
        assert await cancel(desk, "count=50") == {"cancelled": 50}
        assert await cancel(desk) == {"cancelled": 70}
        assert set(await states(desk, *old, *new)) == {"CANCELED"}

    with_desk(tmp_path, test, policy=replace(Policy(), shards=13))


def test_publish_settings_are_not_filters(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = (await desk.call("POST", PUBLISH, HOUR)).content["messageId"]
        assert await cancel(desk, "qstash_token=token-one&host=example.com") == {"cancelled": 1}
        assert await states(desk, message_id) == ["CANCELED"]

    with_desk(tmp_path, test)


def test_an_attempt_that_fails_after_the_answer_is_no_dead_letter_although_the_order_has_not_come_to_it(
    tmp_path: Path,
) -> None:
    async def test(desk: Desk) -> None:
        for _ in range(150):
            await desk.publish(HOUR)
        desk.rung.bells.clear()
        began, goes_on = failing_while_it_is_cancelled(desk, 500)
        told = {"Upstash-Retries": "0", "Upstash-Failure-Callback": "https://example.com/told"}
        message_id = await desk.publish(told)
        attempt = asyncio.create_task(hear(desk))
        await began.wait()
        slow = Slow(desk, 3_000)
        assert (await cancel(desk))["more"] is True
        slow.end()
        desk.rung.bells.clear()
        goes_on.set()
        await attempt
        assert await states(desk, message_id) == ["CANCELED"]
        assert (await desk.call("GET", "/v2/dlq")).content["messages"] == []
        assert desk.rung.bells == []

    with_desk(tmp_path, test)


def test_one_at_a_time_goes_on_with_an_order(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(HOUR) for _ in range(250)]
        desk.rung.bells.clear()
        slow = Slow(desk, 3_000)
        await cancel(desk)
        slow.end()
        [order] = desk.rung.bells
        query, entered, goes_on = desk.table.query, asyncio.Event(), asyncio.Event()

        async def held_up(pk: str, **how: Any) -> Any:
            if pk.startswith("m#"):
                entered.set()
                await goes_on.wait()
            return await query(pk, **how)

        desk.table.query = held_up  # type: ignore[method-assign]
        first = asyncio.create_task(hear(desk))
        await entered.wait()
        # A second bell finds somebody at it, and a tick rings no sooner than he must be done.
        desk.rung.bells = [order]
        await hear(desk)
        assert desk.rung.bells == []
        await desk.service.look.tick()
        assert [bell.delay_ms for bell in desk.rung.bells if bell.ref == order.ref] == [30_000]
        desk.rung.bells.clear()
        goes_on.set()
        await first
        assert set(await states(desk, *ids)) == {"CANCELED"}

    with_desk(tmp_path, test)


def test_a_count_is_reached_although_some_end_meanwhile(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        ids = [await desk.publish(HOUR) for _ in range(120)]
        query, quicker = desk.table.query, iter(ids[:2])

        async def others_cancel_meanwhile(pk: str, **how: Any) -> Any:
            page = await query(pk, **how)
            if one := next(quicker, None):
                await desk.call("DELETE", f"/v2/messages/{one}")
            return page

        desk.table.query = others_cancel_meanwhile  # type: ignore[method-assign]
        assert await cancel(desk, "count=118") == {"cancelled": 118}
        assert set(await states(desk, *ids)) == {"CANCELED"}

    with_desk(tmp_path, test, policy=replace(Policy(), shards=3))
