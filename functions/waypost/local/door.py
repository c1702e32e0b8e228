"""The server's side of HTTP/1.1: requests from sockets, with their raw paths, become calls; replies go back as JSON.

On `httptools`, the parser of the ASGI servers, without their layers: those cost more than everything that a publish
does here. One request of a connection is served at a time; those that follow it unasked wait in line.
"""

from __future__ import annotations

import asyncio
import email.utils
import http
import re
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import cast

import httptools
import msgspec
from msgspec.structs import replace

from waypost.api import Api, Call, Reply, body_too_large
from waypost.core.errors import BadRequest, TooMuch
from waypost.core.policy import Policy

_MAX_HEAD = 131_072
#: What is read of a body before anybody has asked for it.
_UNASKED = 65_536
#: Requests that may wait in line behind the one that is served.
_IN_LINE = 16
#: A caller whose head, or whose body, takes longer is let go.
_HEAD_S = 60
_BODY_S = 60
#: A connection without a request is closed after this.
_IDLE_S = 75
_SWEEP_S = 1
_NEVER = float("inf")
_REMEDY = "send a well-formed HTTP/1.1 request; escape what is not ASCII in the path"
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}


class _Gone(BaseException):
    """The caller went away before its request was whole. No Exception: nobody is left whom `api` could answer."""


class _Request:
    """One request as it comes in."""

    __slots__ = ("asked", "chunks", "cut", "headers", "keep_alive", "method", "size", "target", "unwanted", "whole")

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.headers: list[tuple[str, str]] = []
        self.chunks: list[bytes] = []
        self.size = 0
        self.whole = False
        self.keep_alive = False
        #: Its body can't be read.
        self.cut = False
        #: Somebody waits for the body.
        self.asked = False
        #: Answered: what still comes of the body is dropped.
        self.unwanted = False


