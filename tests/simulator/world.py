"""A world for the real core: one table over a store that is slow and loses, bells, workers, a tick, an endpoint, and
faults at chosen port calls. Everything is drawn from one seed, so a run that fails fails again exactly."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import functools
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from simulator.loop import SimLoop
from support import given_body
from waypost.call import Call, Reply
from waypost.core.accounts import Account, Tokens
from waypost.core.guard import Guard
from waypost.core.policy import Policy
from waypost.core.ports import MAX, Answer, Bell, Busy, Item, Key, NoAnswer, Outgoing, Ports, Table, Unavailable
from waypost.core.signing import SigningKeys
from waypost.engines.embedded.table import EmbeddedTable, Row
from waypost.wiring import Service, assemble

EPOCH_MS = 1_790_000_000_000
ACCOUNT = Account("acct", "token", SigningKeys("sig_" + "c" * 32, "sig_" + "n" * 32))
WORKERS = 3
#: Longer than a lease of the default timeout.
FREEZE_S = 200.0
STEP_MS = 600_000

_actor: contextvars.ContextVar[Actor] = contextvars.ContextVar("actor")

Faults = Mapping[str, tuple[str, ...]]
#: Faults by port, or by one port's verb; those of `*` can strike any call.
FAULTS: Faults = {
    "*": ("kill_before", "kill_after", "freeze_before", "freeze_after", "clock_forward", "clock_back"),
    "table": ("busy", "answer_lost"),
    "doorbell.ring": ("bells_lost", "bells_doubled", "bells_late", "not_taken"),
    "sender": ("answer_lost",),
    "blobs": ("unavailable",),
    "store": ("commit_fails",),
}
#: After one of these an attempt may be made once more than the retries allow.
CRASHES = {"kill_before", "kill_after", "freeze_before", "freeze_after", "clock_forward", "clock_back", "commit_fails"}
#: One of these alone makes nothing later than a tick.
HARMLESS = {"busy", "items_absent", "items_old", "half_written", *FAULTS["doorbell.ring"]}


@dataclass(eq=False)
class Actor:
    """Whoever makes port calls: one request, one delivery, one tick. It can die, and then never comes back."""

    role: str
    freeze_s: float = FREEZE_S
    #: It has stood still: what it does now may come too late.
    froze: bool = False
    dead: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Ticks:
    apart_s: float = 60.0
    at_once: int = 1
    #: None comes from the one second of the history to the other.
    missing_s: tuple[float, float] = (0.0, 0.0)


@dataclass
class Here:
    """One process, or one environment of a function: what it keeps from call to call."""

    ports: Ports
    service: Service


@dataclass
class Arrival:
    """One request as the endpoint saw it."""

    at_ms: int
    message_id: str
    tag: str
    retried: int
    status: int
    request: Outgoing
    #: A callback: the message that it tells of.
    about: str = ""
    ends_ms: int = 0
    #: Whoever sent it had stood still, so that it may have left too late; or was gone before it ended.
    strayed: bool = False


class SimStore:
    """Committed rows, and a commit that takes its time. A power cut loses what is not committed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rows: dict[Key, tuple[bytes, int | None]] = {}
        self._under_way: list[tuple[Sequence[Row], Callable[[BaseException | None], None]]] = []
        self.fail_next = 0

    def get(self, key: Key) -> bytes | None:
        found = self.rows.get(Key(*key))
        return found[0] if found else None

    def query(self, pk: str, first: str, last: str, limit: int, newest_first: bool) -> list[tuple[str, bytes]]:
        keys = sorted((k for k in self.rows if k.pk == pk and first <= k.sk <= last), reverse=newest_first)
        return [(key.sk, self.rows[key][0]) for key in keys[:limit]]

    def expired(self, before_s: int, limit: int) -> list[Key]:
        return [key for key, (_, ttl) in self.rows.items() if ttl is not None and ttl <= before_s][:limit]

    def commit(self, rows: Sequence[Row], done: Callable[[BaseException | None], None]) -> None:
        group = (rows, done)
        self._under_way.append(group)
        self._world.loop.call_later(self._world.rng.uniform(0.0002, 0.005), self._finish, group)

    def _finish(self, group: tuple[Sequence[Row], Callable[[BaseException | None], None]]) -> None:
        if group not in self._under_way:
            return
        self._under_way.remove(group)
        if self.fail_next:
            self.fail_next -= 1
            group[1](OSError("disk full"))
            return
        self._apply(group[0])
        group[1](None)

    def _apply(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.item is None:
                self.rows.pop(Key(row.pk, row.sk), None)
            else:
                self.rows[Key(row.pk, row.sk)] = (row.item, row.ttl)

    def cut(self) -> None:
        for rows, _ in self._under_way:
            if self._world.rng.random() < 0.5:
                self._apply(rows)
        self._under_way.clear()


class SimTablePort:
    def __init__(self, world: World, table: Table) -> None:
        self._world, self._table = world, table

    async def get(self, key: Key) -> Any:
        return await self._world.call("table.get", lambda: self._table.get(key))

    async def get_many(self, keys: Sequence[Key]) -> Any:
        if not keys:
            return []  # which no engine goes anywhere for
        return await self._world.call("table.get_many", lambda: self._table.get_many(keys))

    async def write(self, one: Any, *, relaxed: bool = False) -> Any:
        relaxed = relaxed and self._world.machine
        return await self._world.call("table.write", lambda: self._table.write(one, relaxed=relaxed))

    async def write_many(self, writes: Any) -> None:
        await self._world.call("table.write_many", lambda: self._table.write_many(writes))

    async def write_together(self, writes: Any) -> None:
        await self._world.call("table.write_together", lambda: self._table.write_together(writes))

    async def query(self, pk: str, **how: Any) -> Any:
        return await self._world.call("table.query", lambda: self._table.query(pk, **how))


class SimDoorbell:
    def __init__(self, world: World) -> None:
        self._world = world

    async def ring(self, bells: Sequence[Bell]) -> int:
        return int(await self._world.call("doorbell.ring", lambda: self._ring(bells)))

    async def _ring(self, bells: Sequence[Bell]) -> int:
        fault = self._world.take_fault()
        if fault == "not_taken":
            return len(bells)
        if fault == "bells_lost":
            return 0
        late_s = 300.0 if fault == "bells_late" else 0.0
        taken = [self._world.take_bell(bell, late_s) for bell in bells]
        if fault == "bells_doubled":
            for bell in bells:
                self._world.take_bell(bell, late_s)
        return taken.count(False)

    async def backlog(self) -> int:
        async def count() -> int:
            return self._world.backlog()

        return int(await self._world.call("doorbell.backlog", count))


class SimBlobs:
    def __init__(self, world: World) -> None:
        self._world = world

    async def put(self, name: str, data: bytes) -> None:
        async def store() -> None:
            self._world.blobs[name] = data

        await self._world.call("blobs.put", store)

    async def get(self, name: str) -> bytes | None:
        async def fetch() -> bytes | None:
            return self._world.blobs.get(name)

        found: bytes | None = await self._world.call("blobs.get", fetch)
        return found


class SimSender:
    def __init__(self, world: World) -> None:
        self._world = world

    async def send(self, request: Outgoing) -> Answer | NoAnswer:
        answer: Answer | NoAnswer = await self._world.call("sender.send", lambda: self._world.endpoint(request))
        return answer


class SimClock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return EPOCH_MS + self.monotonic_ms() + self._world.step_ms

    def monotonic_ms(self) -> int:
        return int(self._world.loop.time() * 1000)

    async def sleep_ms(self, ms: int) -> None:
        async def sleep() -> None:
            await asyncio.sleep(ms / 1000)

        await self._world.call("clock.sleep", sleep)


class World:
    """A fleet: requests, deliveries and ticks die one by one, each with the memory of its process; they share the table
    alone, and nobody knows of boots."""

    #: Whether everything is one process that dies as a whole, memory and bells with it.
    machine: ClassVar[bool] = False
    faults: ClassVar[Faults] = FAULTS
    #: What a drawn history chooses from.
    ticks_drawn: ClassVar[Sequence[Ticks]] = (Ticks(),)

    def __init__(self, seed: int, plan: dict[int, str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.loop = SimLoop(random.Random(self.rng.random()))
        #: Fault by the number of the port call that it strikes.
        self.plan = dict(sorted((plan or {}).items()))
        #: (part of a site, fault, calls to let pass): a history's own faults, besides the plan's.
        self._armed: list[tuple[str, str, int]] = []
        self.calls = 0
        #: The calls' sites, as long as faults may strike.
        self.sites: list[str] = []
        self.injected: Counter[tuple[str, str]] = Counter()
        self.step_ms = 0
        self.epoch = 0
        self.bells: list[str] = []
        self._port_fault = ""
        #: What the core raised and should not have.
        self.errors: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.arrivals: list[Arrival] = []
        self.policy = Policy(shards=1 if self.machine else 3)
        self.alive: set[Actor] = set()
        self._kept: defaultdict[str, list[Here]] = defaultdict(list)
        self.tasks: list[asyncio.Task[Any]] = []
        self._bell_rang = asyncio.Event()
        self._randomness = random.Random(self.rng.random())
        #: As the real server does, nothing is served before the look's cursor and the keys are there.
        self.opened = asyncio.Event()
        self.clock = SimClock(self)
        self.ticks = Ticks()
        self.faults_armed = True

    # What is stored, for checks -------------------------------------------------------------------------------------

    def item(self, key: Key) -> Item | None:
        found = self.store.get(key)
        return msgspec.msgpack.decode(found) if found else None

    def items(self, pk: str) -> Sequence[Item]:
        """In order."""
        return [msgspec.msgpack.decode(data) for _, data in self.store.query(pk, "", MAX, sys.maxsize, False)]

    # Life ------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self.store = SimStore(self)
        self._boot()
        self.tasks.append(self.loop.create_task(self._recover(self.epoch)))
        await self.opened.wait()
        for _ in range(WORKERS):
            self.tasks.append(self.loop.create_task(self._work()))
        self.tasks.append(self.loop.create_task(self._tick()))

    def _boot(self) -> None:
        self.table = EmbeddedTable(self.store, strict=True)
        self.policy = dataclasses.replace(self.policy, boot=f"boot{self.epoch}" if self.machine else "")
        #: What nobody is using. What somebody who died was using is never seen again.
        self._kept = defaultdict(list)
        self._machine = self.make_here()

    def make_here(self) -> Here:
        ports = Ports(
            SimTablePort(self, self.table),
            SimDoorbell(self),
            SimBlobs(self),
            SimSender(self),
            self.clock,
            self._randomness.randbytes,
        )
        tokens = Tokens({ACCOUNT.token: ACCOUNT.name})
        return Here(ports, assemble(ports, self.policy, tokens, Guard(["127.0.0.0/8"])))

    async def _open(self, here: Here) -> bool:
        await here.service.look.open()
        await here.service.keys.open(ACCOUNT)
        return True

    def cut(self) -> None:
        """The power fails: what is not committed is gone, and everybody with it."""
        self.epoch += 1
        self.opened.clear()
        self.store.cut()
        self.bells.clear()
        for actor in list(self.alive):
            actor.dead.set()
        self.alive.clear()
        self._boot()
        self.tasks.append(self.loop.create_task(self._recover(self.epoch)))

    def bury(self) -> None:
        """Ends what still waits, without a word: the killed wait for ever."""
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False
            coroutine = task.get_coro()
            if coroutine is not None:
                coroutine.close()

    async def _recover(self, epoch: int) -> None:
        while self.epoch == epoch:
            try:
                if not self.opened.is_set() and await self.invoke("start", self._open):
                    self.opened.set()
                if self.opened.is_set() and await self.invoke("start", self._look_again):
                    return
            except (Busy, Unavailable):
                pass
            await asyncio.sleep(1)

    async def _look_again(self, here: Here) -> bool:
        await here.service.look.open()  # It may be another process than the one that opened.
        await here.service.look.recover()
        return True

    async def invoke(self, role: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """One call's work, where this role's calls are done; None if it died of it."""
        if self.machine:
            return await self.as_actor(Actor(role), functools.partial(work, self._machine))
        kept = self._kept[role]
        here = kept.pop(self.rng.randrange(len(kept))) if kept else self.make_here()
        return await self.as_actor(Actor(role), functools.partial(self.use, role, here, work))

    async def use(self, role: str, here: Any, work: Callable[[Any], Awaitable[Any]]) -> Any:
        try:
            return await work(here)
        finally:
            self._kept[role].append(here)

    async def as_actor(self, actor: Actor, work: Callable[[], Awaitable[Any]]) -> Any:
        """Does the work as somebody who may die of it; None if he did."""
        self.alive.add(actor)
        context = contextvars.copy_context()
        context.run(_actor.set, actor)

        async def run() -> Any:
            return await work()

        task = self.loop.create_task(run(), context=context)
        died = self.loop.create_task(actor.dead.wait())
        self.tasks += [task, died]
        await asyncio.wait([task, died], return_when=asyncio.FIRST_COMPLETED)
        self.alive.discard(actor)
        if not task.done():
            return None
        died.cancel()
        error = task.exception()
        if error and not isinstance(error, (Busy, Unavailable)):
            self.errors.append(f"{actor.role}: {error!r}")
            return None
        return task.result()

    # Port calls and their faults -------------------------------------------------------------------------------------

    async def call(self, verb: str, do: Callable[[], Awaitable[Any]]) -> Any:
        actor = _actor.get()
        number, self.calls = self.calls, self.calls + 1
        site = f"{actor.role} {sys._getframe(2).f_code.co_qualname} {verb}"
        if self.faults_armed:
            self.sites.append(site)
        fault = (self._planned_fault(number, site) or self._armed_fault(site)) if self.faults_armed else ""
        if fault and fault in self.faults_of(site):
            self.injected[site, fault] += 1
        elif fault == "commit_fails":
            self.store.fail_next += 1
            self.injected["store commit", fault] += 1
        else:
            fault = ""
        # Time passes at each call, so that what runs at once meets in every order.
        await asyncio.sleep(self.rng.choice((0, 0, 0.0005, 0.003)))
        await self._live(actor)
        if fault == "kill_before":
            await self._kill(actor)
        elif fault == "freeze_before":
            actor.froze = True
            await asyncio.sleep(actor.freeze_s)
            await self._live(actor)
        elif fault == "clock_forward":
            self.step_ms += STEP_MS
        elif fault == "clock_back":
            self.step_ms -= STEP_MS
        elif fault == "busy":
            raise Busy("simulated")
        elif fault == "unavailable":
            raise Unavailable("simulated")
        # What is left, the port itself carries out.
        self._port_fault = fault
        failed: Exception | None = None
        result = None
        try:
            result = await do()
        except Exception as wrong:  # noqa: BLE001 - whatever came, the dead do not see it
            failed = wrong
        await self._live(actor)
        if failed and fault != "answer_lost":
            raise failed
        if fault == "kill_after":
            await self._kill(actor)
        elif fault == "freeze_after":
            actor.froze = True
            await asyncio.sleep(actor.freeze_s)
            await self._live(actor)
        elif fault == "answer_lost":
            if verb == "sender.send":
                return NoAnswer("simulated: the answer was lost")
            raise Unavailable("simulated: the answer was lost")
        return result

    def take_fault(self) -> str:
        """For a port, at the beginning of its call."""
        fault, self._port_fault = self._port_fault, ""
        return fault

    def faults_of(self, site: str) -> tuple[str, ...]:
        verb = site.split()[-1]
        return self.faults["*"] + self.faults.get(verb.split(".")[0], ()) + self.faults.get(verb, ())

    def _planned_fault(self, number: int, site: str) -> str:
        """The plan's fault for this call, or one planned for an earlier call that it did not fit."""
        for at, fault in self.plan.items():
            if at <= number and (fault in self.faults_of(site) or fault == "commit_fails"):
                del self.plan[at]
                return fault
        return ""

    def arm(self, part: str, fault: str, skip: int = 0) -> None:
        """Strikes one call whose site has this part, after `skip` others."""
        self._armed.append((part, fault, skip))

    def _armed_fault(self, site: str) -> str:
        for number, (part, fault, skip) in enumerate(self._armed):
            if part in site:
                if skip:
                    self._armed[number] = (part, fault, skip - 1)
                    return ""
                del self._armed[number]
                return fault
        return ""

    async def _live(self, actor: Actor) -> None:
        if actor.dead.is_set():
            await self.loop.create_future()

    async def _kill(self, actor: Actor) -> None:
        if self.machine:
            self.cut()
        actor.dead.set()
        await self.loop.create_future()

    # Workers and tick ------------------------------------------------------------------------------------------------

    def take_bell(self, bell: Bell, late_s: float) -> bool:
        self.loop.call_later(bell.delay_ms / 1000 + late_s, self.bell_rings, bell.ref, self.epoch)
        return True

    def backlog(self) -> int:
        return len(self.bells)

    def bell_rings(self, ref: str, epoch: int) -> None:
        if epoch == self.epoch:
            self.bells.append(ref)
            self._bell_rang.set()

    async def _work(self) -> None:
        while True:
            while not self.bells:
                self._bell_rang.clear()
                await self._bell_rang.wait()
            await self.opened.wait()
            if not self.bells:
                continue
            ref, epoch = self.bells.pop(self.rng.randrange(len(self.bells))), self.epoch
            try:
                await self.invoke("worker", functools.partial(self._deliver, ref))
            except (Busy, Unavailable):
                self.loop.call_later(1, self.bell_rings, ref, epoch)

    async def _deliver(self, ref: str, here: Here) -> None:
        if here.service.errands.know(ref):
            await here.service.errands.run(ref)
            return
        message = await here.service.deliverer.find(ref)
        if message:
            await here.service.deliverer.deliver(message)
            await here.service.log.flush()

    async def _tick(self) -> None:
        started_s = self.loop.time()
        while True:
            await asyncio.sleep(self.ticks.apart_s)
            await self.opened.wait()
            first_s, last_s = self.ticks.missing_s
            if not first_s <= self.loop.time() - started_s < last_s:
                self.tasks += [self.loop.create_task(self._one_tick()) for _ in range(self.ticks.at_once)]

    async def _one_tick(self) -> None:
        try:
            await self.invoke("tick", self.work_of_tick)
        except (Busy, Unavailable):
            pass

    async def work_of_tick(self, here: Any) -> None:
        await here.service.look.tick()

    # The outside -----------------------------------------------------------------------------------------------------

    async def endpoint(self, request: Outgoing) -> Answer | NoAnswer:
        """Fails as often as the body says, then answers 200."""
        spec = json.loads(request.body)
        headers = dict(request.headers)
        about = spec.get("sourceMessageId", "")
        fails = int(request.url.partition("fails=")[2]) if about else spec["fails"]
        # A dead letter that is retried goes on where its first message ended.
        same = headers["Upstash-Message-Id"] if about else spec["tag"]
        before = sum(1 for a in self.arrivals if same in (a.message_id, a.tag))
        status = 500 if before < fails else 200
        takes_s = spec.get("takes", 0) or self.rng.uniform(0.001, 0.2)
        now = self.clock.monotonic_ms()
        actor = _actor.get()
        arrival = Arrival(
            now,
            headers["Upstash-Message-Id"],
            spec.get("tag", ""),
            int(headers["Upstash-Retried"]),
            status,
            request,
            about,
            now + int(takes_s * 1000),
            actor.froze,
        )
        self.arrivals.append(arrival)
        await asyncio.sleep(takes_s)
        arrival.strayed |= self.machine and actor.dead.is_set()
        return Answer(status, (), b"")

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Reply | None:
        """A client's request. None: no answer came."""
        path, _, query = path.partition("?")
        call = Call(
            method,
            path,
            query,
            [("authorization", f"Bearer {ACCOUNT.token}"), *(headers or {}).items()],
            given_body(body),
            "192.0.2.1",
        )
        await self.opened.wait()
        reply: Reply | None = await self.invoke("api", lambda here: here.service.api.answer(call))
        return reply


class Machine(World):
    machine: ClassVar[bool] = True
