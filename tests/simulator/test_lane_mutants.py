"""Broken rules of lanes that the simulator must notice: each is a mistake that a change could make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from simulator.enumeration import in_lanes
from simulator.history import run
from simulator.lane_scripts import LANE_SCRIPTS, arriving_as_others_leave, run_in_lanes
from simulator.lanes import Lanes as History
from waypost.core import deliver
from waypost.core.lane import Entry, Lane, Turn, entry_item
from waypost.core.lane_store import LaneStore
from waypost.core.lanes import NEVER_BEGUN, Admission, Lanes
from waypost.core.message import Message, State, place_in_line
from waypost.core.ports import Present, Put


def objections(mode: str, *names: str) -> list[str]:
    """The first that there are, without faults and then with each."""
    return _first(history for name in names for _, history in in_lanes(name, mode))


def objections_to_arrivals() -> list[str]:
    return _first(
        run(seed, arriving_as_others_leave, mode=mode, kind=History) for seed in range(1, 9) for mode in _MODES
    )


def objections_in_drawn(mode: str) -> list[str]:
    return _first(run_in_lanes(seed) for seed in range(1, 1_001) if _MODES[seed % len(_MODES)] == mode)


def _first(histories: Iterable[History]) -> list[str]:
    return next((found for history in histories if (found := history.check())), [])


_MODES = ("machine", "fleet", "cloud")
MODES = pytest.mark.parametrize("mode", ["fleet", "cloud"])


def test_no_second_read_of_the_line_after_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(self: object, *where: object) -> bool:
        return False

    monkeypatch.setattr(Lanes, "_has_come", nobody)
    assert objections_to_arrivals()


def test_no_read_of_the_lane_after_the_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    let_in = Lanes._let_in

    async def before(self: Lanes, messages: Sequence[Message], state: State = NEVER_BEGUN, **how: bool) -> None:
        last = messages[-1]
        account, lane, in_lane = last.account, last.lane, last.terms.lane
        assert in_lane
        entries = [Entry(place_in_line(one, state), one.id, one.terms.timeout_ms) for one in messages]
        standing = await self._store.read(account, lane)
        await self._ports.table.write_many([Put(entry_item(account, lane, one)) for one in entries])
        if standing is None or standing.room(self._ports.clock.now_ms()):
            await let_in(self, account, in_lane, entries, last.created_ms)

    monkeypatch.setattr(Lanes, "line_up", before)
    assert objections_to_arrivals()


@MODES
def test_a_request_that_outlives_its_lease(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(deliver, "LEASE_MARGIN_MS", -59_500)
    monkeypatch.setattr(deliver, "_SETTLE_MARGIN_MS", -(10**9))
    assert objections(mode, "told_twice", "queued_two_at_once")


@MODES
def test_a_lane_that_is_written_whatever_stands(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    async def write(self: LaneStore, account: str, standing: Lane | None, wanted: Lane) -> Lane:
        new = replace(wanted, version=(standing.version if standing else 0) + 1, boot=self._policy.boot)
        await self._ports.table.write(Put(new.to_item(account)))
        return new

    monkeypatch.setattr(LaneStore, "write", write)
    assert objections_in_drawn(mode) or objections(mode, "keyed")


@MODES
def test_a_claim_that_does_not_ask_whose_turn_it_is(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    async def at_once(self: Lanes, message: Message, place: int) -> Admission:
        return Admission(Turn.NOW)

    monkeypatch.setattr(Lanes, "turn", at_once)
    assert objections(mode, "paused", "queued_for_later")


def test_a_settle_without_the_token_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "settle_condition", lambda state: Present("state"))
    assert objections("fleet", "queued")
    assert objections("cloud", "deleted")


@MODES
def test_a_queue_that_does_not_wait_for_callbacks(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    async def ended(self: object, account: str, ids: Any) -> bool:
        return True

    monkeypatch.setattr(Lanes, "_have_ended", ended)
    assert objections(mode, "queued_with_callbacks")


@MODES
def test_slots_that_nobody_asks_after(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(Lane, "overdue", lambda self, now_ms, ask_all=False: [])
    assert objections(mode, *LANE_SCRIPTS)


@MODES
def test_a_start_in_a_window_that_is_over(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    turn = Lane.turn

    def never_late(self: Lane, message_id: str, place: int, now_ms: int) -> Turn:
        found = turn(self, message_id, place, now_ms)
        return Turn.NOW if found is Turn.LATE else found

    monkeypatch.setattr(Lane, "turn", never_late)
    assert objections(mode, "rated", "rated_and_few_at_once", "told_twice")


def test_no_bell_for_the_end_of_a_full_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lane, "waits_for_a_bell", lambda self, now_ms: False)
    assert objections_in_drawn("machine")
    assert objections_in_drawn("cloud")


def test_fewer_slots_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lane, "_free_slots", property(lambda self: max(0, 1 - len(self.held))))
    assert objections_in_drawn("machine")
    assert objections_in_drawn("cloud")


def test_slots_of_who_stands_elsewhere_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    async def keeps(self: object, message: Message, standing: Lane | None) -> None: ...

    monkeypatch.setattr(Lanes, "_leave_former_place", keeps)
    assert objections("machine", "rated_and_few_at_once")


def test_slots_and_bells_of_a_process_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lane, "as_seen_from", lambda self, boot: self)
    assert objections("machine", "rated", "keyed")
