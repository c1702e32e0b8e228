"""An event loop on virtual time whose order of callbacks is drawn from a seed."""

from __future__ import annotations

import asyncio
import random
from typing import Any


class NothingLeft(Exception):
    """Every task waits for something that will never come."""


class _NoSockets:
    """Stands where the loop looks for ready sockets: shuffles what is ready, or jumps to what is next."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        ready = self._loop._ready
        if ready:
            handles = list(ready)
            self._loop.rng.shuffle(handles)
            ready.clear()
            ready.extend(handles)
        elif timeout is None:
            raise NothingLeft
        else:
            self._loop.now_s += timeout
        return []

    def close(self) -> None:
        pass


class SimLoop(asyncio.BaseEventLoop):
    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.now_s = 1_000.0
        self._selector = _NoSockets(self)
        # Tasks of the killed stay pending for ever, which is what they are for.
        self.set_exception_handler(lambda loop, context: None)

    def time(self) -> float:
        return self.now_s

    def _process_events(self, events: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
