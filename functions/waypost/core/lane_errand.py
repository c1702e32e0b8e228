"""A lane's own bells and reminders: the end of a full window, slots of which nothing is heard, a queue that is gone."""

from __future__ import annotations

from waypost.core.lane import (
    QUEUE_DELETED,
    Lane,
    entry_from,
    entry_key,
    lane_ref,
    line_of,
    place_bound,
)
from waypost.core.lane_store import LaneStore
from waypost.core.lanes import Lanes
from waypost.core.messages import Messages
from waypost.core.pending import named
from waypost.core.policy import MINUTE, SECOND
from waypost.core.ports import Bell, Delete, Ports
from waypost.core.some_at_once import some_at_once

#: A bell this early waits here.
_WAIT_HERE_MS = SECOND
#: Whoever cancels what was in a queue leaves the rest to another after so long.
_TURN_MS = 20 * SECOND
_PAGE = 100
#: A lane that is paused is looked at again after so long.
_PAUSED_MS = 30 * MINUTE


class LaneErrand:
    """As an errand: lets in who may start, and cancels who never will."""

    def __init__(self, ports: Ports, store: LaneStore, lanes: Lanes, messages: Messages) -> None:
        self._ports = ports
        self._store = store
        self._lanes = lanes
        self._messages = messages

    async def wake_at(self, account: str, name: str) -> int | None:
        digest = _digest(name)
        lane = await self._store.read(account, digest)
        if lane is None:
            return None
        now = self._ports.clock.now_ms()
        page = await self._ports.table.query(line_of(account, digest), limit=1)
        if not page.items:
            return lane.wake_at(now) if lane.held else None
        if entry_from(page.items[0]).place <= lane.void_below:
            return now
        return now + _PAUSED_MS if lane.paused_ms else lane.wake_at(now)

    async def run(self, account: str, name: str) -> None:
        digest = _digest(name)
        lane = await self._store.read(account, digest)
        if lane is None:
            return
        early_ms = lane.is_full_until(self._ports.clock.now_ms()) - self._ports.clock.now_ms()
        if 0 < early_ms <= _WAIT_HERE_MS:
            await self._ports.clock.sleep_ms(early_ms)
        inside = [one for one, held in lane.held.items() if held.place <= lane.void_below]
        if lane.void_below:
            await self._cancel_void(account, digest, lane, inside)
        await self._lanes.visit(account, digest, ask_all=bool(inside))

    async def _cancel_void(self, account: str, digest: str, lane: Lane, inside: list[str]) -> None:
        """What was in the queue when it was deleted; `inside`: what holds a slot."""
        until_ms = self._ports.clock.monotonic_ms() + _TURN_MS
        await self._cancel(account, inside)
        while True:
            page = await self._ports.table.query(
                line_of(account, digest), last=place_bound(lane.void_below + 1), limit=_PAGE
            )
            if not page.items:
                break
            if self._ports.clock.monotonic_ms() >= until_ms:
                await self._ports.doorbell.ring([Bell(lane_ref(account, digest), 0)])
                break
            entries = [entry_from(item) for item in page.items]
            await self._cancel(account, [one.message_id for one in entries])
            await self._ports.table.write_many([Delete(entry_key(account, digest, one.entrant)) for one in entries])

    async def _cancel(self, account: str, message_ids: list[str]) -> None:
        found = await named(self._ports, [f"{account}#{one}" for one in message_ids])

        async def stop(number: int) -> None:
            message, state = found[number]
            if message:
                await self._messages.stop(message, state, in_line=False, why=QUEUE_DELETED)

        await some_at_once(stop, range(len(found)), _PAGE)


def _digest(name: str) -> str:
    return name.partition("_")[2]
