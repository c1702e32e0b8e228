"""The world as it is on AWS: functions instead of a process, a table that others reach too, two queues for a doorbell.

What differs from the other modes is all here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

from simulator.world import FAULTS, Actor, Faults, Here, Ticks, World
from waypost.core.ports import (
    LONGEST_BELL_MS,
    MAX,
    Bell,
    Busy,
    ConditionFailed,
    Delete,
    Item,
    Key,
    Page,
    Put,
    Unavailable,
    Write,
)
from waypost.engines.embedded.decide import holds, outcome
from waypost.engines.limits import check_item, check_key, check_many, check_together
from waypost.on_minute import tick
from waypost.on_queue import deliver_batch

HOUR_S = 3600.0
#: By function: after so long a call of it is killed. A queue hides a bell for as long as its function may run.
LIMITS_S = {"api": 29.0, "deliver": 120.0, "deliver-slow": 900.0, "tick": 300.0}
#: A call that stands still goes on this long before its function is killed: with a lease that is over.
_LEFT_S = 10.0
#: The share of calls that find their environment replaced.
_REPLACED = 0.1
_FAST_LIMIT_MS = 60_000
_BATCH = 10
_MAX_RECEIVED = 5
#: An eventual read is this old at most, and usually not at all.
_OLD_S = 5.0
#: A client repeats a call at once, or when it has waited for the answer in vain.
_REPEATED_AFTER_S = (0.05, 5.0)


class Version(NamedTuple):
    since_s: float
    item: Item | None
    #: Whose write it was.
    mark: object


class SimDynamo:
    """ports.Table as the adapter over DynamoDB shows it. A write is decided and done in one, and then answered."""

    def __init__(self, world: Cloud) -> None:
        self._world = world
        self._partitions: defaultdict[str, dict[str, list[Version]]] = defaultdict(dict)
        self._done: set[object] = set()

    async def get(self, key: Key) -> Item | None:
        item = self._version(key).item
        await self._answer()
        return item

    def item(self, key: Key) -> Item | None:
        return self._version(key).item

    def items(self, pk: str) -> Sequence[Item]:
        found = [self.item(Key(pk, sk)) for sk in sorted(self._partitions[pk])]
        return [one for one in found if one is not None]

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        fault = self._world.take_fault()
        items = [self._eventually(key, fault) for key in keys]
        await self._answer()
        return items

    async def query(
        self,
        pk: str,
        *,
        first: str = "",
        last: str = MAX,
        limit: int = 100,
        newest_first: bool = False,
        after: str | None = None,
    ) -> Page:
        if after is not None:
            first, last = (first, min(last, after)) if newest_first else (max(first, after), last)
        rows = sorted(self._partitions[pk].items(), reverse=newest_first)
        found = [v[-1].item for sk, v in rows if first <= sk <= last and sk != after and v[-1].item is not None]
        page = found[:limit]
        await self._answer()
        # As DynamoDB: a page that is full says that there may be more.
        return Page(page, page[-1]["sk"] if len(page) == limit else None)

    async def write(self, one: Write, *, relaxed: bool = False) -> Item | None:
        mark = object()
        if self._world.take_fault() == "repeated":
            with contextlib.suppress(ConditionFailed):
                self._write(one, mark)
            await self._repeat()
        new = self._write(one, mark)
        await self._answer()
        return new

    async def write_together(self, writes: Sequence[Write]) -> None:
        check_together(writes)
        mark = object()
        if self._world.take_fault() == "repeated":
            with contextlib.suppress(ConditionFailed):
                self._write_together(writes, mark)
            await self._repeat()
        self._write_together(writes, mark)
        await self._answer()

    async def write_many(self, writes: Sequence[Put | Delete]) -> None:
        check_many(writes)
        half = self._world.take_fault() == "half_written"
        for one in self._world.rng.sample(writes, len(writes) // 2) if half else writes:
            self._write(one, None)
        await self._answer()
        if half:
            raise self._world.rng.choice((Busy, Unavailable))("simulated: a part of the batch was left undone")

    def _version(self, key: Key, at_s: float = float("inf")) -> Version:
        known = self._partitions[key.pk].get(key.sk, [])
        return next((one for one in reversed(known) if one.since_s <= at_s), Version(0, None, None))

    def _eventually(self, key: Key, fault: str) -> Item | None:
        rng = self._world.rng
        if self._world.reads_nothing or (fault == "items_absent" and rng.random() < 0.5):
            return None
        old_s = _OLD_S if fault == "items_old" else rng.choice((0, 0, 0, rng.uniform(0, _OLD_S)))
        return self._version(key, self._world.loop.time() - old_s).item

    def _write(self, one: Write, mark: object) -> Item | None:
        """One try of a write. A repeat of it bears the same mark."""
        standing = self._version(one.key)
        if one.when is not None and not holds(one.when, standing.item):
            if standing.mark is mark:
                return standing.item
            raise ConditionFailed(one.key, standing.item)
        new = outcome(one, standing.item)
        check_key(one.key)
        check_item(new or {})
        versions = self._partitions[one.key.pk].setdefault(one.key.sk, [])
        versions.append(Version(self._world.loop.time(), new, mark))
        return new

    def _write_together(self, writes: Sequence[Write], mark: object) -> None:
        if mark in self._done:
            return
        for one in writes:
            standing = self._version(one.key).item
            if one.when is not None and not holds(one.when, standing):
                raise ConditionFailed(one.key, standing)
        for one in writes:
            self._write(one, mark)
        self._done.add(mark)

    async def _repeat(self) -> None:
        await asyncio.sleep(self._world.rng.choice(_REPEATED_AFTER_S))

    async def _answer(self) -> None:
        await asyncio.sleep(self._world.rng.uniform(0.0005, 0.01))


@dataclass(eq=False)
class Waiting:
    """A bell in a queue."""

    ref: str
    received: int = 0


class Queue:
    """SQS, and what hands its bells to a function: ten at most at once, in any order, again if they went unheard."""

    def __init__(self, world: Cloud, function: str) -> None:
        self._world = world
        self._function = function
        self._appeared = asyncio.Event()
        self.visible: list[Waiting] = []

    def send(self, ref: str, delay_s: float) -> None:
        self._world.loop.call_later(delay_s, self._appear, Waiting(ref))

    def _appear(self, bell: Waiting) -> None:
        if bell.received < _MAX_RECEIVED:
            self.visible.append(bell)
            self._appeared.set()

    async def hand_over(self) -> None:
        rng = self._world.rng
        while True:
            self._appeared.clear()
            while self.visible:
                rng.shuffle(self.visible)
                size = rng.randint(1, _BATCH)
                batch, self.visible = self.visible[:size], self.visible[size:]
                self._world.tasks.append(self._world.loop.create_task(self._call(batch)))
            await self._appeared.wait()
            # What comes meanwhile is of the same batch.
            await asyncio.sleep(rng.choice((0, 0.02, 1)))

    async def _call(self, batch: Sequence[Waiting]) -> None:
        hidden = {}
        for name, bell in enumerate(batch):
            bell.received += 1
            hidden[str(name)] = self._world.loop.call_later(LIMITS_S[self._function], self._appear, bell)
        event = {"Records": [{"messageId": name, "body": batch[int(name)].ref} for name in hidden]}
        answer = await self._world.invoke(self._function, lambda here: deliver_batch(here, event, here.left_ms))
        if answer is not None:
            failed = {one["itemIdentifier"] for one in answer["batchItemFailures"]}
            for name in hidden.keys() - failed:
                hidden[name].cancel()


@dataclass
class Environment(Here):
    """What the functions' handlers ask of an on_aws.Function."""

    world: Cloud
    ends_s: float = 0.0
    sender: ClassVar[Any] = SimpleNamespace(drop_idle=lambda: None)

    @property
    def log(self) -> Any:
        def unexpected(event: str, extra: Mapping[str, Any]) -> None:
            self.world.errors.append(f"{event}: {sys.exception()!r} {extra}")

        return SimpleNamespace(info=_nothing, warning=_nothing, exception=unexpected)

    async def write_log(self) -> None:
        await self.service.log.flush()

    def count(self, metrics: Mapping[str, int]) -> None:
        pass

    def left_ms(self) -> int:
        return int((self.ends_s - self.world.loop.time()) * 1000)


