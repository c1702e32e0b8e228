"""Broken rules that the simulator must notice: each is a mistake that a change could make."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from simulator.enumeration import histories
from waypost.core import accept, cancel, dead_letters, deliver, firing, look, order, publish, schedules
from waypost.core.cron import read_cron
from waypost.core.cursor import move_cursor
from waypost.core.deliver import Attempt, Deliverer
from waypost.core.look import Look
from waypost.core.message import Message
from waypost.core.ports import Busy, ConditionFailed, Delete, Key, Present, Put, Unavailable
from waypost.engines.embedded.table import EmbeddedTable

MODES = pytest.mark.parametrize("mode", ["fleet", "cloud"])


def objections(mode: str, *names: str) -> list[str]:
    """The first that there are."""
    return next((found for name in names for _, history in histories(name, mode) if (found := history.check())), [])


@MODES
def test_a_settle_without_the_token_check(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(deliver, "settle_condition", lambda state: Present("state"))
    assert objections(mode, "retried", "cancelled_between_retries")


@MODES
def test_a_dedup_loser_that_does_not_help(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    async def nothing(self: object, message: object, watch: object) -> None:
        pass

    monkeypatch.setattr(publish.Publisher, "_help", nothing)
    assert objections(mode, "dedup")


def test_a_batch_whose_messages_count_as_stored_although_the_store_was_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hope(self: publish.Publisher, messages: list[Message], watch: object) -> dict[str, object]:
        with contextlib.suppress(Busy, Unavailable):
            await self._ports.table.write_many([Put(one.to_item()) for one in messages])
        return {}

    monkeypatch.setattr(publish.Publisher, "_write_all", hope)
    assert objections("cloud", "batched")


@MODES
def test_a_reminder_deleted_before_the_new_one_is_written(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    async def delete_first(self: Look, moves: list[tuple[Any, Any]], bells: list[Any]) -> None:
        moved = [(item, new) for item, new in moves if look._key(item) != new.key]
        if moved:
            await self._ports.table.write_many([Delete(look._key(item)) for item, _ in moved])
            await self._ports.table.write_many([new for _, new in moved])
        if bells:
            await self._ports.doorbell.ring(bells)

    monkeypatch.setattr(Look, "_move_reminders", delete_first)
    assert objections(mode, "farther_delay")


@MODES
def test_a_cursor_moved_before_the_reminders(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    async def cursor_first(self: Look, seen: int, last: int) -> bool:
        self._looked.minute = max(self._looked.minute, last)
        if not await move_cursor(self._ports, seen, last):
            return False
        for minute in range(seen + 1, last + 1):
            await self._remind_unfinished(minute)
        return True

    monkeypatch.setattr(Look, "_advance", cursor_first)
    assert objections(mode, "far_delay")


@MODES
def test_no_reminder_before_a_late_retry(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(deliver, "needs_reminder", lambda *facts: False)
    assert objections(mode, "retried_after_the_look")


def test_an_answer_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    write = EmbeddedTable.write

    async def relaxed(self: EmbeddedTable, one: Any, *, relaxed: bool = False) -> Any:
        return await write(self, one, relaxed=True)

    monkeypatch.setattr(EmbeddedTable, "write", relaxed)
    assert objections("machine", "plain")


def test_a_publisher_that_does_not_open_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(ports: object, looked: object) -> None:
        pass

    monkeypatch.setattr(accept, "open_cursor", nothing)
    assert objections("cloud", "no_ticks_at_first")


def test_an_eventual_read_that_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    named = look.named

    async def believing(ports: Any, refs: Any) -> Any:
        async def absent(key: Key) -> None:
            pass

        table = SimpleNamespace(get_many=ports.table.get_many, get=absent)
        return await named(SimpleNamespace(table=table, clock=ports.clock), refs)  # type: ignore[arg-type]

    monkeypatch.setattr(look, "named", believing)
    assert objections("cloud", "no_ticks_after_the_look")


@MODES
def test_a_settle_that_is_not_repeated(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    settle = Deliverer._settle

    async def once(self: Deliverer, attempt: Attempt, *what: Any) -> Any:
        # It is repeated until the lease ends.
        return await settle(self, Attempt(attempt.message, replace(attempt.state, lease_ms=0)), *what)

    monkeypatch.setattr(Deliverer, "_settle", once)
    assert objections(mode, "plain")


@MODES
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_callbacks_that_are_not_stored_together_with_the_settle(
    monkeypatch: pytest.MonkeyPatch, mode: str, first: bool
) -> None:
    whole = Deliverer._write_settled

    async def apart(self: Deliverer, message: Any, settled: Any, held: Any, outcome: Any, callbacks: Any) -> None:
        if not first:
            await whole(self, message, settled, held, outcome, ())
        for one in callbacks:
            await self._ports.table.write(Put(one.to_item()))
        if first:
            await whole(self, message, settled, held, outcome, ())

    monkeypatch.setattr(Deliverer, "_write_settled", apart)
    assert objections(mode, "called_back", "called_back_about_the_end")


@MODES
def test_a_dead_letter_that_is_removed_without_a_condition(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(dead_letters, "_removal", lambda letter: Delete(letter.key))
    assert objections(mode, "revived")


def test_an_attempt_that_does_not_ask_for_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: object, message: object) -> bool:
        return False

    monkeypatch.setattr(order.OpenOrders, "cover", never)
    assert objections("fleet", "ordered_off")
    assert objections("cloud", "ordered_off")


def test_an_attempt_that_relies_on_what_it_knew_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "KNOWN_FOR_MS", 10**9)
    assert objections("fleet", "ordered_off")


@MODES
def test_an_order_that_does_not_go_through_reminders(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    async def none(self: object, *where: object) -> Any:
        return
        yield

    monkeypatch.setattr(cancel.Canceller, "_of_reminders", none)
    assert objections(mode, "all_cancelled_long_after")


@MODES
def test_a_schedule_that_is_fired_without_a_name_for_its_occurrence(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    publish_it = firing.Firer.publish

    async def nameless(self: firing.Firer, schedule: Any, *, dedup: str = "") -> Any:
        return await publish_it(self, schedule)

    monkeypatch.setattr(firing.Firer, "publish", nameless)
    assert objections(mode, "scheduled")


@MODES
def test_a_schedule_that_moves_on_before_it_publishes(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    async def first(self: firing.Firer, schedule: Any, now: int) -> None:
        occurrence = read_cron(schedule.cron).latest(schedule.next_ms, now)
        moved = replace(schedule, next_ms=schedules.next_after(schedule.cron, occurrence))
        with contextlib.suppress(ConditionFailed):
            await self._schedules.replace(schedule, moved)
            await self.publish(schedule, dedup=f"schedule:{schedule.id}:{occurrence}")

    monkeypatch.setattr(firing.Firer, "_fire", first)
    assert objections(mode, "scheduled")


@MODES
def test_a_schedule_that_is_made_due_without_a_reminder(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    async def nothing(self: object, schedule: object) -> None:
        pass

    monkeypatch.setattr(schedules.Schedules, "arm", nothing)
    assert objections(mode, "scheduled")


@MODES
def test_a_reminder_written_after_its_schedule(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    arm, ring = schedules.Schedules.arm, schedules.Schedules.ring

    async def nothing(self: object, schedule: object) -> None:
        pass

    async def late(self: schedules.Schedules, schedule: Any) -> None:
        await arm(self, schedule)
        await ring(self, schedule)

    monkeypatch.setattr(schedules.Schedules, "arm", nothing)
    monkeypatch.setattr(schedules.Schedules, "ring", late)
    assert objections(mode, "resumed_as_the_tick_looks", "scheduled")


@MODES
def test_a_firing_of_what_was_read_before_its_time(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    async def at_once(self: firing.Firer, account: str, name: str) -> None:
        schedule, now = await self._schedules.find(account, name), self._ports.clock.now_ms()
        if schedule and schedule.wake_ms is not None and schedule.wake_ms - now <= 1_000:
            await self._ports.clock.sleep_ms(max(0, schedule.wake_ms - now))
            await self._fire(schedule, max(now, schedule.wake_ms))

    monkeypatch.setattr(firing.Firer, "run", at_once)
    assert objections(mode, "schedules_changed_as_they_fire")
