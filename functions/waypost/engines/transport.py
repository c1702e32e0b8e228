"""Requests to destinations over HTTP/1.1: a pool of kept connections, each made to an address that the guard passed."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias, cast
from urllib.parse import unquote_to_bytes, urlsplit

import httptools
from msgspec import Struct

from waypost.core import limits
from waypost.core.guard import Guard, canonical_host, is_address
from waypost.core.ports import Answer, NoAnswer, Outgoing
from waypost.core.remembered import remembered

#: The addresses of a name. Raises OSError.
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

#: Node, the most common server, closes what was idle for 5 s: a request must not meet that.
_IDLE_S = 4.0
_IDLE_PER_PLACE = 128
_IDLE_IN_ALL = 1024
#: An address that doesn't answer is left for the next one after its share of the time, but not before this.
_CONNECT_SHARE_S = 1.0
#: A larger body is not copied behind its head.
_ONE_WRITE = 64 * 1024

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})
#: They belong to a connection and to its framing, which are decided here: taken from outside they could part a request
#: in two.
_OWN_HEADERS = {
    "host", "content-length", "transfer-encoding", "connection", "keep-alive",
    "proxy-connection", "te", "trailer", "upgrade", "expect",
}  # fmt: skip
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_IN_URL = re.compile(r"[\x00-\x20\x7f]")
_BAD_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_HEAD_TOO_LARGE = f"the answer's head is larger than {limits.ANSWER_HEAD // 1024} KiB"
_SWITCHES = "the answer switches to another protocol"


class _Failed(Exception):
    """No answer will come; the text says why."""


class _Late(_Failed):
    """The time is over."""


class _Place(NamedTuple):
    """What a connection is kept for. The host is canonical."""

    scheme: str
    host: str
    port: int


class _Target(Struct, frozen=True):
    """A URL, read: where to connect to and what to write there."""

    place: _Place
    path: str
    host_header: str
    authorization: str | None


@remembered(longest=1024)
def _read_url(url: str) -> _Target | str:
    """What the URL says, or a sentence why nothing can be sent there."""
    if _BAD_IN_URL.search(url):
        return "the url holds a space or a control character"
    try:
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS:
            return "the url is neither http nor https"
        host = canonical_host(parts.hostname or "")
        default = _DEFAULT_PORTS[parts.scheme]
        port = default if parts.port is None else parts.port
    except ValueError as wrong:
        return f"the url can't be read: {wrong}"
    path = url.partition("#")[0][len(parts.scheme) + len("://") + len(parts.netloc) :]
    if not path.isascii():
        return "the url's path holds a character that is not percent-encoded"
    bracketed = f"[{host}]" if ":" in host else host
    authorization = None
    if parts.username is not None:
        user = unquote_to_bytes(f"{parts.username}:{parts.password or ''}")
        authorization = "Basic " + base64.b64encode(user).decode("ascii")
    return _Target(
        place=_Place(parts.scheme, host, port),
        path=path if path.startswith("/") else "/" + path,
        host_header=bracketed if port == default else f"{bracketed}:{port}",
        authorization=authorization,
    )


@remembered(longest=128)
def _read_name(name: str) -> str:
    """The name of a header in lower case. Raises _Failed if it is none."""
    if not _TOKEN.fullmatch(name):
        raise _Failed(f"the header name {name[:100]!r} can't be sent")
    return name.lower()


def _write_head(request: Outgoing, target: _Target) -> bytes:
    """The request's first line and headers. Raises _Failed for what can't stand in them."""
    if not _TOKEN.fullmatch(request.method):
        raise _Failed(f"the method {request.method[:100]!r} can't be sent")
    lines = [f"{request.method} {target.path} HTTP/1.1", f"Host: {target.host_header}"]
    authorization = target.authorization
    for name, value in request.headers:
        lower = _read_name(name)
        if not value.isprintable() and _BAD_IN_VALUE.search(value):
            raise _Failed(f"the value of header {name} holds a control character")
        if lower in _OWN_HEADERS:
            continue
        if lower == "authorization":
            authorization = None
        lines.append(f"{name}: {value}")
    if authorization:
        lines.append(f"Authorization: {authorization}")
    if request.body or request.method in _WITH_LENGTH:
        lines.append(f"Content-Length: {len(request.body)}")
    try:
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    except UnicodeEncodeError:
        raise _Failed("a header holds a character outside latin-1") from None


class _Stop(Exception):
    """Ends the parser's work on what it was fed."""


