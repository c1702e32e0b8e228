"""The endpoint that deliveries arrive at: a process of its own that keeps a journal of every request.

    python sink.py [--port N]        prints {"port": N} once it listens

How it answers is named by the first segment of the path; what follows is the caller's, to tell its requests apart:

    /ok                                       200
    /fail?times=2&status=500&retry_after=1    the first two attempts of each message get 500, later ones 200
    /always?status=500&retry_after=1          500 each time
    /slow?seconds=65                          200 after 65 seconds
    /status?code=489&nonretryable=1           that status, once and for all
    /redirect                                 302 to /ok/redirected

Control, both kept out of the journal. Times are CLOCK_MONOTONIC seconds, which all processes of one machine share.

    GET /__journal?path_prefix=/ok/x          whole records in order of arrival; headers as they were sent, body base64
    GET /__events?since=N                     what happened from the Nth event on, in short: see `Journal`
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

ARRIVED, ANSWERED, BROKEN = "arrived", "answered", "broken"


@dataclass
class Request:
    """`status` stays None while no answer was written; `broken` says that the client went away before one was."""

    number: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    arrived: float
    answered: float | None = None
    status: int | None = None
    broken: bool = False

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def shown(self) -> dict[str, Any]:
        return {**vars(self), "body": base64.b64encode(self.body).decode()}


@dataclass
class Journal:
    """Requests, and events as lists: [ARRIVED, number, time, message id, retried], [ANSWERED, number, time, status],
    [BROKEN, number, time]."""

    requests: list[Request] = field(default_factory=list)
    events: list[list[Any]] = field(default_factory=list)

    def arrived(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> Request:
        request = Request(len(self.requests), method, target, headers, body, time.monotonic())
        self.requests.append(request)
        message_id, retried = request.header("upstash-message-id"), request.header("upstash-retried")
        self.events.append([ARRIVED, request.number, request.arrived, message_id, retried])
        return request

    def answered(self, request: Request, status: int) -> None:
        request.answered, request.status = time.monotonic(), status
        self.events.append([ANSWERED, request.number, request.answered, status])

    def broken(self, request: Request) -> None:
        request.broken = True
        self.events.append([BROKEN, request.number, time.monotonic()])


@dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"ok"
    after_s: float = 0

    def wire(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} As-Asked", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


class Sink:
    def __init__(self) -> None:
        self.journal = Journal()
        self._attempts: Counter[str] = Counter()

    def answer(self, request: Request) -> Answer:
        parts = urlsplit(request.target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        later = (("Retry-After", query["retry_after"]),) if "retry_after" in query else ()
        match parts.path.split("/")[1]:
            case "ok":
                return Answer()
            case "slow":
                return Answer(after_s=float(query["seconds"]))
            case "always":
                return Answer(int(query.get("status", "500")), later, b"no")
            case "fail":
                message_id = request.header("upstash-message-id")
                self._attempts[message_id] += 1
                if self._attempts[message_id] <= int(query.get("times", "1")):
                    return Answer(int(query.get("status", "500")), later, b"not yet")
                return Answer()
            case "status":
                final = (("Upstash-NonRetryable-Error", "true"),) if query.get("nonretryable") == "1" else ()
                return Answer(int(query["code"]), final, b"")
            case "redirect":
                return Answer(302, (("Location", "/ok/redirected"),), b"")
            case _:
                return Answer(404, (), b"no such behaviour")

    def control(self, target: str) -> bytes | None:
        """The answer to a question about the journal; None if the request belongs in it."""
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/__journal":
            prefix = query.get("path_prefix", "")
            found: Any = [r.shown() for r in self.journal.requests if r.target.startswith(prefix)]
        elif parts.path == "/__events":
            found = self.journal.events[int(query.get("since", "0")) :]
        else:
            return None
        return Answer(200, (("Content-Type", "application/json"),), json.dumps(found).encode()).wire()


class Connection(asyncio.Protocol):
    """One request at a time: what a client sends before it has its answer waits."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = b""
        self._open: Request | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        if self._open:
            self._sink.journal.broken(self._open)

    def _advance(self) -> None:
        while self._open is None and (parsed := parse(self._buffer)):
            method, target, headers, body, used = parsed
            self._buffer = self._buffer[used:]
            if (shown := self._sink.control(target)) is not None:
                self._transport.write(shown)
                continue
            self._open = self._sink.journal.arrived(method, target, headers, body)
            answer = self._sink.answer(self._open)
            if answer.after_s:
                self._timer = asyncio.get_running_loop().call_later(answer.after_s, self._finish, answer)
            else:
                self._write(answer)

    def _finish(self, answer: Answer) -> None:
        self._timer = None
        self._write(answer)
        self._advance()

    def _write(self, answer: Answer) -> None:
        assert self._open
        request, self._open = self._open, None
        self._transport.write(answer.wire())
        self._sink.journal.answered(request, answer.status)


Parsed = tuple[str, str, list[tuple[str, str]], bytes, int]


def parse(data: bytes) -> Parsed | None:
    """The first request in `data` and how many bytes it took; None if it is not all there. It trusts its sender."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    known = {name.lower(): value for name, value in headers}
    at = end + 4
    if known.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while True:
            eol = data.find(b"\r\n", at)
            if eol < 0:
                return None
            size = int(data[at:eol].split(b";")[0], 16)
            chunk_end = eol + 2 + size
            if len(data) < chunk_end + 2:
                return None
            body += data[eol + 2 : chunk_end]
            at = chunk_end + 2
            if size == 0:
                return method, target, headers, body, at
    stop = at + int(known.get("content-length", "0"))
    return (method, target, headers, data[at:stop], stop) if len(data) >= stop else None


async def serve(port: int) -> None:
    sink = Sink()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(sink), "127.0.0.1", port, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    try:
        asyncio.run(serve(parser.parse_args().port))
    except KeyboardInterrupt:
        pass
