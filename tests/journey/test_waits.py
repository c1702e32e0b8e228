"""The two waits that nothing shortens: they start with the first journey and are awaited after all other tests."""

from __future__ import annotations

import pytest

from journey.harness import CLOCKS_S, LongWaits, Server

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
