"""The local engine's worker: hears bells and delivers, many messages at once."""

from __future__ import annotations

import asyncio
import logging

from waypost.core.deliver import AGAIN_MS, Deliverer
from waypost.core.destination import host_of
from waypost.core.errands import Errands
from waypost.core.fairness import FairSlots
from waypost.core.ports import Bell, Busy, Unavailable
from waypost.engines.embedded.doorbell import HeapDoorbell

_log = logging.getLogger("waypost.deliver")


class Dispatcher:
    """Hands bells to tasks that live on: making one for each message costs more than waking one."""

    def __init__(self, deliverer: Deliverer, errands: Errands, doorbell: HeapDoorbell, slots: int) -> None:
        self._deliverer = deliverer
        self._errands = errands
        self._doorbell = doorbell
        self._slots = FairSlots(slots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[str]] = []
        self._most_idle = slots
        self._most_waiting = 64 * slots
        self._busy = 0
        self._draining = False
        self._room = asyncio.Event()
        self._room.set()
        self._quiet = asyncio.Event()

    async def run(self) -> None:
        """Hears and delivers until cancelled; then no new attempt starts."""
        loop = asyncio.get_running_loop()
        while True:
            await self._room.wait()
            ref = await self._doorbell.hear()
            self._busy += 1
            if self._busy + self._slots.waiting >= self._most_waiting:
                self._room.clear()
            if self._idle:
                self._idle.pop().set_result(ref)
            else:
                task = loop.create_task(self._work(ref))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Waits for the attempts under way; what waits for a slot is left to the next start."""
        self._draining = True
        if self._busy:
            await self._quiet.wait()

    async def let_go(self) -> None:
        """Gives back the attempts under way, together: one after the other, each would wait for a commit of its own."""
        for failed in await asyncio.gather(*self._deliverer.let_go(), return_exceptions=True):
            if failed:
                _log.warning("an attempt under way was not given back: %s", failed)

    async def _work(self, ref: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._handle(ref)
            while not self._draining and (turn := self._slots.next()):
                self._make_room()
                await self._handle(turn[1], turn[0])
            self._busy -= 1
            self._make_room()
            if self._draining and not self._busy:
                self._quiet.set()
            if len(self._idle) >= self._most_idle:
                return
            rest = loop.create_future()
            self._idle.append(rest)
            ref = await rest

    def _make_room(self) -> None:
        if not self._room.is_set() and self._busy + self._slots.waiting < self._most_waiting:
            self._room.set()

    async def _handle(self, ref: str, slot: str = "") -> None:
        """Delivers what the bell speaks of, or puts it in line behind its host. `slot` is the host whose slot is taken
        for it already."""
        try:
            if self._errands.know(ref):
                if note := await self._errands.run(ref):
                    _log.warning("%s: %s", ref, note)
                return
            message = await self._deliverer.find(ref)
            if message is None:
                return
            if not slot:
                host = host_of(message.url)
                if not self._slots.take(host):
                    self._slots.wait(host, ref)
                    return
                slot = host
            await self._deliverer.deliver(message)
        except (Busy, Unavailable) as failed:
            _log.warning("delivery of %s waits for the store: %s", ref, failed)
            await self._doorbell.ring([Bell(ref, AGAIN_MS)])
        except Exception:  # noqa: BLE001 - one delivery's error must not end the worker, nor keep its slot
            _log.exception("delivery of %s failed", ref)
        finally:
            if slot:
                self._slots.free(slot)
