"""Looks into the table while a history of lanes goes on: whether somebody waits although he might start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator

from simulator.world import ACCOUNT, World
from waypost.core.ids import place_of
from waypost.core.lane import entry_from, lane_key, line_of
from waypost.core.message import Message, Phase, State, lane_digest, message_key, place_in_line, state_key
from waypost.core.ports import Item
from waypost.core.terms import LaneKind

#: Longer than anybody takes to be let in, or to begin then, unless something is struck.
_PROMPT_MS = 5_000
_EVERY_S = 1


class LaneWatch:
    """Reckons from what is stored, and not as the core does, who is in whose way."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._since: dict[tuple[str, str], int] = {}
        self._in_vain: dict[tuple[str, str], str] = {}

    async def watch(self, lanes: Callable[[], Collection[str]], has_ended: Callable[[], bool]) -> None:
        while not has_ended():
            self._look(lanes())
            await asyncio.sleep(_EVERY_S)

    def objections(self, lane: str) -> list[str]:
        return [words for (where, _), words in self._in_vain.items() if where == lane]

    def _look(self, lanes: Iterable[str]) -> None:
        now = self._world.clock.monotonic_ms()
        seen = [(lane, words) for lane in lanes for words in self._might_go_on(lane)]
        self._since = {one: self._since.get(one, now) for one in seen}
        for one, since_ms in self._since.items():
            if now - since_ms > _PROMPT_MS:
                self._in_vain.setdefault(one, f"{one[0]}: {one[1]} in vain from {since_ms} to {now} at least")

    def _might_go_on(self, lane: str) -> Iterator[str]:
        kind, _, name = lane.partition(" ")
        digest = lane_digest(LaneKind(kind), name)
        item = self._world.item(lane_key(ACCOUNT.name, digest))
        if item is None or item.get("paused"):
            return
        held = item["held"]
        line = [entry_from(one) for one in self._world.items(line_of(ACCOUNT.name, digest))]
        outside = [one for one in line if held.get(one.message_id, (0,))[0] != one.place > item.get("void", 0)]
        waiting = [one for one in outside if self._is_due(one.message_id, one.place)]
        most, rate, period_ms = item["limits"]
        if not most or len(held) <= most:
            yield from (f"{one} was let in and waits" for one, slot in held.items() if self._is_due(one, slot[0]))
        inside = sum(self._is_in_the_way(kind, one, slot[0]) for one, slot in held.items())
        if waiting and (not most or inside < most) and (not rate or self._starts(item, period_ms) < rate):
            yield f"{waiting[0].message_id} waits in line"

    def _starts(self, item: Item, period_ms: int) -> int:
        """How many count in the window that is open."""
        if self._world.clock.now_ms() < item.get("window", 0) + period_ms:
            return int(item.get("used", 0))
        return sum(len(slot) > 2 for slot in item["held"].values())

    def _is_due(self, message_id: str, place: int) -> bool:
        """Whether it stands there and waits for nothing else."""
        message, state = self._read(message_id)
        if message is None or state.stop or state.phase not in (Phase.CREATED, Phase.RETRY):
            return False
        due_ms = message.due_ms if state.phase is Phase.CREATED else state.due_ms
        return place_in_line(message, state) == place and due_ms <= self._world.clock.now_ms()

    def _is_in_the_way(self, kind: str, message_id: str, place: int) -> bool:
        message, state = self._read(message_id)
        if message is None:
            return False
        if kind == "queue":
            return not state.phase.final or any(not self._read(one)[1].phase.final for one in state.callbacks)
        return not state.phase.final and place_in_line(message, state) == place

    def _read(self, message_id: str) -> tuple[Message | None, State]:
        place = place_of(message_id)
        assert place
        found = self._world.item(message_key(ACCOUNT.name, message_id, place))
        state = self._world.item(state_key(ACCOUNT.name, message_id, place))
        return Message.from_item(found, self._world.clock.now_ms()), State.from_item(state)
