"""What a doorbell must do. On a loop whose time jumps to the next timer, so that nobody sleeps."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from waypost.core.ports import LONGEST_BELL_MS, Bell
from waypost.engines.embedded.doorbell import HeapDoorbell


class JumpingLoop(asyncio.SelectorEventLoop):
    """ports.Clock, too."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        super().__init__(_Jumps(self))

    def time(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return self.monotonic_ms()

    def monotonic_ms(self) -> int:
        return int(self.now_s * 1000 + 1e-6)

    async def sleep_ms(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)


class _Jumps(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for ever"
        self._loop.now_s += timeout
        return super().select(0)


Story = Callable[[JumpingLoop], Coroutine[Any, Any, None]]


def on_jumping_loop(story: Story) -> Callable[[], None]:
    def test() -> None:
        loop = JumpingLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(story(loop))

    test.__name__ = story.__name__
    test.__doc__ = story.__doc__
    return test


@on_jumping_loop
async def test_bells_are_heard_when_due_and_in_that_order(loop: JumpingLoop) -> None:
    doorbell = HeapDoorbell(loop)
    start = loop.monotonic_ms()
    delays = [5_000, 0, LONGEST_BELL_MS, 1, 250, 249]
    assert await doorbell.ring([Bell(str(ms), ms) for ms in delays]) == 0
    for ms in sorted(delays):
        assert await doorbell.hear() == str(ms)
        # Never early; a timer may be late by a millisecond or two.
        assert ms <= loop.monotonic_ms() - start <= ms + 2


@on_jumping_loop
async def test_bells_due_together_are_heard_as_they_were_rung(loop: JumpingLoop) -> None:
    doorbell = HeapDoorbell(loop)
    for n in range(300):
        await doorbell.ring([Bell(str(n), 7)])
    assert [await doorbell.hear() for _ in range(300)] == [str(n) for n in range(300)]


@on_jumping_loop
async def test_a_bell_rung_twice_is_heard_twice(loop: JumpingLoop) -> None:
    doorbell = HeapDoorbell(loop)
    await doorbell.ring([Bell("a", 0), Bell("a", 10)])
    assert [await doorbell.hear(), await doorbell.hear()] == ["a", "a"]


@on_jumping_loop
async def test_the_backlog_is_what_is_due_and_not_yet_heard(loop: JumpingLoop) -> None:
    doorbell = HeapDoorbell(loop)
    assert await doorbell.backlog() == 0
    await doorbell.ring([Bell("a", 0), Bell("b", -5), Bell("c", 1_000), Bell("d", 60_000)])
    assert await doorbell.backlog() == 2
    assert doorbell.hear_nowait() == "a"
    assert await doorbell.backlog() == 1
    await loop.sleep_ms(1_000)
    assert await doorbell.backlog() == 2
    assert [doorbell.hear_nowait() for _ in range(3)] == ["b", "c", None]


@on_jumping_loop
async def test_what_finds_no_room_is_not_taken(loop: JumpingLoop) -> None:
    doorbell = HeapDoorbell(loop, capacity=3)
    assert await doorbell.ring([Bell("a", 0), Bell("b", 0)]) == 0
    assert doorbell.room() == 1
    assert await doorbell.ring([Bell("c", 9_000), Bell("d", 0), Bell("e", 0)]) == 2
    assert await doorbell.ring([Bell("f", 0)]) == 1
    assert doorbell.room() == 0
    assert await doorbell.hear() == "a"
    assert await doorbell.ring([Bell("g", 1)]) == 0
    assert [await doorbell.hear() for _ in range(3)] == ["b", "g", "c"]
    assert doorbell.room() == 3


@on_jumping_loop
async def test_whoever_waits_hears_a_bell_that_is_due_earlier(loop: JumpingLoop) -> None:
    doorbell = HeapDoorbell(loop)
    for already in ([], [Bell("late", 60_000)]):
        await doorbell.ring(already)
        start = loop.monotonic_ms()
        hearing = asyncio.create_task(doorbell.hear())
        await asyncio.sleep(0)
        await doorbell.ring([Bell("later", 500), Bell("soon", 100)])
        assert await hearing == "soon"
        assert loop.monotonic_ms() - start <= 102
        assert await doorbell.hear() == "later"
    assert await doorbell.hear() == "late"


@on_jumping_loop
async def test_a_hearer_that_gives_up_takes_no_bell_with_it(loop: JumpingLoop) -> None:
    doorbell = HeapDoorbell(loop)
    await doorbell.ring([Bell("a", 1_000)])
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(doorbell.hear(), 0.1)
    hearing = asyncio.create_task(doorbell.hear())
    await asyncio.sleep(0)
    await doorbell.ring([Bell("b", 0)])
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
    assert [await doorbell.hear(), await doorbell.hear()] == ["b", "a"]


@on_jumping_loop
async def test_a_hearer_of_many_bells_lets_others_run(loop: JumpingLoop) -> None:
    doorbell = HeapDoorbell(loop)
    await doorbell.ring([Bell("", 0)] * 10_000)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(10_000):
        await doorbell.hear()
    task.cancel()
    assert turns >= 100


def test_bells_far_ahead_leave_half_of_the_places_to_those_that_are_due_soon() -> None:
    async def test(loop: JumpingLoop) -> None:
        doorbell = HeapDoorbell(loop, capacity=10)
        assert await doorbell.ring([Bell(f"far{n}", 600_000) for n in range(10)]) == 5
        assert await doorbell.ring([Bell("now", 0), Bell("soon", 10_000)]) == 0
        assert await doorbell.hear() == "now"
        assert await doorbell.hear() == "soon"
        assert await doorbell.ring([Bell(f"now{n}", 0) for n in range(6)]) == 1

    loop = JumpingLoop()
    try:
        loop.run_until_complete(test(loop))
    finally:
        loop.close()
