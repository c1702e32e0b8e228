"""Lanes in the table: the item that decides, the places that were given out, and the list of names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from waypost.core.lane import Lane, counter_key, lane_key
from waypost.core.message import VERSION, lane_digest
from waypost.core.optimistic import change_item
from waypost.core.policy import Policy
from waypost.core.ports import MAX, Absent, Busy, Change, ConditionFailed, Equals, Item, Ports, Put, Unavailable
from waypost.core.terms import LaneKind, Limits

#: A write that the store refuses so often is given up.
_TRIES = 8


class LaneStore:
    def __init__(self, ports: Ports, policy: Policy) -> None:
        self._ports = ports
        self._policy = policy

    async def read(self, account: str, lane: str) -> Lane | None:
        return self.standing(await self._ports.table.get(lane_key(account, lane)))

    def standing(self, item: Item | None) -> Lane | None:
        """The lane of an item that was read."""
        return Lane.from_item(item).as_seen_from(self._policy.boot) if item else None

    async def change(
        self, account: str, kind: LaneKind, name: str, how: Callable[[Lane, int], Lane], made: Limits | None
    ) -> Lane | None:
        """Returns the lane as it stands then. None: there is none, and none was to be made."""
        lane = lane_digest(kind, name)
        found: Lane | None = None

        async def change(item: Item | None) -> None:
            nonlocal found
            now = self._ports.clock.now_ms()
            standing = self.standing(item)
            new = Lane(kind, name, created_ms=now, updated_ms=now, limits=made) if made else None
            found = standing or new
            if found is None:
                return
            if standing is None:
                # Before it is there: no lane is missing from the list.
                entry = {"pk": _registry(account), "sk": f"{kind.value}#{name}", "v": VERSION}
                await self._ports.table.write(Put(entry))
            wanted = how(found, now)
            if wanted != standing:
                found = await self.write(account, standing, replace(wanted, updated_ms=now))

        await change_item(self._ports, lane_key(account, lane), change, f"the {kind.value} {name}")
        return found

    async def write(self, account: str, standing: Lane | None, wanted: Lane) -> Lane:
        """Returns it as it was written. Raises ConditionFailed where somebody else was quicker, and Busy or
        Unavailable."""
        new = replace(wanted, version=(standing.version if standing else 0) + 1, boot=self._policy.boot)
        when = Equals("ver", standing.version) if standing else Absent("ver")
        item = new.to_item(account)
        try:
            await self.persist(lambda: self._ports.table.write(Put(item, when=when)))
        except ConditionFailed as refused:
            # It may have been an earlier try of ours, whose answer was lost.
            if refused.item is None or Lane.from_item(refused.item) != new:
                raise
        return new

    async def persist(self, write: Callable[[], Awaitable[object]]) -> None:
        for tried in range(_TRIES):
            try:
                await write()
            except (Busy, Unavailable):
                if tried == _TRIES - 1:
                    raise
                await self.step_aside()
            else:
                return

    async def step_aside(self) -> None:
        """For others who change the same lane."""
        await self._ports.clock.sleep_ms(self._ports.random(1)[0] // 8)

    async def take_places(self, account: str, lane: str, count: int) -> int:
        """Returns the last of them."""
        item = await self._ports.table.write(
            Change(counter_key(account, lane), set={"v": VERSION}, add={"given": count})
        )
        return int(item["given"]) if item else 0

    async def give_up_place(self, account: str, lane: str) -> None:
        """Nobody will ever stand there."""
        await self._ports.table.write(Change(counter_key(account, lane), set={"v": VERSION}, add={"left": 1}))

    async def places(self, account: str, lane: str) -> tuple[int, int]:
        """How many were given out, and how many of them were left without a change of the lane."""
        item = await self._ports.table.get(counter_key(account, lane))
        return (item.get("given", 0), item.get("left", 0)) if item else (0, 0)

    async def names(self, account: str, kind: LaneKind, part: str) -> Sequence[str]:
        """Those that have this part, in order; also of queues that were deleted."""
        names: list[str] = []
        after: str | None = None
        while True:
            first = f"{kind.value}#"
            page = await self._ports.table.query(_registry(account), first=first, last=first + MAX, after=after)
            names += [name for item in page.items if part in (name := item["sk"].partition("#")[2])]
            after = page.next
            if after is None:
                break
        return names


def _registry(account: str) -> str:
    return f"{account}#lanes"
