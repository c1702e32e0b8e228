"""The world of functions: a table that commits at once and has eventual reads, a queue that hands bells over in batches,
and processes that live from call to call, each with a memory of its own.

What the functions themselves do with a batch and at a tick is the real code, too.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from simulator.world import (
    ACCOUNT,
    FREEZE_S,
    SimBlobs,
    SimDoorbell,
    SimSender,
    SimStore,
    SimTablePort,
    World,
    assembled,
)
from waypost import on_minute, on_queue
from waypost.api import Call
from waypost.core.policy import Policy
from waypost.core.ports import LONGEST_BELL_MS, Bell, Busy, ConditionFailed, Item, Key, Ports, Put, Unavailable, Write
from waypost.engines.embedded.table import EmbeddedTable, Row, _decoded

#: How far an eventual read lags behind when nothing is wrong.
_LAG_S = 1.0
#: A client repeats what was not answered in so long.
_REPEAT_S = 6.0
#: A bell that was handed over and not done with comes back after this, so often at most.
_VISIBILITY_S = 120.0
_MAX_RECEIVES = 5
_BATCH = 10
#: How long a function may take.
_WORKER_S = 110.0
_TICK_S = 60.0
_TICKS_APART_S = 60.0


class CloudStore(SimStore):
    """Commits at once, and remembers what each row was when."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._versions: defaultdict[Key, list[tuple[float, bytes | None]]] = defaultdict(lambda: [(0.0, None)])

    def commit(self, rows: Sequence[Row], done: Callable[[BaseException | None], None]) -> None:
        for row in rows:
            self._versions[Key(row.pk, row.sk)].append((self._world.loop.time(), row.item))
        self._apply(rows)
        done(None)

    def as_of(self, key: Key, time_s: float) -> bytes | None:
        return next(data for since, data in reversed(self._versions[key]) if since <= time_s or not since)

    def before_last_write(self, key: Key) -> bytes | None:
        return self._versions[key][-2:][0][1]


class CloudTable:
    """DynamoDB and its adapter: answers that are lost, repeats that meet their own mark, batches done in part."""

    def __init__(self, world: World, store: CloudStore) -> None:
        self._world, self._store = world, store
        self._table = EmbeddedTable(store, strict=True)
        self._marks = itertools.count(1)
        self.get, self.query, self.write_together = self._table.get, self._table.query, self._table.write_together

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        fault = self._world.take_fault()
        found = [self._eventual(key, fault) for key in keys]
        return [None if data is None else _decoded(data) for data in found]

    def _eventual(self, key: Key, fault: str) -> bytes | None:
        if fault == "absent":
            return None
        if fault == "stale":
            return self._store.before_last_write(key)
        return self._store.as_of(key, self._world.loop.time() - self._world.rng.uniform(0, _LAG_S))

    async def write(self, one: Write, *, relaxed: bool = False) -> Item | None:
        fault = self._world.take_fault()
        mark = next(self._marks)
        marked = _marked(one, mark)
        item = await self._table.write(marked)
        if fault:
            # The answer is lost; the client asks again, when it can.
            await asyncio.sleep(FREEZE_S if fault == "repeated_late" else _REPEAT_S)
            await self._world.still_lives()
            try:
                item = await self._table.write(marked)
            except ConditionFailed as refused:
                if refused.item is None or refused.item.get("mark") != mark:
                    raise
                item = refused.item
        return item

    async def write_many(self, writes: Sequence[Any]) -> None:
        fault = self._world.take_fault()
        if fault == "partly":
            await self._table.write_many([one for one in writes if self._world.rng.random() < 0.5])
            raise Busy("simulated: a part of the batch was left undone")
        await self._table.write_many(writes)
        if fault == "repeated":
            await asyncio.sleep(_REPEAT_S)
            await self._world.still_lives()
            await self._table.write_many(writes)


def _marked(one: Write, mark: int) -> Write:
    """As the adapter marks its writes: a put without a condition needs none."""
    if isinstance(one, Put):
        # That a key is unborn is a hint to a cache, which this engine has not; in a repeat it would be wrong.
        return replace(one, item={**one.item, "mark": mark} if one.when else one.item, unborn=())
    return replace(one, set={**one.set, "mark": mark}) if hasattr(one, "set") else one


@dataclass(eq=False)
class Note:
    """A bell in the queue."""

    ref: str
    name: str
    receives: int = 0
    deleted: bool = False


class _Log:
    """Whatever a function thinks worth a stack trace is wrong."""

    def __init__(self, world: World) -> None:
        self._world = world

    def info(self, text: str, **how: Any) -> None:
        pass

    warning = info

    def exception(self, text: str, extra: dict[str, Any]) -> None:
        self._world.errors.append(f"{text} {extra}")


