"""An operator makes a message due that waits, over the real core."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support import NOW_MS, TWO, Desk, with_desk
from waypost.core.policy import DAY, HOUR, MINUTE
from waypost.core.ports import Answer, Bell, Change, Write

FAILED = Answer(500, (), b"")


async def retry(desk: Desk, message_id: str, status: int = 200) -> str:
    reply = await desk.call("POST", f"/v2/messages/{message_id}/retry")
    assert reply.status == status, reply
    return str(reply.content.get("error", ""))


@pytest.mark.parametrize("delay", ["400ms", "10s", "14m", "10d"])
def test_a_delayed_message_is_delivered_at_once_and_only_once(tmp_path: Path, delay: str) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Delay": delay, "Upstash-Retries": "2"})
        desk.rung.bells.clear()
        await retry(desk, message_id)
        await retry(desk, message_id)
        seen = await desk.seen(message_id)
        assert (seen["state"], seen["retried"], seen["nextDeliveryTime"]) == ("CREATED", 0, NOW_MS)
        desk.sender.answers.append(FAILED)
        await desk.deliver()
        assert desk.clock.ms <= NOW_MS + 400
        assert [dict(sent.headers)["Upstash-Retried"] for sent in desk.sender.sent] == ["0"]
        seen = await desk.seen(message_id)
        assert (seen["state"], seen["retried"], seen["nextDeliveryTime"]) == ("RETRY", 1, desk.clock.ms + 10_000)
        desk.clock.ms += 10_000
        await desk.deliver()
        assert (await desk.seen(message_id))["state"] == "DELIVERED"
        desk.clock.ms += 10 * DAY
        await desk.service.look.tick()
        await desk.deliver()
        assert len(desk.sender.sent) == 2

    with_desk(tmp_path, test)


def test_a_retrying_message_keeps_what_is_known_of_its_attempts(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Retry-Delay": "3600000", "Upstash-Retries": "1"})
        desk.sender.answers += [FAILED, FAILED]
        await desk.deliver()
        before = await desk.seen(message_id)
        assert before.pop("waiting").startswith("retry 1 at 2")
        desk.clock.ms += MINUTE
        await retry(desk, message_id)
        assert await desk.seen(message_id) == before | {"nextDeliveryTime": desk.clock.ms}
        await desk.deliver()
        seen = await desk.seen(message_id)
        assert (seen["state"], seen["retried"]) == ("FAILED", 2)

    with_desk(tmp_path, test)


def test_a_lost_bell_costs_the_time_to_the_next_tick(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        delayed = await desk.publish({"Upstash-Delay": "10d"})
        for _ in range(6):
            desk.clock.ms += MINUTE
            await desk.service.look.tick()
        await retry(desk, delayed)
        young = await desk.publish({"Upstash-Delay": "10d"})
        await retry(desk, young)
        desk.rung.bells.clear()
        await desk.service.look.tick()
        await desk.deliver()
        assert len(desk.sender.sent) == 2

    with_desk(tmp_path, test)


def test_what_does_not_wait_is_refused_with_its_state(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        delivered = await desk.publish()
        await desk.deliver()
        assert "DELIVERED" in await retry(desk, delivered, 409)
        cancelled = await desk.publish({"Upstash-Delay": "1h"})
        await desk.call("DELETE", f"/v2/messages/{cancelled}")
        assert "CANCELED" in await retry(desk, cancelled, 409)
        for unknown in ("msg_unknown", delivered[:-1] + "~"):
            await retry(desk, unknown, 404)
        assert (await desk.call("POST", f"/v2/messages/{delivered}/retry", token=TWO.token)).status == 404

        under_way = await desk.publish()
        send = desk.sender.send

        async def meanwhile(request: object) -> Answer:
            assert "being delivered" in await retry(desk, under_way, 409)
            await desk.call("DELETE", f"/v2/messages/{under_way}")
            await retry(desk, under_way, 409)
            return FAILED

        desk.sender.send = meanwhile  # type: ignore[assignment, method-assign]
        desk.rung.bells = desk.rung.bells[-1:]
        await desk.deliver()
        desk.sender.send = send  # type: ignore[method-assign]
        assert (await desk.seen(under_way))["state"] == "CANCELED"

    with_desk(tmp_path, test)


def test_a_cancel_and_a_retry_at_once_end_as_one_of_them_says(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Delay": "1h"})
        cancelled, _ = await asyncio.gather(
            desk.call("DELETE", f"/v2/messages/{message_id}"), desk.call("POST", f"/v2/messages/{message_id}/retry")
        )
        assert cancelled.content == {"cancelled": 1}
        await desk.deliver()
        assert desk.sender.sent == []

    with_desk(tmp_path, test)


def test_an_early_bell_of_what_nobody_made_due_waits(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Delay": "1h"})
        desk.rung.bells = [Bell(f"one#{message_id}", 50 * MINUTE)]
        await desk.deliver()
        assert desk.sender.sent == []
        assert [bell.delay_ms for bell in desk.rung.bells] == [10 * MINUTE]
        await desk.deliver()
        assert desk.clock.ms == NOW_MS + HOUR
        assert len(desk.sender.sent) == 1

    with_desk(tmp_path, test)


def test_a_tick_between_the_reminder_and_the_write_takes_the_reminder_away_from_nobody(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Delay": "10d"})
        desk.clock.ms += 10 * MINUTE
        await desk.service.look.tick()
        write = desk.table.write

        async def with_a_tick_before(one: Write, **how: Any) -> Any:
            if isinstance(one, Change):
                await desk.service.look.tick()
            return await write(one, **how)

        desk.table.write = with_a_tick_before  # type: ignore[method-assign]
        await retry(desk, message_id)
        desk.table.write = write  # type: ignore[method-assign]
        # Its bell is lost.
        desk.rung.bells.clear()
        desk.clock.ms += 3 * MINUTE
        await desk.service.look.tick()
        await desk.deliver()
        assert (await desk.seen(message_id))["state"] == "DELIVERED"

    with_desk(tmp_path, test)


def test_a_bell_that_is_early_by_less_than_the_claim_takes_is_not_lost(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish()
        desk.sender.answers = [Answer(500, (), b"")]
        await desk.deliver()
        desk.clock.ms = (await desk.seen(message_id))["nextDeliveryTime"] - 1
        desk.rung.bells = [Bell(f"one#{message_id}", 0)]
        write = desk.table.write

        async def slow(*what: Any, **how: Any) -> Any:
            try:
                return await write(*what, **how)
            finally:
                desk.clock.ms += 1

        desk.table.write = slow  # type: ignore[method-assign]
        await desk.deliver()
        assert (await desk.seen(message_id))["state"] == "DELIVERED"

    with_desk(tmp_path, test)
