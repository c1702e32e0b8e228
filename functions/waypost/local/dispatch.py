"""The local engine's worker: hears bells and delivers, many messages at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from waypost.core.deliver import Deliverer
from waypost.core.destination import host_of
from waypost.core.fairness import FairSlots
from waypost.core.message import Message
from waypost.core.ports import Bell, Busy, Unavailable
from waypost.engines.embedded.doorbell import HeapDoorbell

_log = logging.getLogger("waypost.deliver")
#: A delivery that the store kept from happening is tried again after this.
_AGAIN_MS = 1_000


class Dispatcher:
    def __init__(self, deliverer: Deliverer, doorbell: HeapDoorbell, slots: int) -> None:
        self._deliverer = deliverer
        self._doorbell = doorbell
        self._slots = FairSlots(slots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._most_waiting = 64 * slots
        self._draining = False
        self._room = asyncio.Event()
        self._room.set()

    async def run(self) -> None:
        """Hears and delivers until cancelled; then no new attempt starts."""
        while True:
            await self._room.wait()
            ref = await self._doorbell.hear()
            self._start(self._arrive(ref))

    async def drain(self) -> None:
        """Waits for the attempts under way; what waits for a slot is left to the next start."""
        self._draining = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        self._set_room()

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._set_room()

    def _set_room(self) -> None:
        if len(self._tasks) + self._slots.waiting < self._most_waiting:
            self._room.set()
        else:
            self._room.clear()

    async def _arrive(self, ref: str) -> None:
        message = await self._find(ref)
        if message is None:
            return
        host = host_of(message.url)
        if self._slots.take(host):
            await self._deliver(message, host)
        else:
            self._slots.wait(host, ref)

    async def _resume(self, host: str, ref: str) -> None:
        message = await self._find(ref)
        if message is None:
            self._release(host)
            return
        await self._deliver(message, host)

    async def _deliver(self, message: Message, host: str) -> None:
        try:
            await self._deliverer.deliver(message)
        except (Busy, Unavailable) as failed:
            _log.warning("delivery of %s waits for the store: %s", message.id, failed)
            await self._doorbell.ring([Bell(message.ref, _AGAIN_MS)])
        except Exception:  # noqa: BLE001 - one delivery's error must not end the worker
            _log.exception("delivery of %s failed", message.id)
        finally:
            self._release(host)

    def _release(self, host: str) -> None:
        self._slots.free(host)
        while not self._draining and (turn := self._slots.next()):
            self._start(self._resume(*turn))

    async def _find(self, ref: str) -> Message | None:
        try:
            return await self._deliverer.find(ref)
        except (Busy, Unavailable) as failed:
            _log.warning("the store failed: %s", failed)
            await self._doorbell.ring([Bell(ref, _AGAIN_MS)])
        except Exception:  # noqa: BLE001 - one message's error must not end the worker, nor keep its slot
            _log.exception("%s can't be read", ref)
        return None
