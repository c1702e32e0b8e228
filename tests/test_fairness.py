from __future__ import annotations

from waypost.core.fairness import FairSlots


def test_one_host_may_use_all_slots_while_nobody_waits() -> None:
    slots = FairSlots(4)
    assert [slots.take("a") for _ in range(5)] == [True, True, True, True, False]


def test_others_come_first_while_one_host_holds_half() -> None:
    slots = FairSlots(4)
    for _ in range(4):
        slots.take("a")
    for number in range(3):
        slots.wait("a", f"a{number}")
    slots.wait("b", "b0")
    slots.wait("b", "b1")
    gone = []
    for _ in range(4):  # each request of a ends in turn
        slots.free("a")
        turn = slots.next()
        assert turn
        gone.append(turn[1])
    # 3 of a left: b. 2 left: b again. 1 left, then 1 + a0: a's turn.
    assert gone == ["b0", "b1", "a0", "a1"]


def test_who_waits_longest_at_a_host_goes_first_and_nothing_goes_without_a_slot() -> None:
    slots = FairSlots(1)
    assert slots.take("a")
    slots.wait("a", "first")
    slots.wait("a", "second")
    assert slots.next() is None
    slots.free("a")
    assert slots.next() == ("a", "first")
    assert slots.next() is None
    assert slots.waiting == 1
