"""What operators do to lanes, and what readers see of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from waypost.core.lane import Lane, entry_from, lane_ref, line_of, place_bound
from waypost.core.lane_store import LaneStore
from waypost.core.lanes import Lanes, count_at_work
from waypost.core.message import Message, Phase, State, due_of, lane_digest, place_in_line
from waypost.core.policy import Policy
from waypost.core.ports import MAX, Bell, Item, Ports
from waypost.core.reminder import LOOK_AFTER_MS, remind
from waypost.core.some_at_once import some_at_once
from waypost.core.terms import LaneKind, Limits

#: So far is counted who stands in a line.
_COUNTED = 1_000


class Standing(Struct, frozen=True):
    """A lane as readers see it. `lag`: how many of its messages stand in line or hold a slot."""

    lane: Lane
    lag: int


class LaneOperations:
    def __init__(self, ports: Ports, policy: Policy, store: LaneStore, lanes: Lanes) -> None:
        self._ports = ports
        self._policy = policy
        self._store = store
        self._lanes = lanes

    async def read(self, account: str, kind: LaneKind, name: str) -> Standing | None:
        """None: it was never used, or is a queue that was deleted."""
        lane = await self._store.read(account, lane_digest(kind, name))
        return await self._with_line(account, lane) if lane and not lane.gone else None

    async def all(self, account: str, kind: LaneKind, part: str = "") -> Sequence[Standing]:
        """Those whose names have this part, in order."""
        lanes = await self.lanes(account, kind, part)
        return await some_at_once(lambda lane: self._with_line(account, lane), lanes)

    async def lanes(self, account: str, kind: LaneKind, part: str = "") -> Sequence[Lane]:
        """Likewise, whoever stands in their lines."""
        names = await self._store.names(account, kind, part)
        found = await some_at_once(lambda name: self._store.read(account, lane_digest(kind, name)), names)
        return [one for one in found if one and not one.gone]

    async def _with_line(self, account: str, lane: Lane) -> Standing:
        """A long line is reckoned from the places that were given out and left; who took one and died before his
        message was stored is in that, but in no count."""
        digest = lane_digest(lane.kind, lane.name)
        entries = await self._line(account, digest, lane)
        waiting = sum(not lane.holds(entry_from(one).entrant) for one in entries)
        if len(entries) == _COUNTED:
            given, left = await self._store.places(account, digest)
            waiting = max(waiting, given - left - lane.left - len(lane.held))
        inside = sum(held.place > lane.void_below for held in lane.held.values())
        return Standing(lane, waiting + inside)

    async def at_work(self, account: str, lane: Lane) -> int:
        """How many are being sent, or about to be. Who holds a slot of a lane that is paused may not have begun."""
        return await count_at_work(self._ports, account, list(lane.held)) if lane.paused_ms else len(lane.held)

    async def change(
        self,
        account: str,
        kind: LaneKind,
        name: str,
        how: Callable[[Lane, int], Lane],
        *,
        make: Limits | None = None,
    ) -> Lane | None:
        """One write; then whoever may start is let in. `how` is pure, and given the lane and the time; it may be asked
        again. None: there is no such lane, and none was to be made with the limits `make`."""

        def changed(lane: Lane, now: int) -> Lane:
            if lane.gone:
                if make is None:
                    return lane
                lane = lane.made_again(make, now)
            return how(lane, now)

        digest = lane_digest(kind, name)
        # Whoever makes something due writes its reminder first.
        at_ms = self._ports.clock.now_ms() + LOOK_AFTER_MS
        await remind(self._ports, lane_ref(account, digest), at_ms, self._policy.shards)
        lane = await self._store.change(account, kind, name, changed, make)
        if lane is None or lane.gone:
            return None
        await self._lanes.go_on(account, lane)
        return lane

    async def delete_queue(self, account: str, name: str) -> None:
        """One write: from then on, whatever is in it is not sent. It is cancelled by who hears the bell."""
        lane = lane_digest(LaneKind.QUEUE, name)
        given, left = await self._store.places(account, lane)

        def deleted(lane: Lane, now: int) -> Lane:
            void = max(given, lane.void_below)
            return replace(lane, gone=True, void_below=void, void_ms=now, paused_ms=0, left=given - left)

        if await self._store.change(account, LaneKind.QUEUE, name, deleted, None):
            await self._ports.doorbell.ring([Bell(lane_ref(account, lane), 0)])

    async def why_waiting(self, message: Message, state: State) -> str | None:
        """One sentence; None: it does not wait."""
        now = self._ports.clock.now_ms()
        if state.phase not in (Phase.CREATED, Phase.RETRY) or state.stop:
            return None
        due_ms = due_of(message, state)
        place = place_in_line(message, state)
        lane = await self._store.read(message.account, message.lane) if message.lane else None
        if lane and lane.is_void(place, message.created_ms):
            return f"{lane.shown} was deleted: it is cancelled {f'at {_shown(due_ms)}' if due_ms > now else 'now'}"
        paused = f"{lane.shown} has been paused since {_shown(lane.paused_ms)}" if lane and lane.paused_ms else ""
        if due_ms > now:
            until = f"retry {state.retried} at {_shown(due_ms)}" if state.retried else f"delayed until {_shown(due_ms)}"
            return f"{until}; {paused}" if paused else until
        if paused:
            return paused
        if lane is None or not place or lane.holds((message.id, place)):
            return None
        before = len(await self._line(message.account, message.lane, lane, place_bound(place)))
        opens_ms = lane.is_full_until(now)
        if opens_ms and before < lane.limits.rate:
            return f"the rate window of {lane.shown} opens at {_shown(opens_ms)}"
        before += sum(one.place < place for one in lane.held.values())
        if not before:
            return None
        return f"behind {before if before < _COUNTED else f'{_COUNTED:,} or more'} in {lane.shown}"

    async def _line(self, account: str, lane: str, standing: Lane, last: str = MAX) -> Sequence[Item]:
        """The first who stand there."""
        first = place_bound(standing.void_below + 1)
        page = await self._ports.table.query(line_of(account, lane), first=first, last=last, limit=_COUNTED)
        return page.items


def _shown(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