def _nothing(*told: Any, **facts: Any) -> None:
    pass


class Cloud(World):
    # Without steps of the clock, and without commits that fail: neither is known there.
    faults: ClassVar[Faults] = {
        "*": ("kill_before", "kill_after", "freeze_before", "freeze_after"),
        "table": FAULTS["table"],
        "table.get_many": ("items_absent", "items_old"),
        "table.write": ("repeated",),
        "table.write_together": ("repeated",),
        "table.write_many": ("half_written",),
        "doorbell.ring": FAULTS["doorbell.ring"],
        "sender": FAULTS["sender"],
        "blobs": FAULTS["blobs"],
    }
    ticks_drawn: ClassVar[Sequence[Ticks]] = (
        Ticks(),
        Ticks(apart_s=119),
        Ticks(at_once=2),
        *(Ticks(missing_s=(from_s, from_s + HOUR_S)) for from_s in (0, 200, 400)),
    )

    #: Whatever is read eventually is not there yet.
    reads_nothing = False

    def __init__(self, seed: int, plan: dict[int, str] | None = None) -> None:
        super().__init__(seed, plan)
        # Nobody opens the cursor or draws the keys beforehand.
        self.opened.set()

    async def start(self) -> None:
        self.table = SimDynamo(self)
        self.fast, self.slow = Queue(self, "deliver"), Queue(self, "deliver-slow")
        for work in (self.fast.hand_over(), self.slow.hand_over(), self._tick()):
            self.tasks.append(self.loop.create_task(work))

    def item(self, key: Key) -> Item | None:
        return self.table.item(key)

    def items(self, pk: str) -> Sequence[Item]:
        return self.table.items(pk)

    def make_here(self) -> Environment:
        here = super().make_here()
        return Environment(here.ports, here.service, self)

    async def invoke(self, role: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """In an environment that was kept, or a fresh one. One that died is never seen again."""
        kept = self._kept[role]
        found = kept.pop(self.rng.randrange(len(kept))) if kept else None
        here = found if isinstance(found, Environment) and self.rng.random() >= _REPLACED else self.make_here()
        limit_s = LIMITS_S[role]
        actor = Actor(role, limit_s - _LEFT_S)
        here.ends_s = self.loop.time() + limit_s
        self.loop.call_later(limit_s, actor.dead.set)

        return await self.as_actor(actor, functools.partial(self.use, role, here, work))

    def take_bell(self, bell: Bell, late_s: float) -> bool:
        if bell.delay_ms > LONGEST_BELL_MS:
            return False
        queue = self.slow if bell.timeout_ms > _FAST_LIMIT_MS else self.fast
        queue.send(bell.ref, -(-bell.delay_ms // 1000) + late_s)
        return True

    def bell_rings(self, ref: str, epoch: int) -> None:
        self.fast.send(ref, 0)

    def backlog(self) -> int:
        return len(self.fast.visible) + len(self.slow.visible)

    async def work_of_tick(self, here: Environment) -> None:
        await tick(here, here.left_ms)
