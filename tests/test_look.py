from __future__ import annotations

import asyncio
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support import NOW_MS, Desk, with_desk
from waypost.core.look import Forget, Leave, Move, plan_visit
from waypost.core.message import Message, Phase, State
from waypost.core.policy import DAY, MINUTE, SECOND
from waypost.core.reminder import Looked, reminder_after
from waypost.core.terms import Terms

MESSAGE = Message(
    id="msg_" + "0" * 26,
    pk="m#0#0",
    account="one",
    url="https://example.com",
    terms=Terms("POST", (), retries=3, timeout_ms=60_000),
    created_ms=NOW_MS,
    due_ms=NOW_MS,
    caller_ip="",
    body={"raw": b""},
    ttl_ms=10**15,
)


def visit(message: Message | None, state: State, at: int = NOW_MS, late: bool = False, boot: str = "") -> object:
    return plan_visit(message, state, at_ms=at, now_ms=NOW_MS, boot=boot, bells_are_late=late)


def test_a_reminder_of_what_is_final_is_forgotten() -> None:
    for phase in (Phase.DELIVERED, Phase.FAILED, Phase.CANCELLED):
        assert visit(MESSAGE, State(phase=phase)) == Forget()


def test_a_reminder_before_its_message_is_left_until_its_time() -> None:
    assert visit(None, State(), at=NOW_MS + 1) == Leave()
    assert visit(None, State(), at=NOW_MS) == Forget()


def test_what_is_due_rings_and_is_looked_at_again_beyond_the_horizon() -> None:
    plan = visit(MESSAGE, State())
    assert isinstance(plan, Move)
    assert plan.ring_in_ms == 0
    assert plan.to_ms > NOW_MS + 150 * SECOND


def test_what_comes_due_within_the_horizon_rings_with_the_exact_delay() -> None:
    plan = visit(MESSAGE, State(phase=Phase.RETRY, due_ms=NOW_MS + 149_500))
    assert isinstance(plan, Move)
    assert plan.ring_in_ms == 149_500


def test_what_is_due_later_moves_to_its_due_time_without_a_bell() -> None:
    assert visit(MESSAGE, State(phase=Phase.RETRY, due_ms=NOW_MS + DAY)) == Move(NOW_MS + DAY, None)


def test_late_bells_are_not_doubled_for_what_was_never_attempted() -> None:
    plan = visit(MESSAGE, State(), late=True)
    assert isinstance(plan, Move)
    assert plan.ring_in_ms is None
    retried = visit(MESSAGE, State(phase=Phase.RETRY, due_ms=NOW_MS), late=True)
    assert isinstance(retried, Move)
    assert retried.ring_in_ms == 0


def test_a_lease_of_an_earlier_boot_is_over() -> None:
    held = State(phase=Phase.ACTIVE, lease_ms=NOW_MS + DAY, boot="before")
    assert visit(MESSAGE, held, boot="now") == Move(reminder_after(0, NOW_MS), 0)
    assert visit(MESSAGE, held) == Move(NOW_MS + DAY, None)


def test_reminders_of_one_message_meet() -> None:
    times = {reminder_after(NOW_MS - 50 * SECOND, NOW_MS + ms) for ms in range(0, 5_000, 500)}
    assert len(times) <= 2


def test_an_id_never_gets_a_minute_that_was_looked_at() -> None:
    looked = Looked(minute=NOW_MS // MINUTE + 5)
    assert looked.minute_for_new_id(NOW_MS) == NOW_MS // MINUTE + 6
    assert Looked().minute_for_new_id(NOW_MS) == NOW_MS // MINUTE


def test_the_life_of_what_is_unfinished_is_lengthened_with_its_body(tmp_path: Path) -> None:
    body = random.Random(3).randbytes(30_000)

    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Delay": "1d", "Upstash-Retries": "0"}, body)
        first_ttl = next(iter(await items(desk, message_id)))["ttl"]
        desk.rung.bells.clear()
        for _ in range(30):  # nobody delivers for 30 days, the tick alone goes on
            desk.clock.ms += DAY
            while await desk.service.look.tick():
                pass
        item = next(iter(await items(desk, message_id)))
        assert item["ttl"] > first_ttl
        assert item["ttl"] > desk.clock.ms // 1000 + 6 * 86_400
        days, day, *_ = item["body"]["blob"].split("/")
        written = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
        assert (written + timedelta(days=int(days))).timestamp() > item["ttl"]
        desk.rung.bells.clear()
        while not desk.rung.bells:
            desk.clock.ms += MINUTE
            await desk.service.look.tick()
        await desk.deliver()
        assert desk.sender.sent[0].body == body
        assert (await desk.seen(message_id))["state"] == "DELIVERED"

    async def items(desk: Desk, message_id: str) -> list[dict[str, object]]:
        message = await desk.service.deliverer.find(f"one#{message_id}")
        assert message
        item = await desk.table.get(message.key)
        assert item
        return [dict(item)]

    with_desk(tmp_path, test)


def test_a_body_that_is_gone_keeps_no_other_message_waiting(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        big = random.Random(4).randbytes(30_000)
        ids = [await desk.publish({"Upstash-Delay": "30d"}, big if n == 3 else b"x") for n in range(6)]
        shutil.rmtree(tmp_path / "blobs")
        desk.rung.bells.clear()
        for _ in range(30 * 24 * 2):
            desk.clock.ms += 30 * MINUTE
            while await desk.service.look.tick():
                pass
        assert {bell.ref for bell in desk.rung.bells} == {f"one#{message_id}" for message_id in ids}

    with_desk(tmp_path, test)


def test_a_message_accepted_before_the_first_tick_is_not_forgotten(tmp_path: Path) -> None:
    desk = Desk(tmp_path)  # nobody has opened the look

    async def test() -> None:
        message_id = await desk.publish()
        desk.rung.bells.clear()
        desk.clock.ms += 60 * MINUTE
        while await desk.service.look.tick():
            pass
        assert [bell.ref for bell in desk.rung.bells] == [f"one#{message_id}"]

    asyncio.run(test())
    desk.store.close()
