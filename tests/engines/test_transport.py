"""The sender against real sockets: what leaves, what is read, and where it never connects to."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from waypost.core.guard import Guard
from waypost.core.ports import Answer, NoAnswer, Outgoing
from waypost.engines.transport import HttpSender

OPEN = Guard(["127.0.0.0/8", "::1/128"])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SHORT_MS = 1_000

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param


@dataclass
class Endpoint:
    """A destination that answers each request with the next of its scripts, and the last of them for ever."""

    scripts: Sequence[bytes | Script]
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while not writer.is_closing():
                self.requests.append(await read_request(reader))
                script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
                if isinstance(script, bytes):
                    writer.write(script)
                    await writer.drain()
                else:
                    await script(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + (await reader.readexactly(int(length[0].split(b":")[1])) if length else b"")


@asynccontextmanager
async def endpoint(*scripts: bytes | Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    it = Endpoint(scripts or [OK])
    if tls:
        tls.sni_callback = lambda _socket, name, _context: it.server_names.append(name)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0, ssl=tls, limit=1 << 22)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        for writer in it.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def sender(**settings: Any) -> AsyncIterator[HttpSender]:
    it = HttpSender(settings.pop("guard", OPEN), **settings)
    try:
        yield it
    finally:
        await it.close()


def post(url: str, body: bytes = b"hello", *, headers: Sequence[tuple[str, str]] = (), **other: Any) -> Outgoing:
    return Outgoing(other.get("method", "POST"), url, headers, body, other.get("timeout_ms", 3_000))


def resolving(*answers: Sequence[str] | OSError) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that gives each answer once, and the last for ever; `asked` counts its calls."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        resolve.asked += 1  # type: ignore[attr-defined]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    resolve.asked = 0  # type: ignore[attr-defined]
    return resolve


async def answer_to(*scripts: bytes | Script, method: str = "POST", timeout_ms: int = 3_000, **settings: Any) -> Any:
    """What comes of one request to an endpoint of these scripts."""
    async with endpoint(*scripts) as it, sender(**settings) as http:
        return await http.send(post(it.url(), method=method, timeout_ms=timeout_ms))


async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def then_close(answer: bytes) -> Script:
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    return script


def for_ever(start: bytes, again: bytes) -> Script:
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0)

    return script


# What leaves ---------------------------------------------------------------------------------------------------------


def test_a_request_leaves_as_it_was_given(run: Run):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            url = it.url("/a%2fb/../c//?q=1&&x=%41#fragment")
            headers = [("X-One", "1"), ("x-two", "caf\xe9"), ("X-One", "2"), ("X-Empty", "")]
            assert await http.send(post(url, b"body", headers=headers)) == Answer(200, [("content-length", "2")], b"ok")
            assert it.requests == [
                b"POST /a%%2fb/../c//?q=1&&x=%%41 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                b"X-One: 1\r\nx-two: caf\xe9\r\nX-One: 2\r\nX-Empty: \r\nContent-Length: 4\r\n\r\nbody" % it.port
            ]

    run(test())


@pytest.mark.parametrize(
    ("path", "sent"), [("", b"/"), ("?a=b", b"/?a=b"), ("#x", b"/"), ("/?", b"/?"), ("//x", b"//x"), ("/;p", b"/;p")]
)
def test_the_request_target(run: Run, path: str, sent: bytes):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            await http.send(post(it.url(path)))
            assert it.requests[0].split(b" ")[1] == sent

    run(test())


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [("GET", b"", None), ("DELETE", b"", None), ("POST", b"", b"0"), ("PUT", b"", b"0"), ("GET", b"abc", b"3")],
)
def test_content_length(run: Run, method: str, body: bytes, length: bytes | None):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            await http.send(post(it.url(), body, method=method))
            assert (
                (b"\r\nContent-Length: %b\r\n" % length in it.requests[0])
                if length
                else (b"Length" not in it.requests[0])
            )

    run(test())


def test_credentials_in_the_url_become_a_header_unless_one_is_given(run: Run):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            url = it.url("/", host="us%65r:p%40ss@127.0.0.1")
            await http.send(post(url))
            await http.send(post(url, headers=[("authorization", "Bearer x")]))
            assert b"\r\nAuthorization: Basic dXNlcjpwQHNz\r\n" in it.requests[0]
            assert b"\r\nauthorization: Bearer x\r\n" in it.requests[1]
            assert b"Basic" not in it.requests[1]
            assert b"\r\nHost: 127.0.0.1:" in it.requests[0]

    run(test())


def test_headers_of_the_connection_are_not_taken_from_outside(run: Run):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            given = [
                ("Host", "evil"),
                ("content-length", "0"),
                ("Transfer-Encoding", "chunked"),
                ("Connection", "close"),
            ]
            await http.send(post(it.url(), headers=given))
            assert (
                it.requests[0] == b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 5\r\n\r\nhello" % it.port
            )

    run(test())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:{port}/a b", "the url holds a space or a control character"),
        ("http://127.0.0.1:{port}/a\r\nX: y", "the url holds a space or a control character"),
        ("http://127.0.0.1:{port}/\0", "the url holds a space or a control character"),
        ("\thttp://127.0.0.1:{port}/", "the url holds a space or a control character"),
        ("http://127.0.0.1:{port}/é", "the url's path holds a character that is not percent-encoded"),
        ("ftp://127.0.0.1:{port}/", "the url is neither http nor https"),
        ("127.0.0.1:{port}/", "the url is neither http nor https"),
        ("http://127.0.0.1:{port}x/", "the url can't be read: "),
        ("http://127.0.0.1:99999/", "the url can't be read: "),
        ("http:///{port}", "the url can't be read: "),
        ("http://a..b:{port}", "the url can't be read: "),
        ("http://[::1:{port}", "the url can't be read: "),
    ],
)
def test_a_url_that_cannot_be_sent(run: Run, url: str, reason: str):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            answer = await http.send(post(url.format(port=it.port)))
            assert isinstance(answer, NoAnswer)
            assert answer.reason.startswith(reason)
            assert it.connections == 0

    run(test())


@pytest.mark.parametrize(
    ("name", "value"),
    [("X", "a\r\nY: b"), ("X", "a\nb"), ("X", "\0"), ("X: a", "b"), ("X\r\nY", "b"), ("", "b"), ("X", "€")],
)
def test_a_header_that_cannot_be_sent(run: Run, name: str, value: str):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            answer = await http.send(post(it.url(), headers=[(name, value)]))
            assert isinstance(answer, NoAnswer)
            assert "header" in answer.reason
            assert it.connections == 0

    run(test())


def test_a_method_that_cannot_be_sent(run: Run):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            answer = await http.send(post(it.url(), method="GET / HTTP/1.1\r\nX:"))
            assert isinstance(answer, NoAnswer)
            assert answer.reason.startswith("the method ")
            assert it.connections == 0

    run(test())


def test_a_large_body(run: Run):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            body = bytes(range(256)) * 12_000
            assert (await http.send(post(it.url(), body))).status == 200
            assert it.requests[0].endswith(b"\r\n\r\n" + body)

    run(test())


# What is read --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, [], b"")),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Answer(304, [("content-length", "9")], b"")),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Answer(200, [("content-length", "0")], b"")),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            Answer(302, [("location", "http://127.0.0.1:1/"), ("content-length", "0")], b""),
        ),
        (
            b"HTTP/1.1 500 Oh no\r\nSet-Cookie: a\r\nX-No:\r\nSET-COOKIE:  b \r\nX: \xe9\r\nContent-Length: 0\r\n\r\n",
            Answer(
                500,
                [("set-cookie", "a"), ("x-no", ""), ("set-cookie", "b"), ("x", "\xe9"), ("content-length", "0")],
                b"",
            ),
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n",
            Answer(200, [("transfer-encoding", "chunked")], b"abcde"),
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
            Answer(200, [("content-length", "2")], b"ok"),
        ),
    ],
)
def test_an_answer_is_read_whole_or_byte_by_byte_and_its_connection_kept(run: Run, raw: bytes, expected: Answer):
    async def slowly(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in raw:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    async def test() -> None:
        async with endpoint(raw, slowly, OK) as it, sender() as http:
            assert await http.send(post(it.url())) == expected
            assert await http.send(post(it.url())) == expected
            assert await http.send(post(it.url())) == Answer(200, [("content-length", "2")], b"ok")
            assert it.connections == 1
            assert len(it.requests) == 3

    run(test())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", Answer(200, [], b"until the end")),
        (b"HTTP/1.0 200 OK\r\n\r\n", Answer(200, [], b"")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxyz",
            Answer(200, [("transfer-encoding", "gzip")], b"xyz"),
        ),
    ],
)
def test_a_body_may_end_with_its_connection(run: Run, raw: bytes, expected: Answer):
    async def test() -> None:
        assert await answer_to(then_close(raw)) == expected

    run(test())


def test_a_compressed_body_stays_compressed(run: Run):
    async def test() -> None:
        body = gzip.compress(b"x" * 10_000)
        raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        assert (await answer_to(raw)).body == body

    run(test())


def test_an_answer_to_head_has_no_body(run: Run):
    async def test() -> None:
        expected = Answer(200, [("content-length", "500")], b"")
        assert await answer_to(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", method="HEAD") == expected

    run(test())


@pytest.mark.parametrize(
    "script",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
        for_ever(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nxxxx\r\n"),
        for_ever(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000),
        for_ever(b"HTTP/1.1 200 OK\r\n\r\n", b"xxx"),
    ],
    ids=["huge", "endless chunks", "smallest chunks", "endless until close"],
)
def test_a_body_is_cut_at_the_cap_and_its_connection_closed(run: Run, script: bytes | Script):
    async def test() -> None:
        async with endpoint(script, OK) as it, sender(body_cap=40_000) as http:
            answer = await http.send(post(it.url()))
            assert (answer.status, answer.body) == (200, b"x" * 40_000)
            assert (await http.send(post(it.url()))).body == b"ok"
            assert it.connections == 2

    run(test())


def test_a_body_of_just_the_cap_is_not_cut(run: Run):
    async def test() -> None:
        async with endpoint(OK) as it, sender(body_cap=2) as http:
            assert (await http.send(post(it.url()))).body == b"ok"
            assert (await http.send(post(it.url()))).body == b"ok"
            assert it.connections == 1

    run(test())


# No answer -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (close, "connection closed before an answer came"),
        (then_close(b"HTTP/1.1 200 OK\r\nContent-"), "connection closed before an answer came"),
        (then_close(b"HTTP/1.1 100 Continue\r\n\r\n"), "connection closed before an answer came"),
        (
            then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"),
            "connection closed before the answer was complete",
        ),
        (
            then_close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
            "connection closed before the answer was complete",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "malformed answer: "),
        (b"HTTP/1.1 2 OK\r\n\r\n", "malformed answer: "),
        (b"HTTP/1.1 099 OK\r\n\r\n", "malformed answer: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "malformed answer: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "malformed answer: "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", "malformed answer: "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed answer: "),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx",
            "the answer switches to another protocol",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "the answer switches to another protocol"),
        (
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
            "the answer's head is larger than",
        ),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", "the answer's head is larger than 64 KiB"),
        (for_ever(b"HTTP/1.1 200 ", b"x" * 1000), "the answer's head is larger than 64 KiB"),
        (for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "the answer's head is larger than 64 KiB"),
        (
            for_ever(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 100),
            "the answer's head is larger than 64 KiB",
        ),
    ],
)
def test_no_answer_says_why(run: Run, script: bytes | Script, reason: str):
    async def test() -> None:
        answer = await answer_to(script)
        assert isinstance(answer, NoAnswer)
        assert answer.reason.startswith(reason)

    run(test())


@pytest.mark.parametrize(
    "script",
    [silence, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", b"HTTP/1.1 200 OK\r\n\r\n"],
    ids=["silent", "half a body", "no end"],
)
def test_the_deadline_covers_the_last_byte_and_drops_the_connection(run: Run, script: bytes | Script):
    async def test() -> None:
        async with endpoint(script, OK) as it, sender() as http:
            assert await http.send(post(it.url(), timeout_ms=SHORT_MS)) == NoAnswer("no answer within 1 s")
            assert (await http.send(post(it.url()))).body == b"ok"
            assert it.connections == 2

    run(test())


def test_the_deadline_covers_an_answer_that_drips(run: Run):
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.05)

    async def test() -> None:
        assert await answer_to(drip, timeout_ms=SHORT_MS + 500) == NoAnswer("no answer within 1.5 s")

    run(test())


def test_the_deadline_covers_the_look_up(run: Run):
    async def never(_host: str, _port: int) -> Sequence[str]:
        return await asyncio.get_running_loop().create_future()

    async def test() -> None:
        async with sender(resolve=never) as http:
            answer = await http.send(post("http://hook.example/", timeout_ms=SHORT_MS))
            assert answer == NoAnswer("no answer within 1 s")

    run(test())


def test_a_refused_connection(run: Run):
    async def test() -> None:
        async with endpoint() as it:
            url = it.url()
        async with sender() as http:
            answer = await http.send(post(url))
            assert answer == NoAnswer(f"connection to 127.0.0.1 port {it.port} failed: connection refused")

    run(test())


def test_a_cancelled_request_leaves_no_connection(run: Run):
    async def test() -> None:
        async with endpoint(silence, OK) as it, sender() as http:
            sending = asyncio.create_task(http.send(post(it.url())))
            while not it.requests:  # the endpoint counts; it has no event for each request
                await asyncio.sleep(0.01)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert (await http.send(post(it.url()))).body == b"ok"
            assert it.connections == 2

    run(test())


def test_an_unforeseen_error_is_not_raised(run: Run):
    async def broken(_host: str, _port: int) -> Sequence[str]:
        raise RuntimeError("no idea")

    async def test() -> None:
        async with sender(resolve=broken) as http:
            answer = await http.send(post("http://hook.example/"))
            assert answer == NoAnswer("the request failed: RuntimeError: no idea")

    run(test())


# Kept connections ----------------------------------------------------------------------------------------------------


def test_requests_at_once_have_a_connection_each_and_the_next_ones_reuse_them(run: Run):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            for _ in range(3):
                answers = await asyncio.gather(*[http.send(post(it.url())) for _ in range(20)])
                assert {answer.body for answer in answers} == {b"ok"}
            assert it.connections == 20

    run(test())


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale",
        OK + b"junk",
        then_close(OK),
    ],
    ids=["connection: close", "http/1.0", "a second answer", "junk behind it", "closed after it"],
)
def test_a_connection_that_cannot_be_trusted_again_is_not_reused(run: Run, first: bytes | Script):
    async def test() -> None:
        async with endpoint(first, OK) as it, sender() as http:
            assert (await http.send(post(it.url()))).body == b"ok"
            await asyncio.sleep(0.05)
            assert (await http.send(post(it.url()))).body == b"ok"
            assert it.connections == 2
            assert len(it.requests) == 2

    run(test())


def test_what_comes_unasked_on_an_idle_connection_is_no_answer(run: Run):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            await http.send(post(it.url()))
            it.writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale")
            await asyncio.sleep(0.05)
            assert (await http.send(post(it.url()))).body == b"ok"
            assert it.connections == 2

    run(test())


def test_a_request_is_never_sent_twice(run: Run):
    async def test() -> None:
        async with endpoint(OK, close, OK) as it, sender() as http:
            await http.send(post(it.url()))
            answer = await http.send(post(it.url()))
            assert answer == NoAnswer("connection closed before an answer came")
            assert (it.connections, len(it.requests)) == (1, 2)

    run(test())


def test_an_idle_connection_is_left_before_its_server_leaves_it(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("waypost.engines.transport._IDLE_S", 0.2)

    async def test() -> None:
        async with endpoint() as it, sender() as http:
            await http.send(post(it.url()))
            async with asyncio.timeout(4):
                while not it.writers[0].is_closing():
                    await asyncio.sleep(0.01)
            await http.send(post(it.url()))
            assert it.connections == 2

    run(test())


def test_no_more_idle_connections_than_allowed(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("waypost.engines.transport._IDLE_PER_PLACE", 3)
    monkeypatch.setattr("waypost.engines.transport._IDLE_IN_ALL", 4)

    async def test() -> None:
        async with endpoint() as one, endpoint() as two, sender() as http:
            for it in (one, two):
                await asyncio.gather(*[http.send(post(it.url())) for _ in range(10)])
            await asyncio.sleep(0.05)
            assert sum(not writer.is_closing() for writer in one.writers) == 3
            assert sum(not writer.is_closing() for writer in two.writers) == 1

    run(test())


def test_close_drops_what_is_idle_and_keeps_no_more(run: Run):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            await http.send(post(it.url()))
            await http.close()
            assert (await http.send(post(it.url()))).body == b"ok"
            await asyncio.sleep(0.05)
            assert all(writer.is_closing() for writer in it.writers)

    run(test())


def test_an_answer_before_the_whole_request_ends_the_connection(run: Run):
    async def test() -> None:
        writers = []

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with sender() as http:
            for _ in range(2):
                assert (await http.send(post(url, b"x" * 30_000_000))).status == 413
            assert len(writers) == 2
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)

    run(test())


# Where it never connects to ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "[::ffff:127.0.0.1]", "%31%32%37.1"])
def test_a_refused_host_is_not_connected_to(run: Run, host: str):
    async def test() -> None:
        async with endpoint() as it, sender(guard=Guard()) as http:
            answer = await http.send(post(it.url(host=host)))
            assert isinstance(answer, NoAnswer)
            assert answer.reason.startswith("endpoint resolves to a loopback address: ")
            assert it.connections == 0

    run(test())


def test_a_literal_is_not_looked_up(run: Run):
    async def test() -> None:
        resolve = resolving(OSError("asked"))
        async with endpoint() as it, sender(resolve=resolve) as http:
            assert (await http.send(post(it.url(host="2130706433")))).status == 200
            assert b"\r\nHost: 127.0.0.1:" in it.requests[0]
            assert resolve.asked == 0  # type: ignore[attr-defined]

    run(test())


@pytest.mark.parametrize(
    ("addresses", "refused"),
    [
        (["127.0.0.1", "10.0.0.1"], "a private address: 10.0.0.1"),
        (["10.0.0.1", "127.0.0.1"], "a private address: 10.0.0.1"),
        (["127.0.0.1", "::ffff:169.254.169.254"], "a metadata address: 169.254.169.254"),
        (["fe80::1%lo", "127.0.0.1"], "a link-local address: fe80::1"),
    ],
)
def test_one_refused_address_refuses_the_name(run: Run, addresses: Sequence[str], refused: str):
    async def test() -> None:
        async with endpoint() as it, sender(resolve=resolving(addresses)) as http:
            answer = await http.send(post(it.url(host="hook.example")))
            assert answer == NoAnswer(f"endpoint resolves to {refused}")
            assert it.connections == 0

    run(test())


def test_a_name_that_is_bound_again_is_checked_again(run: Run):
    async def test() -> None:
        resolve = resolving(["127.0.0.1"], ["10.0.0.1"])
        async with endpoint(OK, then_close(OK)) as it, sender(resolve=resolve) as http:
            url = it.url(host="hook.example")
            # The connection was made to a checked address: while it is kept, nothing is looked up.
            assert (await http.send(post(url))).status == 200
            assert (await http.send(post(url))).status == 200
            assert resolve.asked == 1  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
            assert await http.send(post(url)) == NoAnswer("endpoint resolves to a private address: 10.0.0.1")
            assert len(it.requests) == 2

    run(test())


def test_a_redirect_is_an_answer(run: Run):
    async def test() -> None:
        async with endpoint() as secret:
            raw = (
                b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % secret.url().encode()
            )
            assert (await answer_to(raw)).status == 307
            assert secret.connections == 0

    run(test())


def test_the_next_address_is_tried_when_one_does_not_connect(run: Run):
    async def test() -> None:
        async with endpoint() as it, sender(resolve=resolving(["127.0.0.9", "::1", "127.0.0.1"])) as http:
            assert (await http.send(post(it.url(host="Hook.Example.")))).status == 200
            assert b"\r\nHost: hook.example:%d\r\n" % it.port in it.requests[0]

    run(test())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([], "name look-up of hook.example gave no address"),
        (OSError(-2, "Name or service not known"), "name look-up of hook.example failed: Name or service not known"),
    ],
)
def test_a_name_without_address(run: Run, answer: Sequence[str] | OSError, reason: str):
    async def test() -> None:
        async with sender(resolve=resolving(answer)) as http:
            assert await http.send(post("http://hook.example/")) == NoAnswer(reason)

    run(test())


def test_the_systems_resolver(run: Run):
    async def test() -> None:
        async with endpoint() as it, sender() as http:
            assert (await http.send(post(it.url(host="localhost")))).status == 200
            answer = await http.send(post("http://no-such-name.invalid/"))
            assert isinstance(answer, NoAnswer)
            assert answer.reason.startswith("name look-up of no-such-name.invalid failed: ")

    run(test())


def test_an_international_name_is_looked_up_and_named_in_ascii(run: Run):
    async def test() -> None:
        asked = []

        async def resolve(host: str, _port: int) -> Sequence[str]:
            asked.append(host)
            return ["127.0.0.1"]

        async with endpoint() as it, sender(resolve=resolve) as http:
            await http.send(post(it.url(host="b%C3%BCcher.example")))
            await http.send(post(it.url(host="bücher.example")))
            assert asked == ["xn--bcher-kva.example"]
            assert all(b"\r\nHost: xn--bcher-kva.example:" in request for request in it.requests)

    run(test())


# TLS -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def test_tls_checks_and_names_the_host_of_the_url(run: Run, authority: trustme.CA, trusted: str):
    async def test() -> None:
        tls = server_tls(authority, "hook.example")
        async with endpoint(tls=tls) as it, sender(ca_file=trusted, resolve=resolving(["127.0.0.1"])) as http:
            url = it.url(host="hook.example", scheme="https")
            for body in (b"small", b"large" * 100_000):
                assert (await http.send(post(url, body))).body == b"ok"
            assert it.server_names == ["hook.example"]
            assert it.connections == 1
            assert it.requests[1].endswith(b"large" * 100_000)

    run(test())


def test_tls_to_an_address(run: Run, authority: trustme.CA, trusted: str):
    async def test() -> None:
        async with endpoint(tls=server_tls(authority, "127.0.0.1")) as it, sender(ca_file=trusted) as http:
            assert (await http.send(post(it.url(scheme="https")))).body == b"ok"
            assert it.server_names == [None]

    run(test())


@pytest.mark.parametrize(
    ("names", "trust", "reason"),
    [(["other.example"], True, "Hostname mismatch"), (["hook.example"], False, "unable to get local issuer")],
)
def test_a_certificate_that_does_not_fit(
    run: Run, authority: trustme.CA, trusted: str, names: list[str], trust: bool, reason: str
):
    async def test() -> None:
        settings = {"ca_file": trusted} if trust else {}
        tls = server_tls(authority, *names)
        async with endpoint(tls=tls) as it, sender(resolve=resolving(["127.0.0.1"]), **settings) as http:
            answer = await http.send(post(it.url(host="hook.example", scheme="https")))
            assert isinstance(answer, NoAnswer)
            assert answer.reason.startswith(f"TLS certificate of hook.example not accepted: {reason}")
            assert it.requests == []

    run(test())


def test_https_to_a_server_without_tls(run: Run):
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.transport.abort()

    async def test() -> None:
        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with sender() as http:
            answer = await http.send(post(f"https://127.0.0.1:{port}/"))
            assert isinstance(answer, NoAnswer)
            assert answer.reason.startswith("TLS handshake with 127.0.0.1 failed: ")
        server.close()

    run(test())
