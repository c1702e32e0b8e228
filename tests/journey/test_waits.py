"""The waits that nothing shortens: they start with the first journey and are awaited after all other tests."""

from __future__ import annotations

import pytest
from qstash import QStash
from qstash.schedule import Schedule, ScheduleState

from journey.harness import CLOCKS_S, LongWaits, Server, wait_until

pytestmark = pytest.mark.awaited_last


def test_the_first_retry_comes_after_ten_seconds(long_waits: LongWaits, server: Server):
    server.wait_for_state(long_waits.retried_id, "DELIVERED", 12)

    first, second = long_waits.retried.deliveries()

    assert (first.status, second.status) == (500, 200)
    assert first.answered
    assert 10 - CLOCKS_S <= second.arrived - first.answered <= 10 + 3 * 1  # three times the second it may be late


def test_an_answer_of_65_seconds_is_waited_for(long_waits: LongWaits, server: Server):
    server.wait_for_state(long_waits.slow_id, "DELIVERED", 70)

    [only] = long_waits.slow.deliveries()

    assert only.status == 200
    assert only.answered
    assert only.answered - only.arrived >= 65 - CLOCKS_S


def test_a_schedule_fires_when_its_minute_comes(long_waits: LongWaits, python: QStash, server: Server):
    first = long_waits.scheduled.wait_for(1, 70)[0]

    schedule = wait_until(lambda: delivered(python, long_waits.schedule_id), server.fires_within_s)

    python.schedule.delete(long_waits.schedule_id)
    assert schedule.last_schedule_time
    assert schedule.last_schedule_time % 60_000 == 0
    assert (first.body, first.header("Upstash-Schedule-Id")) == (b"each minute", long_waits.schedule_id)
    deliveries = long_waits.scheduled.deliveries()
    ids = [one.header("Upstash-Message-Id") for one in deliveries]
    assert len(set(ids)) == len(ids)
    created = [server.message(str(message_id))["createdAt"] for message_id in ids]
    assert created[0] % 60_000 <= 3 * server.fires_within_s * 1_000  # three times what it should be
    assert len({ms // 60_000 for ms in created}) == len(created), "one of each minute"


def delivered(python: QStash, schedule_id: str) -> Schedule | None:
    """The schedule, if all messages of its last firing are."""
    schedule = python.schedule.get(schedule_id)
    states = set((schedule.last_schedule_states or {}).values())
    return schedule if states == {ScheduleState.SUCCESS} else None
