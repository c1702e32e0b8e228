"""Lanes on this machine: whether a quiet key notices a busy one, and a lane's speed what waits in it."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import TOKEN, free_port, process, wait_for

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_BATCH = 1_000


class _Sink(asyncio.Protocol):
    """Answers at once, and notes how long after its publish each request of the quiet key came."""

    def __init__(self, waits_s: list[float], arrivals: list[float]) -> None:
        self._waits_s, self._arrivals = waits_s, arrivals
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0) if found else 0
            if not found or len(rest) < length:
                return
            body, self._data = rest[:length], rest[length:]
            now = time.monotonic()
            self._arrivals.append(now)
            if body.startswith(b"at "):
                self._waits_s.append(now - float(body[3:]))
            self._transport.write(_OK)  # type: ignore[attr-defined]


def quiet_p99_ms(data: Path, busy: int, *, seconds: int = 20, rate: int = 20) -> float:
    """The p99 from publish to arrival under a key at so many messages a second, while another key holds `busy`
    messages and drains at 50 a second."""
    return asyncio.run(_quiet(data, busy, seconds, rate))


async def _quiet(data: Path, busy: int, seconds: int, rate: int) -> float:
    waits_s: list[float] = []
    async with _Served(data, waits_s) as served:
        await served.fill(busy, {"Upstash-Flow-Control-Key": "busy", "Upstash-Flow-Control-Value": "rate=50,period=1s"})
        await asyncio.sleep(2)
        headers = {"Upstash-Flow-Control-Key": "quiet", "Upstash-Flow-Control-Value": "parallelism=10"}
        begun = time.monotonic()
        for number in range(seconds * rate):
            await asyncio.sleep(max(0, begun + number / rate - time.monotonic()))
            await served.publish(headers, f"at {time.monotonic()}")
        await asyncio.sleep(1)
    return statistics.quantiles(waits_s, n=100)[98] * 1000


def drains(few: Path, many: Path, waiting: int, pairs: int, drained: int = 2_000) -> list[tuple[float, float]]:
    """How many messages a second come through a queue of parallelism 10, with 100 waiting in it and with so many, each
    on its own server, by turns."""
    return asyncio.run(_drains(few, many, waiting, pairs, drained))


async def _drains(few: Path, many: Path, waiting: int, pairs: int, drained: int) -> list[tuple[float, float]]:
    async with _Served(few, []) as with_few, _Served(many, []) as with_many:
        await with_few.hold(100)
        await with_many.hold(waiting)
        return [(await with_few.drain(drained), await with_many.drain(drained)) for _ in range(pairs)]


class _Served:
    """A server on a data folder, and an endpoint."""

    def __init__(self, data: Path, waits_s: list[float]) -> None:
        self._port, self._sink_port = free_port(), free_port()
        self._waits_s = waits_s
        self._arrivals: list[float] = []
        command = (sys.executable, "-m", "waypost.local")
        self._server = process(*command, WAYPOST_DATA=str(data), WAYPOST_PORT=str(self._port))

    async def __aenter__(self) -> _Served:
        loop = asyncio.get_running_loop()
        self._sink = await loop.create_server(
            lambda: _Sink(self._waits_s, self._arrivals), "127.0.0.1", self._sink_port
        )
        self._server.__enter__()
        await asyncio.to_thread(wait_for, f"http://127.0.0.1:{self._port}/healthz")
        return self

    async def __aexit__(self, *what: object) -> None:
        self._sink.close()
        await asyncio.to_thread(self._server.__exit__, None, None, None)

    async def hold(self, count: int) -> None:
        """Makes a queue, which is paused, and puts so many into it."""
        await self.call("POST", "/v2/queues", json.dumps({"queueName": "q", "parallelism": 10, "paused": True}))
        await self.fill(count, {}, queue="q")

    async def drain(self, count: int) -> float:
        """Puts so many more into it, and lets as many out. Returns how many come a second."""
        await self.fill(count, {}, queue="q")
        self._arrivals.clear()
        await self.call("POST", "/v2/queues/q/resume")
        while len(self._arrivals) < count:
            await asyncio.sleep(0.01)
        await self.call("POST", "/v2/queues/q/pause")
        speed = count / (self._arrivals[count - 1] - self._arrivals[0])
        await asyncio.sleep(1)  # for those that are out
        return speed

    async def publish(self, headers: dict[str, str], body: str) -> None:
        await self.call("POST", f"/v2/publish/http://127.0.0.1:{self._sink_port}/in", body, headers)

    async def fill(self, count: int, headers: dict[str, str], queue: str | None = None) -> None:
        item = {
            "destination": f"http://127.0.0.1:{self._sink_port}/in",
            "headers": headers,
            "queue": queue,
            "body": "x",
        }
        for first in range(0, count, _BATCH):
            await self.call("POST", "/v2/batch", json.dumps([item] * min(_BATCH, count - first)))

    async def call(self, method: str, path: str, body: str = "", headers: dict[str, str] | None = None) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            body.encode(),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/plain", **(headers or {})},
            method=method,
        )
        await asyncio.to_thread(_ask, request)


def _ask(request: urllib.request.Request) -> None:
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def ratios(pairs: Sequence[tuple[float, float]]) -> str:
    found = [high / low for low, high in pairs]
    return f"{[round(one, 2) for one in found]}, median {statistics.median(found):.2f}"