class CloudWorld(World):
    """Functions share the table and the queue alone. A function serves one call at a time and remembers until it dies;
    nobody opens anything beforehand: the first tick makes the cursor, the first delivery draws the keys."""

    late_ms = 125_000
    look_ms = 305_000
    #: Whole seconds, rounded up, and a queue that takes its time.
    prompt_ms = 2_500

    def __init__(self, seed: int, *, plan: dict[int, str] | None = None) -> None:
        super().__init__(seed, mode="cloud", plan=plan)
        self.policy = Policy(shards=4, compress_from=512)
        self._queue_rng = random.Random(self.rng.random())
        self._names = itertools.count(1)
        self._idle: defaultdict[str, list[SimpleNamespace]] = defaultdict(list)

    async def start(self) -> None:
        self.cloud_store = CloudStore(self)
        self.cloud_table = CloudTable(self, self.cloud_store)
        self.opened.set()
        self.tasks += [self.loop.create_task(self._poll()), self.loop.create_task(self._tick())]

    # Functions -------------------------------------------------------------------------------------------------------

    def _cold(self) -> SimpleNamespace:
        """What the entry points know as their `Function`."""
        ports = Ports(
            SimTablePort(self, self.cloud_table),
            SimDoorbell(self),
            SimBlobs(self),
            SimSender(self),
            self.clock,
            self._randomness.randbytes,
        )
        return SimpleNamespace(
            service=assembled(ports, self.policy),
            ports=ports,
            sender=SimpleNamespace(drop_idle=lambda: None),
            log=_Log(self),
            count=lambda metric: None,
        )

    async def _as_function(self, role: str, work: Callable[[SimpleNamespace], Awaitable[Any]]) -> Any:
        """Runs one call in a process that is at rest, or in a new one; a process that died is not used again."""
        idle = self._idle[role]
        here = idle.pop(self.rng.randrange(len(idle))) if idle and self.rng.random() < 0.8 else self._cold()

        async def call() -> Any:
            try:
                return await work(here)
            finally:
                idle.append(here)

        return await self.as_actor(role, call)

    def _left_ms(self, whole_s: float) -> Callable[[], int]:
        ends = self.loop.time() + whole_s
        return lambda: int((ends - self.loop.time()) * 1000)

    async def serve(self, call: Call) -> Any:
        return await self._as_function("api", lambda here: here.service.api.answer(call))

    # The queue -------------------------------------------------------------------------------------------------------

    def bell_takes_s(self, bell: Bell) -> float | None:
        if bell.delay_ms > LONGEST_BELL_MS:
            return None
        # Up to half a second of its own: a standard queue keeps no order.
        return -(-bell.delay_ms // 1000) + self._queue_rng.choice((0, 0, 0.01, 0.5))

    def bell_rings(self, ref: str, epoch: int) -> None:
        self._show(Note(ref, f"note{next(self._names)}"))

    def _show(self, note: Note) -> None:
        if not note.deleted:
            self.bells.append(note)
            self._bell_rang.set()

    async def _poll(self) -> None:
        while True:
            self._bell_rang.clear()
            await self._bell_rang.wait()
            await asyncio.sleep(self._queue_rng.uniform(0.001, 0.02))
            while self.bells:
                self._queue_rng.shuffle(self.bells)
                size = self._queue_rng.randint(1, _BATCH)
                batch, self.bells[:] = self.bells[:size], self.bells[size:]
                self.tasks.append(self.loop.create_task(self._hand_over(batch)))

    async def _hand_over(self, notes: list[Note]) -> None:
        for note in notes:
            note.receives += 1
            self.bells_lost += note.receives > _MAX_RECEIVES
        notes = [note for note in notes if note.receives <= _MAX_RECEIVES]
        for note in notes:
            self.loop.call_later(_VISIBILITY_S, self._show, note)
        event = {"Records": [{"messageId": note.name, "body": note.ref} for note in notes]}
        left = self._left_ms(_WORKER_S)
        answer = await self._as_function("worker", lambda here: on_queue.deliver_batch(here, event, left))
        if answer is not None:
            failed = {one["itemIdentifier"] for one in answer["batchItemFailures"]}
            for note in notes:
                note.deleted = note.name not in failed

    # The tick --------------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Once in each minute, anywhere in it, and at times twice at once."""
        for minute in itertools.count():
            start = 1_000 + minute * _TICKS_APART_S
            at = start + self._queue_rng.uniform(0, _TICKS_APART_S - 1)
            await asyncio.sleep(at - self.loop.time())
            if self.loop.time() >= self.ticks_stop_until_s:
                for _ in range(2 if self._queue_rng.random() < 0.2 else 1):
                    self.tasks.append(self.loop.create_task(self._one_tick()))

    async def _one_tick(self) -> None:
        tick = functools.partial(on_minute.tick, left_ms=self._left_ms(_TICK_S))
        try:
            await self._as_function("tick", tick)
        except (Busy, Unavailable):
            pass

    def signing_key(self) -> str:
        row = self.cloud_store.get(Key(f"{ACCOUNT.name}#keys", "signing"))
        return str(_decoded(row)["current"]) if row else ""