class Door:
    """Listens, and answers with what `api` says."""

    def __init__(self, api: Api, policy: Policy, base_path: str) -> None:
        self._api = api
        self._base_path = base_path
        self.answer = self.answer_below if base_path else api.answer
        self.max_body = policy.max_body
        self.too_large = body_too_large(policy)
        self._connections: set[_Connection] = set()
        #: No more requests are taken.
        self.closed = False
        self._date = (0, "")

    async def open(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), sock=listener)
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep, loop)

    async def close(self, grace_s: float) -> None:
        """Takes no more requests; those being served have so many seconds to end."""
        self.closed = True
        self._server.close()
        for connection in list(self._connections):
            connection.finish()
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        while self._connections and loop.time() < until:
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.abort()
        self._sweeper.cancel()

    async def answer_below(self, call: Call) -> Reply:
        """What `api` says to a call below the base path."""
        if not call.path.startswith(self._base_path + "/"):
            return Reply(404, {"error": f"this server answers below {self._base_path}/ (WAYPOST_BASE_PATH)"})
        return await self._api.answer(replace(call, path=call.path[len(self._base_path) :]))

    def date(self) -> str:
        """Now, as the `date` header gives it."""
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, email.utils.formatdate(second, usegmt=True))
        return self._date[1]

    def welcome(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all connections: a timer for each step of each request would cost more than the step."""
        now = loop.time()
        for connection in [late for late in self._connections if late.deadline < now]:
            connection.expire()
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep, loop)


class _Connection(asyncio.Protocol):
    _transport: asyncio.Transport
    _task: asyncio.Task[None]

    def __init__(self, door: Door) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._caller_ip = ""
        #: The request whose head or body is coming in, or came in last.
        self._coming = _Request()
        self._in_head = False
        self._head_size = 0
        self._line: deque[_Request] = deque()
        self._served: _Request | None = None
        #: Set when there is more for whoever serves.
        self._more: asyncio.Future[None] | None = None
        #: Nothing that comes in now is looked at.
        self._ending = False
        self._reading = True
        self._writable = True
        #: When patience with the caller ends, by the loop's clock.
        self.deadline = self._loop.time() + _IDLE_S

    # The door's side ---------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Closes after the request that is being served, or at once if there is none."""
        if self._served is None and not self._line:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def expire(self) -> None:
        """What was waited for did not come in time."""
        served = self._served
        if served and served.asked and not served.unwanted and self._more and not self._more.done():
            self._ending = True
            self.deadline = _NEVER
            self._more.set_exception(BadRequest(f"the body did not arrive within {_BODY_S} s, send it faster"))
        else:
            self._transport.abort()

    # The transport's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._caller_ip = peer[0] if peer else ""
        self._door.welcome(self)
        self._task = self._loop.create_task(self._serve())

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.forget(self)
        if self._more and not self._more.done():
            self._more.set_exception(_Gone())

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It is answered as if it had not asked for another protocol, and nothing is read after it.
            self._ending = True
        except httptools.HttpParserError as wrong:
            self._refuse(400, f"{str(wrong).rstrip('.') or 'invalid request'}: {_REMEDY}")
            return
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > _MAX_HEAD:
                self._refuse(431, f"the head of a request has at most {_MAX_HEAD} bytes: put data into the body")
                return
        self._regulate()

    def pause_writing(self) -> None:
        self._writable = False
        self._regulate()

    def resume_writing(self) -> None:
        self._writable = True
        self._regulate()

    # The parser's side -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._coming = _Request()
        self._in_head, self._head_size = True, 0
        if self._served is None:
            self.deadline = self._loop.time() + _HEAD_S

    def on_url(self, url: bytes) -> None:
        self._coming.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # What stands behind a body says nothing: a token or a setting there would depend on how packets fall.
        if self._in_head:
            self._coming.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        request = self._coming
        self._in_head = False
        request.method = self._parser.get_method().decode("latin-1")
        request.keep_alive = self._parser.should_keep_alive()
        # The parser takes what follows for the other protocol, so a body would be lost.
        request.cut = self._parser.should_upgrade() and any(
            name == "transfer-encoding" or (name == "content-length" and value.strip("0"))
            for name, value in request.headers
        )
        self._line.append(request)
        self._stir()

    def on_body(self, body: bytes) -> None:
        request = self._coming
        if not request.unwanted:
            request.chunks.append(body)
            request.size += len(body)
            if request is self._served:
                self._stir()

    def on_message_complete(self) -> None:
        self._coming.whole = True
        if self._coming is self._served:
            self._stir()

    # Serving -----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Answers the requests of this connection, one after the other."""
        try:
            while not self._transport.is_closing():
                while not self._line:
                    await self._wait()
                request = self._served = self._line.popleft()
                # What is whole takes as long as it takes: whoever waits is the caller.
                self.deadline = _NEVER if request.whole else self._loop.time() + _BODY_S
                path, query = _parted(request.target)
                reply = await self._door.answer(
                    Call(request.method, path, query, request.headers, lambda: self._read(request), self._caller_ip)  # noqa: B023
                )
                self._write(request, reply)
                while not request.whole and not self._ending:
                    # Closing now could cost the caller the answer: what it still sends is read, and dropped.
                    await self._wait()
                self._served = None
                if not request.keep_alive:
                    self._ending = True
                    self._transport.close()
                self.deadline = self._loop.time() + (_HEAD_S if self._in_head else _IDLE_S)
        except _Gone:
            return

    async def _read(self, request: _Request) -> bytes:
        if request.cut:
            raise BadRequest("a request with a body can't ask for another protocol: leave out the Upgrade header")
        if not request.whole:
            await self._rest(request)
        if request.size > self._door.max_body:
            raise TooMuch(self._door.too_large)
        return request.chunks[0] if len(request.chunks) == 1 else b"".join(request.chunks)

    async def _rest(self, request: _Request) -> None:
        for name, value in request.headers:
            if name == "content-length" and int(value) > self._door.max_body:
                raise TooMuch(self._door.too_large)
            if name == "expect" and value.lower() == "100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.asked = True
        while not request.whole and request.size <= self._door.max_body:
            await self._wait()
        self.deadline = _NEVER

    async def _wait(self) -> None:
        """Until more has come. Raises _Gone when none will."""
        if self._transport.is_closing():
            raise _Gone
        self._more = self._loop.create_future()
        self._regulate()
        await self._more

    def _stir(self) -> None:
        if self._more and not self._more.done():
            self._more.set_result(None)

    def _write(self, request: _Request, reply: Reply) -> None:
        if self._transport.is_closing():
            raise _Gone
        if self._ending or self._door.closed or not request.whole:
            request.keep_alive = False
        body = reply.body()
        head = _head(reply.status, len(body), self._door.date(), reply.headers, request.keep_alive)
        self._transport.write(head if request.method == "HEAD" else head + body)
        request.unwanted = True
        request.chunks.clear()
        if not request.whole:
            self.deadline = self._loop.time() + _BODY_S

    def _refuse(self, status: int, reason: str) -> None:
        """Answers what the parser could not read. Nothing that follows it can be told from it."""
        self._ending = True
        before = self._served or (self._line[0] if self._line else None)
        if before and before.whole:
            return  # The connection is closed behind the answer to that one.
        body = msgspec.json.encode({"error": reason})
        self._transport.write(_head(status, len(body), self._door.date(), (), keep_alive=False) + body)
        self._transport.close()

    def _regulate(self) -> None:
        """Reads from the socket only while there is room for what comes."""
        coming = self._coming
        full = coming.size > _UNASKED and not (coming.whole or coming.asked or coming.unwanted)
        reading = self._writable and not full and len(self._line) < _IN_LINE
        if reading != self._reading and not self._transport.is_closing():
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


def _parted(target: bytes) -> tuple[str, str]:
    """Path and query of a request's target as they stand there; an absolute one loses its scheme and authority."""
    text = target.decode("latin-1")
    if not text.startswith("/"):
        text = _AUTHORITY.sub("", text, count=1)
    path, _, query = text.partition("?")
    return path, query


def _head(status: int, length: int, date: str, headers: Sequence[tuple[str, str]], keep_alive: bool) -> bytes:
    more = "".join([f"{name}: {value}\r\n" for name, value in headers]) if headers else ""
    end = "" if keep_alive else "connection: close\r\n"
    return (
        f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\ndate: {date}\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n{more}{end}\r\n"
    ).encode("latin-1")
