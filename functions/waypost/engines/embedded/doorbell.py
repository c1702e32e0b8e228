"""Bells of one process: a heap in memory. What a crash loses, or finds no room, the tick rings again."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Sequence

from waypost.core.ports import Bell, Clock

#: A bell further ahead than this is rung again by the tick in any case; such bells get half of the places at most, so
#: that what is due soon always finds one.
_FAR_MS = 150_000
#: So many bells are heard without a pause before the loop gets its turn.
_IN_A_ROW = 64


class HeapDoorbell:
    """ports.Doorbell for one hearer; due times follow the monotonic clock, equal ones are heard as they were rung."""

    def __init__(self, clock: Clock, capacity: int = 100_000) -> None:
        self._clock = clock
        self._capacity = capacity
        self._later: list[tuple[int, int, str]] = []
        self._due: deque[str] = deque()
        self._rung = 0
        self._in_a_row = 0
        self._stir = asyncio.Event()
        #: When the hearer wakes by itself; None: it does not wait, or waits for any bell.
        self._alarm_ms: int | None = None

    async def ring(self, bells: Sequence[Bell]) -> int:
        not_taken = 0
        for ref, delay_ms, _ in bells:
            if self.room() <= (self._capacity // 2 if delay_ms > _FAR_MS else 0):
                not_taken += 1
            elif delay_ms > 0:
                self._rung += 1
                heapq.heappush(self._later, (self._clock.monotonic_ms() + delay_ms, self._rung, ref))
            else:
                self._sort_out()
                self._due.append(ref)
        if self._due or (self._later and (self._alarm_ms is None or self._later[0][0] < self._alarm_ms)):
            self._stir.set()
        return not_taken

    async def backlog(self) -> int:
        self._sort_out()
        return len(self._due)

    def room(self) -> int:
        """How many more bells would be taken."""
        return max(0, self._capacity - len(self._later) - len(self._due))

    def hear_nowait(self) -> str | None:
        """The ref of the bell that has been due for longest; None: no bell is due."""
        self._sort_out()
        return self._due.popleft() if self._due else None

    async def hear(self) -> str:
        """Waits for a bell to come due and returns its ref. A hearer that is cancelled has heard none."""
        self._in_a_row += 1
        if self._in_a_row >= _IN_A_ROW:
            self._in_a_row = 0
            await asyncio.sleep(0)
        while (ref := self.hear_nowait()) is None:
            self._in_a_row = 0
            await self._wait()
        return ref

    async def _wait(self) -> None:
        self._stir.clear()
        timer: asyncio.TimerHandle | None = None
        if self._later:
            self._alarm_ms = self._later[0][0]
            # A timer of the loop may be early by a fraction of a millisecond: never wait for nothing.
            wait_ms = max(1, self._alarm_ms - self._clock.monotonic_ms())
            timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._stir.set)
        try:
            await self._stir.wait()
        finally:
            self._alarm_ms = None
            if timer is not None:
                timer.cancel()

    def _sort_out(self) -> None:
        if self._later:
            now_ms = self._clock.monotonic_ms()
            while self._later and self._later[0][0] <= now_ms:
                self._due.append(heapq.heappop(self._later)[2])
