"""The server is killed twenty times in the middle of its work: nothing it accepted is lost, nothing is sent twice but
what was in flight.

The sink is a process of its own and keeps the journal that is believed. At each kill at least 200 requests are in
flight (the sink holds its answers for 1.5 s), at least 500 messages are delayed or waiting for a retry, and publishes
go on until the connection breaks. Between two kills everything that was in flight at the first arrives.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from journey.harness import DEV_TOKEN, Server, SinkProcess
from journey.sink import ANSWERED, ARRIVED

KILLS = 20
IN_FLIGHT = 200
WAITING = 500
HOLD_S = 1.5
#: Held requests started for each kill: some are answered already when the last ones start.
HELD = 260
#: Delayed and failing messages: so many at first, then so many a second, each waiting 9 s on average: some 900 at once.
FIRST = 800
TRICKLE_PER_S = 100
PUBLISHERS = 32
#: Publishes begun just before each kill, so that it meets some half done.
UNDERWAY = 64
#: How long after the sink wrote an answer the server may still not have it on disk.
SETTLE_S = 1.0


@dataclass
class Attempt:
    """One request as the sink saw it. `ended` is when it answered, or when the client was gone."""

    message_id: str
    arrived: float
    ended: float | None = None
    status: int | None = None

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def in_flight_at(self, moment: float) -> bool:
        return self.arrived <= moment and (self.ended is None or moment <= self.ended)


class Arrivals:
    """The sink's journal, read as it grows."""

    def __init__(self, sink: SinkProcess) -> None:
        self._sink = sink
        self._seen = 0
        self._attempts: list[Attempt] = []
        self.of_message: defaultdict[str, list[Attempt]] = defaultdict(list)

    async def read(self) -> None:
        for kind, number, at, *facts in await asyncio.to_thread(self._sink.events, self._seen):
            self._seen += 1
            if kind == ARRIVED:
                attempt = Attempt(facts[0], at)
                self._attempts.append(attempt)  # at index `number`: the journal counts them
                self.of_message[attempt.message_id].append(attempt)
            else:
                attempt = self._attempts[number]
                attempt.ended = at
                attempt.status = facts[0] if kind == ANSWERED else None

    def in_flight_at(self, moment: float) -> list[Attempt]:
        return [attempt for attempt in self._attempts if attempt.in_flight_at(moment)]

    def in_flight_now(self) -> int:
        return len(self.in_flight_at(time.monotonic()))

    def succeeded(self, message_id: str) -> bool:
        return any(attempt.succeeded for attempt in self.of_message.get(message_id, ()))

    async def until(self, predicate: Callable[[], bool], bound_s: float, what: Callable[[], str]) -> None:
        """As `wait_until`: allows three times the bound, then says how far `what` got."""
        deadline = time.monotonic() + 3 * bound_s
        while True:
            await self.read()
            if predicate():
                return
            assert time.monotonic() < deadline, f"not within 3 x {bound_s} s: {what()}"
            await asyncio.sleep(0.05)


class Publish(NamedTuple):
    url: str
    delay: str | None = None


