"""The machine's clocks and its randomness."""

from __future__ import annotations

import asyncio
import os
import time

_PAGE = 4096


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    async def sleep_ms(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)


class SystemRandomness:
    """Unpredictable bytes from the operating system, fetched by the page: a call for each id costs more than the id."""

    def __init__(self) -> None:
        self._page = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        if self._at + count > len(self._page):
            self._page, self._at = os.urandom(max(_PAGE, count)), 0
        start, self._at = self._at, self._at + count
        return self._page[start : self._at]
