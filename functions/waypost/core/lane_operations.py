"""What operators do to lanes, and what readers see of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from waypost.core.lane import Lane, lane_ref, line_of, place_bound
from waypost.core.lane_store import LaneStore
from waypost.core.lanes import Lanes
from waypost.core.message import Message, Phase, State, lane_digest, place_in_line
from waypost.core.policy import Policy
from waypost.core.ports import Bell, Ports
from waypost.core.reminder import LOOK_AFTER_MS, remind
from waypost.core.some_at_once import some_at_once
from waypost.core.terms import LaneKind, Limits

#: So far is counted who stands before somebody.
_COUNTED = 1_000


class Standing(Struct, frozen=True):
    """A lane as readers see it. `lag`: how many of its messages have not ended, those that are being sent included."""

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
        lane = lane_digest(kind, name)
        standing = await self._store.read(account, lane)
        if standing is None or standing.gone:
            return None
        given, left = await self._store.places(account, lane)
        return Standing(standing, max(0, given - left - standing.left))

    async def all(self, account: str, kind: LaneKind, part: str = "") -> Sequence[Standing]:
        """Those whose names have this part, in order."""
        names = await self._store.names(account, kind, part)
        found = await some_at_once(lambda name: self.read(account, kind, name), names)
        return [one for one in found if one]

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
        due_ms = state.due_ms if state.phase is Phase.RETRY else message.due_ms
        if due_ms > now:
            return f"retry {state.retried} at {_shown(due_ms)}" if state.retried else f"delayed until {_shown(due_ms)}"
        place = place_in_line(message, state)
        if message.terms.lane is None or not place:
            return None
        lane = message.lane
        standing = await self._store.read(message.account, lane)
        if standing is None:
            return None
        named = standing.shown
        if standing.paused_ms:
            return f"{named} is paused since {_shown(standing.paused_ms)}"
        if standing.holds((message.id, place)):
            return None
        before = await self._count_before(message.account, lane, standing, place)
        opens_ms = standing.is_full_until(now)
        if opens_ms and before < standing.limits.rate:
            return f"the rate window of {named} opens at {_shown(opens_ms)}"
        before += len(standing.held)
        return f"behind {before if before < _COUNTED else f'{_COUNTED:,} or more'} in {named}"

    async def _count_before(self, account: str, lane: str, standing: Lane, place: int) -> int:
        page = await self._ports.table.query(
            line_of(account, lane),
            first=place_bound(standing.void_below + 1),
            last=place_bound(place),
            limit=_COUNTED,
        )
        return len(page.items)


def _shown(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
