"""A load of publishes over keep-alive connections, and the endpoint that counts what arrives. Loopback only."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waypost.local.settings import DEVELOPMENT_ACCOUNTS

ROOT = Path(__file__).parents[1]
TOKEN = DEVELOPMENT_ACCOUNTS[0].token
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class _Sink(asyncio.Protocol):
    """Answers each POST with 200 as soon as its body is whole; GET tells how many there were."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            low = head.lower()
            at = low.find(b"content-length:")
            length = int(low[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(rest) < length:
                return
            self._data = rest[length:]
            if head.startswith(b"GET"):
                body = b"%d" % _Sink.count
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))  # type: ignore[attr-defined]
            else:
                _Sink.count += 1
                self._transport.write(_OK)  # type: ignore[attr-defined]


async def _serve_sink(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", port)
    await server.serve_forever()


async def _publish(url_port: int, sink_port: int, count: int, connections: int, size: int) -> None:
    left = iter(range(count))
    path = f"/v2/publish/http://127.0.0.1:{sink_port}/in"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", url_port)
        for number in left:
            body = json.dumps({"id": number, "pad": "x" * (size - 24)}).encode()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 201"):
                raise SystemExit(f"publish answered {answer!r}")
            await reader.readexactly(int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    paths = f"{ROOT / 'functions'}:{ROOT}"
    started = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths, **environment}, stdout=subprocess.DEVNULL
    )
    try:
        yield started
    finally:
        started.terminate()
        started.wait(20)


def wait_for(url: str) -> float:
    """Polls until the URL answers 200; returns when, by the monotonic clock."""
    for _ in range(2_000):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return time.monotonic()
        except OSError:
            time.sleep(0.005)
    raise SystemExit(f"{url} does not answer")


def measure(data: Path, count: int, *, connections: int = 32, size: int = 256) -> float:
    """Messages delivered a second by a server on this data folder, from the first publish to the last arrival."""
    port, sink_port = free_port(), free_port()
    with (
        process(sys.executable, "-m", "benchmarks.load", "sink", str(sink_port)),
        process(sys.executable, "-m", "waypost.local", WAYPOST_DATA=str(data), WAYPOST_PORT=str(port)),
    ):
        sink = f"http://127.0.0.1:{sink_port}/"
        wait_for(sink)
        wait_for(f"http://127.0.0.1:{port}/healthz")
        time.sleep(1)  # recovery and imports are over
        asyncio.run(_publish(port, sink_port, 500, connections, size))  # warm
        _await_count(sink, 500)
        start = time.monotonic()
        asyncio.run(_publish(port, sink_port, count, connections, size))
        _await_count(sink, 500 + count)
        return count / (time.monotonic() - start)


def _await_count(sink: str, count: int) -> None:
    for _ in range(6_000):
        with urllib.request.urlopen(sink, timeout=5) as answer:
            if int(answer.read()) >= count:
                return
        time.sleep(0.01)
    raise SystemExit("not everything arrived")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["sink"])
    parser.add_argument("port", type=int)
    asyncio.run(_serve_sink(parser.parse_args().port))