@dataclass
class Publisher:
    """Publishes over keep-alive connections, never the same thing twice: what was not answered stays unknown."""

    port: int
    #: Cleared while the server is down, so that nobody asks for a connection.
    up: asyncio.Event = field(default_factory=asyncio.Event)
    jobs: asyncio.Queue[Publish] = field(default_factory=asyncio.Queue)
    accepted: dict[str, Publish] = field(default_factory=dict)
    unanswered: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @asynccontextmanager
    async def running(self, count: int) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._connection()) for _ in range(count)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for end in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(end, Exception):
                    raise end

    async def _connection(self) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            while True:
                await self.up.wait()
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:  # killed just now
                    await asyncio.sleep(0.05)
                    continue
                await self._publish_over(reader, writer)
                writer.close()
        finally:
            if writer:
                writer.close()

    async def _publish_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the connection breaks."""
        while True:
            job = await self.jobs.get()
            if reader.at_eof() or not self.up.is_set():
                self.jobs.put_nowait(job)
                return
            try:
                writer.write(self._request(job))
                status, body = await read_answer(reader)
            except (OSError, asyncio.IncompleteReadError):
                self.unanswered += 1
                return
            assert status == 201, (status, body)
            self.accepted[json.loads(body)["messageId"]] = job

    def _request(self, job: Publish) -> bytes:
        body = json.dumps({"number": next(self._numbers)}).encode()
        lines = [
            f"POST /v2/publish/{job.url} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Authorization: Bearer {DEV_TOKEN}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *([f"Upstash-Delay: {job.delay}"] if job.delay else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    return int(head.split(" ")[1]), await reader.readexactly(length)


def later(sink: SinkProcess, chance: random.Random) -> Publish:
    """A message that is delayed by 2 to 20 s, or one that fails once and waits for its retry."""
    if chance.random() < 0.25:
        return Publish(f"{sink.url}/fail/kills?times=1&retry_after={chance.randint(2, 5)}")
    return Publish(f"{sink.url}/ok/kills", delay=f"{chance.randint(2, 20)}s")


async def trickle(publisher: Publisher, sink: SinkProcess, chance: random.Random) -> None:
    while True:
        await publisher.up.wait()
        publisher.jobs.put_nowait(later(sink, chance))
        await asyncio.sleep(1 / TRICKLE_PER_S)


@dataclass
class Kill:
    """No server lives between `before` and `restarted`. `waiting` messages are delayed or wait for a retry."""

    before: float
    restarted: float
    in_flight: int
    waiting: int

    def explains(self, attempt: Attempt) -> bool:
        """Whether it came between the attempt's start and its end on the server's disk.

        What arrives while no server lives was sent before the kill: the sink had not read it yet.
        """
        return attempt.arrived <= self.restarted and (attempt.ended is None or self.before <= attempt.ended + SETTLE_S)


async def kill_and_restart(server: Server, publisher: Publisher, arrivals: Arrivals) -> Kill:
    """Returns when everything that was in flight at the kill has arrived."""
    before = time.monotonic()
    server.kill()
    publisher.up.clear()
    await arrivals.read()
    hit = arrivals.in_flight_at(before)
    kill = Kill(before, time.monotonic(), len(hit), waiting(publisher, arrivals))
    assert kill.in_flight >= IN_FLIGHT, kill
    assert kill.waiting >= WAITING, kill

    await asyncio.to_thread(server.start)
    publisher.up.set()

    def all_arrived() -> bool:
        return all(
            any(a.succeeded and a.ended and a.ended > kill.restarted for a in arrivals.of_message[attempt.message_id])
            for attempt in hit
        )

    # A restart, the redelivery held by the sink, and for one that was failing just then its Retry-After.
    await arrivals.until(all_arrived, 1 + HOLD_S + 5, lambda: f"arrival of all that was in flight at {kill}")
    return kill


def waiting(publisher: Publisher, arrivals: Arrivals) -> int:
    """How many accepted messages are delayed or wait for a retry."""
    return sum(
        1
        for message_id, job in publisher.accepted.items()
        if "/slow/" not in job.url
        and not arrivals.succeeded(message_id)
        and all(attempt.ended for attempt in arrivals.of_message.get(message_id, ()))
    )


async def kill_it_over_and_over(server: Server, sink: SinkProcess, chance: random.Random) -> dict[str, Any]:
    arrivals = Arrivals(sink)
    publisher = Publisher(server.port)
    publisher.up.set()
    kills = []
    async with publisher.running(PUBLISHERS):
        for _ in range(FIRST):
            publisher.jobs.put_nowait(later(sink, chance))
        trickling = asyncio.create_task(trickle(publisher, sink, chance))
        for _ in range(KILLS):
            await arrivals.until(
                lambda: waiting(publisher, arrivals) >= WAITING + 50,
                5,
                lambda: f"after {len(kills)} kills only {waiting(publisher, arrivals)} messages wait",
            )
            for _ in range(HELD):
                publisher.jobs.put_nowait(Publish(f"{sink.url}/slow/kills?seconds={HOLD_S}"))
            await arrivals.until(
                lambda: arrivals.in_flight_now() >= IN_FLIGHT + 10,
                5,
                lambda: (
                    f"after {len(kills)} kills only {arrivals.in_flight_now()} are in flight,"
                    f" {publisher.jobs.qsize()} are still to be published"
                ),
            )
            for _ in range(UNDERWAY):
                publisher.jobs.put_nowait(later(sink, chance))
            await asyncio.sleep(0.01)
            kills.append(await kill_and_restart(server, publisher, arrivals))
        trickling.cancel()
        await arrivals.until(publisher.jobs.empty, 5, lambda: f"{publisher.jobs.qsize()} are still to be published")
        await arrivals.until(
            lambda: all(map(arrivals.succeeded, publisher.accepted)),
            25,
            lambda: f"lost: {[m for m in publisher.accepted if not arrivals.succeeded(m)]}",
        )

    # Whatever was sent twice without need has a moment to show.
    await asyncio.sleep(1)
    await arrivals.read()
    unexplained = list(unexplained_repeats(arrivals, kills))
    assert not unexplained, f"{len(unexplained)} sent twice though no kill hit them: {unexplained[:3]}"
    never_answered = arrivals.of_message.keys() - publisher.accepted.keys()
    assert len(never_answered) <= publisher.unanswered
    return {
        "messages": len(publisher.accepted),
        "requests": sum(map(len, arrivals.of_message.values())),
        "publishes cut off": publisher.unanswered,
        "least in flight": min(kill.in_flight for kill in kills),
        "least waiting": min(kill.waiting for kill in kills),
    }


def unexplained_repeats(arrivals: Arrivals, kills: list[Kill]) -> Iterator[list[Attempt]]:
    """A request may follow one that was refused, or one that a kill met before its answer was on disk."""
    for attempts in arrivals.of_message.values():
        for earlier, _ in itertools.pairwise(attempts):
            refused = earlier.status is not None and not earlier.succeeded
            if not refused and not any(kill.explains(earlier) for kill in kills):
                yield attempts
                break


@pytest.fixture
def own_sink() -> Iterator[SinkProcess]:
    """The journal holds nothing but this test's requests."""
    sink = SinkProcess()
    yield sink
    sink.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data").start()
    yield server
    server.kill()


def test_twenty_kills_lose_nothing_and_repeat_only_what_was_in_flight(own_server: Server, own_sink: SinkProcess):
    seed = random.randrange(1 << 32)

    summary = asyncio.run(kill_it_over_and_over(own_server, own_sink, random.Random(seed)))

    assert own_server.stop() == 0
    print({"seed": seed, **summary})