class _Reading:
    """One answer as it comes in. When `done`, it is complete, and `reusable` says whether another request may follow on
    its connection."""

    def __init__(self, method: str, body_cap: int) -> None:
        self.done = False
        self.reusable = False
        self._bodiless = method == "HEAD"
        self._cap = body_cap
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._in_body = False
        self._body: list[bytes] = []
        self._received = self._head_size = self._body_size = 0
        self._failure: str | None = None

    def feed(self, data: bytes) -> bool:
        """Returns whether the answer is done. Raises _Failed when none can come of it any more."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as wrong:
            if not self.done:
                raise _Failed(self._failure or f"malformed answer: {wrong}") from None
        # The parser bounds neither a line nor what stands around chunks: up to six bytes with each byte of a body.
        self._received += len(data)
        if not self.done and self._received > limits.ANSWER_HEAD + 8 * self._body_size:
            raise _Failed(_HEAD_TOO_LARGE)
        return self.done

    def end(self) -> None:
        """The connection was closed. Raises _Failed if the answer was not complete."""
        if not self._in_body:
            raise _Failed("connection closed before an answer came")
        if any(_tells_the_end(name, value) for name, value in self._headers):
            raise _Failed("connection closed before the answer was complete")
        self.done = True

    def answer(self) -> Answer:
        """What was read, once."""
        # The parser points back here: left alone, every answer would wait for the garbage collector.
        del self._parser
        return Answer(self._status, self._headers, b"".join(self._body))

    def on_message_begin(self) -> None:
        if self.done:
            self.reusable = False
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return
        self._head_size += len(name) + len(value) + len(": \r\n")
        if self._head_size > limits.ANSWER_HEAD:
            self._fail(_HEAD_TOO_LARGE)
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1").rstrip(" \t")))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status == 101:
            self._fail(_SWITCHES)
        if self._status < 100:
            self._fail(f"malformed answer: status {self._status}")
        if self._status < 200:
            self._headers.clear()
            return
        self._in_body = True
        if self._bodiless:
            # The parser doesn't know that no body follows, so it can't go on after this.
            self.done = True
            raise _Stop

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size > self._cap:
            self._body.append(body[: self._cap - self._body_size])
            self.done = True
            raise _Stop
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._in_body:
            self.done = True
            self.reusable = self._parser.should_keep_alive()

    def _fail(self, reason: str) -> None:
        self._failure = reason
        raise _Stop


def _tells_the_end(name: str, value: str) -> bool:
    """Whether a header says where the body ends; if none does, it ends with the connection."""
    return name == "content-length" or (name == "transfer-encoding" and value.lower().endswith("chunked"))


class _Connection(asyncio.Protocol):
    """One connection, which carries one request at a time."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        #: False as soon as no further request may be sent on it.
        self.usable = True
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._reading: _Reading | None = None
        self._waiter: asyncio.Future[_Failed | None] | None = None

    async def exchange(self, head: bytes, body: bytes, reading: _Reading, until: float) -> Answer:
        """Raises _Failed, _Late at the loop's time `until`. When it fails, the connection is of no further use."""
        if not self.usable:
            raise _Failed("connection closed before the request was sent")
        self._reading = reading
        self._waiter = self._loop.create_future()
        timer = self._loop.call_at(until, self._settle, _Late())
        if len(body) <= _ONE_WRITE:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        try:
            failed = await self._waiter
        finally:
            timer.cancel()
        self._reading = self._waiter = None
        if failed:
            raise failed
        # An answer that came before the whole request had left says that the rest is not wanted.
        if not reading.reusable or self._transport.get_write_buffer_size():
            self.usable = False
        return reading.answer()

    def drop(self) -> None:
        self.usable = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._reading or self._reading.done:
            # Nobody asked for this: what follows couldn't be told from an answer.
            self.drop()
            return
        try:
            if self._reading.feed(data):
                self._settle(None)
        except _Failed as failed:
            self._settle(failed)
            self.drop()

    def eof_received(self) -> None:
        self.usable = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if not self._reading or self._reading.done:
            return
        try:
            if exc:
                raise _Failed(f"connection lost: {_said(exc)}")
            self._reading.end()
            self._settle(None)
        except _Failed as failed:
            self._settle(failed)

    def _settle(self, failed: _Failed | None) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(failed)


class _Pool:
    """Idle connections by place. The one used last is taken first, so that those not needed grow old."""

    def __init__(self) -> None:
        self._idle: dict[_Place, list[_Connection]] = {}
        self._count = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, place: _Place, now: float) -> _Connection | None:
        oldest = now - _IDLE_S
        kept = self._idle.get(place)
        while kept:
            connection = kept.pop()
            self._count -= 1
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.drop()
        return None

    def give(self, place: _Place, connection: _Connection, loop: asyncio.AbstractEventLoop) -> None:
        kept = self._idle.get(place, [])
        if not connection.usable or self._closed or len(kept) >= _IDLE_PER_PLACE or self._count >= _IDLE_IN_ALL:
            connection.drop()
            return
        connection.idle_since = loop.time()
        self._idle.setdefault(place, kept).append(connection)
        self._count += 1
        if not self._sweeper:
            self._sweeper = loop.call_later(_IDLE_S, self._sweep, loop)

    def close(self) -> None:
        self._closed = True
        if self._sweeper:
            self._sweeper.cancel()
        self.drop()

    def drop(self) -> None:
        self._drop(lambda connection: True)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        oldest = loop.time() - _IDLE_S
        self._drop(lambda connection: not connection.usable or connection.idle_since <= oldest)
        self._sweeper = loop.call_later(1.0, self._sweep, loop) if self._count else None

    def _drop(self, which: Callable[[_Connection], bool]) -> None:
        for place, kept in list(self._idle.items()):
            for connection in filter(which, kept):
                connection.drop()
            left = [connection for connection in kept if connection.usable]
            self._count -= len(kept) - len(left)
            if left:
                self._idle[place] = left
            else:
                del self._idle[place]


