"""The server's side of HTTP/1.1: requests from sockets, with their raw paths, become calls; replies go back.

On `httptools`, the parser of the ASGI servers, without their layers: those cost more than everything that a publish
does here. One request of a connection is served at a time; those that follow it unasked wait in line. An answer that
says `connection: close` is the last: what stood in line behind it was not begun, so whoever sent it may send it again.
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import http
import logging
import re
import socket
import time
from collections import deque
from typing import cast

import httptools
from msgspec.structs import replace

from waypost.api import Api
from waypost.call import Call, Limit, Reply, body_limit
from waypost.core import limits
from waypost.core.errors import BadRequest, TooMuch
from waypost.core.policy import Policy

_log = logging.getLogger("waypost.door")
#: More digits than any length that is served has; `int` refuses some thousands of them.
_LENGTH_DIGITS = 15
#: What is read of a body before anybody has asked for it.
_UNASKED = 65_536
_SWEEP_S = 1
_NEVER = float("inf")
_REMEDY = "send a well-formed HTTP/1.1 request; escape what is not ASCII in the path"
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}


class _Gone(BaseException):
    """The caller went away before its request was whole. No Exception: nobody is left whom `api` could answer."""


class _Request:
    """One request as it comes in."""

    __slots__ = (
        "asked", "chunks", "headers", "keep_alive", "method", "old", "refusal", "size", "target", "unwanted", "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.headers: list[tuple[str, str]] = []
        self.chunks: list[bytes] = []
        self.size = 0
        self.whole = False
        self.keep_alive = False
        #: Of HTTP/1.0, which knows no 100 Continue and closes unless it is told otherwise.
        self.old = False
        #: What it gets instead of an answer of the api: the rest of it can't be read.
        self.refusal: Reply | None = None
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
        self.limit = body_limit(policy)
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
        #: Bytes that came since the read in which the last request ended. Where in a read one ends, the parser doesn't
        #: say: what follows it there is not counted, rather than held against the next.
        self._received = 0
        self._line: deque[_Request] = deque()
        self._served: _Request | None = None
        #: Set when there is more for whoever serves.
        self._more: asyncio.Future[None] | None = None
        #: Nothing that comes in now is looked at.
        self._ending = False
        self._reading = True
        self._writable = True
        #: When patience with the caller ends, by the loop's clock.
        self.deadline = self._loop.time() + limits.IDLE_S

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
        if served and served.asked and not served.unwanted:
            self._refuse(400, f"the body did not arrive within {limits.BODY_S} s, send it faster")
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
        # The parser points back here: left alone, every connection would wait for the garbage collector, which is rare.
        del self._parser, self._coming
        self._line.clear()
        self._stir()

    def eof_received(self) -> bool:
        """A caller may end its own side alone: what it asked until then is answered."""
        self._refuse(400, "the request ended before it was whole, send all of it")
        return True

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It is answered as if it had not asked for another protocol, and nothing is read after it.
            self._ending = True
        except httptools.HttpParserError as wrong:
            self._refuse(400, f"{str(wrong).rstrip('.') or 'invalid request'}: {_REMEDY}")
            return
        # The parser bounds neither a line nor what stands around chunks: up to six bytes with each byte of a body.
        if self._received > limits.REQUEST_HEAD + 8 * self._coming.size:
            self._refuse(
                431, f"a request has at most {limits.REQUEST_HEAD} bytes besides its body: put data into the body"
            )
            return
        self._regulate()

    def pause_writing(self) -> None:
        self._writable = False
        self._regulate()

    def resume_writing(self) -> None:
        self._writable = True
        self._stir()
        self._regulate()

    # The parser's side -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._coming = _Request()
        self._in_head = True
        if self._served is None:
            self.deadline = self._loop.time() + limits.HEAD_S

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
        request.old = self._parser.get_http_version() < "1.1"
        if self._parser.should_upgrade() and any(
            name == "transfer-encoding" or (name == "content-length" and value.strip("0"))
            for name, value in request.headers
        ):
            # The parser takes what follows for the other protocol, so the body would be lost.
            reason = "a request with a body can't ask for another protocol: leave out the Upgrade header"
            request.refusal = Reply(400, {"error": reason})
        self._line.append(request)
        self._stir()

    def on_body(self, body: bytes) -> None:
        request = self._coming
        request.size += len(body)
        if not request.unwanted:
            request.chunks.append(body)
            if request is self._served:
                self._stir()

    def on_message_complete(self) -> None:
        self._received = 0
        self._coming.whole = True
        if self._coming is self._served:
            self._stir()

    # Serving -----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Answers the requests of this connection, one after the other."""
        try:
            while not self._transport.is_closing():
                while not (self._line and self._writable):
                    await self._wait()
                request = self._served = self._line.popleft()
                # What is whole takes as long as it takes: whoever waits is the caller.
                self.deadline = _NEVER if request.whole else self._loop.time() + limits.BODY_S
                self._write(request, request.refusal or await self._door.answer(self._call(request)))
                while not request.whole and not self._ending:
                    # Closing now could cost the caller the answer: what it still sends is read, and dropped.
                    await self._wait()
                self._served = None
                if not request.keep_alive:
                    self._ending = True
                    self._transport.close()
                self.deadline = self._loop.time() + (limits.HEAD_S if self._in_head else limits.IDLE_S)
                if self._line:
                    # Answers that come without waiting would keep all other connections waiting.
                    await asyncio.sleep(0)
        except _Gone:
            return
        except Exception:  # noqa: BLE001 - a caller would wait for an answer that nobody writes
            _log.exception("a connection is given up")
            self._transport.abort()

    def _call(self, request: _Request) -> Call:
        path, query = _parted(request.target)
        read_body = functools.partial(self._read, request)
        return Call(request.method, path, query, request.headers, read_body, self._caller_ip)

    async def _read(self, request: _Request, limit: Limit | None = None) -> bytes:
        limit = limit or self._door.limit
        if not request.whole:
            await self._rest(request, limit)
        if request.size > limit.most:
            raise TooMuch(limit.refusal)
        return request.chunks[0] if len(request.chunks) == 1 else b"".join(request.chunks)

    async def _rest(self, request: _Request, limit: Limit) -> None:
        for name, value in request.headers:
            if name == "content-length" and (len(value) > _LENGTH_DIGITS or int(value) > limit.most):
                raise TooMuch(limit.refusal)
            if name == "expect" and value.lower() == "100-continue" and not request.old:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.asked = True
        while not request.whole and request.size <= limit.most:
            if request.refusal:
                raise BadRequest(request.refusal.content["error"])
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
        if self._door.closed or not request.whole or (self._ending and not self._line):
            request.keep_alive = False
        body = reply.body()
        connection = "close" if not request.keep_alive else "keep-alive" if request.old else ""
        head = _head(reply, len(body), self._door.date(), connection)
        self._transport.write(head if request.method == "HEAD" else head + body)
        request.unwanted = True
        request.chunks.clear()
        if not request.whole:
            self.deadline = self._loop.time() + limits.BODY_S

    def _refuse(self, status: int, reason: str) -> None:
        """Ends with the request that is coming in, which can't be read: nothing that follows can be told from it."""
        self._ending = True
        if not self._coming.whole:
            self._coming.refusal = self._coming.refusal or Reply(status, {"error": reason})
        if self._in_head and not self._served and not self._line:
            # Behind other requests it is no more than their end: the connection is closed with the last answer.
            self._line.append(self._coming)
        self._stir()
        self.finish()

    def _regulate(self) -> None:
        """Reads from the socket only while there is room for what comes."""
        coming = self._coming
        full = coming.size > _UNASKED and not (coming.whole or coming.asked or coming.unwanted)
        reading = self._writable and not full and len(self._line) < limits.IN_LINE
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


def _head(reply: Reply, length: int, date: str, connection: str) -> bytes:
    more = "".join([f"{name}: {value}\r\n" for name, value in reply.headers]) if reply.headers else ""
    end = f"connection: {connection}\r\n" if connection else ""
    return (
        f"HTTP/1.1 {reply.status} {_PHRASES.get(reply.status, '')}\r\ndate: {date}\r\n"
        f"content-type: {reply.media_type}\r\ncontent-length: {length}\r\n{more}{end}\r\n"
    ).encode("latin-1")