async def look_up(host: str, port: int) -> Sequence[str]:
    """Every address that the system's resolver gives, in its order. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HttpSender:
    """Sends each request once, never twice, to an address that `guard` passes, and reads the answer up to `body_cap`
    bytes. `ca_file` holds certificates trusted besides the system's. Lives on one event loop."""

    def __init__(
        self,
        guard: Guard,
        *,
        body_cap: int = limits.ANSWER_BODY,
        ca_file: str | None = None,
        resolve: Resolve = look_up,
    ) -> None:
        self._guard = guard
        self._body_cap = body_cap
        self._ca_file = ca_file
        self._resolve = resolve
        self._pool = _Pool()
        self._tls_made: ssl.SSLContext | None = None

    async def send(self, request: Outgoing) -> Answer | NoAnswer:
        """Never raises; a reason says what went wrong."""
        try:
            return await self._send(request)
        except (TimeoutError, _Late):
            return NoAnswer(f"no answer within {request.timeout_ms / 1000:g} s")
        except _Failed as failed:
            return NoAnswer(str(failed))
        except Exception as unforeseen:  # noqa: BLE001  # what is raised here would cost an attempt its record
            return NoAnswer(f"the request failed: {type(unforeseen).__name__}: {unforeseen}")

    def drop_idle(self) -> None:
        """Before this process is frozen: what a connection's other end does meanwhile, nobody here would notice."""
        self._pool.drop()

    async def close(self) -> None:
        """Drops idle connections; those in use are dropped after their answer."""
        self._pool.close()
        # Dropped connections are told so on the loop's next turn.
        await asyncio.sleep(0)

    async def _send(self, request: Outgoing) -> Answer:
        loop = asyncio.get_running_loop()
        now = loop.time()
        until = now + request.timeout_ms / 1000
        target = _read_url(request.url)
        if isinstance(target, str):
            raise _Failed(target)
        head = _write_head(request, target)
        reading = _Reading(request.method, self._body_cap)
        connection = self._pool.take(target.place, now)
        if connection is None:
            async with asyncio.timeout_at(until):
                connection = await self._connect(target.place, request.timeout_ms / 1000)
        try:
            answer = await connection.exchange(head, request.body, reading, until)
        except BaseException:
            connection.drop()
            raise
        self._pool.give(target.place, connection, loop)
        return answer

    async def _connect(self, place: _Place, time_s: float) -> _Connection:
        """Tries the place's addresses in turn, having checked them all. `time_s` is what they share."""
        addresses = await self._checked_addresses(place)
        failed = f"name look-up of {place.host} gave no address"
        share_s = max(_CONNECT_SHARE_S, time_s / max(1, len(addresses)))
        for address in addresses:
            try:
                async with asyncio.timeout(share_s):
                    return await self._connect_to(address, place)
            except ssl.SSLCertVerificationError as wrong:
                raise _Failed(f"TLS certificate of {place.host} not accepted: {wrong.verify_message}") from None
            except ssl.SSLError as wrong:
                raise _Failed(f"TLS handshake with {place.host} failed: {wrong.reason or wrong}") from None
            except OSError as wrong:
                failed = f"connection to {address} port {place.port} failed: {_said(wrong)}"
        raise _Failed(failed)

    async def _checked_addresses(self, place: _Place) -> Sequence[str]:
        """Raises _Failed if the guard refuses any: who answers with a mix is not to be trusted with the rest."""
        refusal = self._guard.refuse_host(place.host)
        if refusal:
            raise _Failed(refusal)
        if is_address(place.host):
            return [place.host]
        try:
            addresses = await self._resolve(place.host, place.port)
        except OSError as wrong:
            raise _Failed(f"name look-up of {place.host} failed: {wrong.strerror or wrong}") from None
        for refusal in map(self._guard.refuse_address, addresses):
            if refusal:
                raise _Failed(refusal)
        return addresses

    async def _connect_to(self, address: str, place: _Place) -> _Connection:
        loop = asyncio.get_running_loop()
        tls = self._tls() if place.scheme == "https" else None
        _, connection = await loop.create_connection(
            _Connection, address, place.port, ssl=tls, server_hostname=place.host if tls else None
        )
        return connection

    def _tls(self) -> ssl.SSLContext:
        # Reading the trust store takes tens of milliseconds, which a sender of plain requests never pays.
        if not self._tls_made:
            context = ssl.create_default_context()
            if self._ca_file:
                context.load_verify_locations(self._ca_file)
            context.set_alpn_protocols(["http/1.1"])
            self._tls_made = context
        return self._tls_made


def _said(wrong: Exception) -> str:
    """An error's text without Python's wrapping."""
    if isinstance(wrong, OSError) and wrong.errno and wrong.errno > 0:
        return os.strerror(wrong.errno).lower()
    return str(wrong) or ("timed out" if isinstance(wrong, TimeoutError) else type(wrong).__name__)
