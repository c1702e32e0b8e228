"""The door's HTTP: what comes in pieces, too early, too late, too much or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from waypost.call import Call, Limit, Reply
from waypost.core.policy import Policy
from waypost.local.door import Door

Run = Callable[[Coroutine[Any, Any, None]], None]
_POLICY = Policy(max_body=200_000)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


class Echo:
    """Stands for the api: answers with what it was asked, once `hold` allows it."""

    def __init__(self) -> None:
        self.hold = asyncio.Event()
        self.hold.set()
        self.calls: list[Call] = []

    async def answer(self, call: Call) -> Reply:
        self.calls.append(call)
        if call.path == "/unread":
            return Reply(401, {"error": "who are you"})
        try:
            body = await call.read_body(Limit(300_000, "that is too much") if call.path == "/longer" else None)
        except Exception as refused:  # noqa: BLE001 - the api turns any into an answer
            return Reply(400, {"error": str(refused)})
        await self.hold.wait()
        return Reply(200, {"path": call.path, "query": call.query, "size": len(body)})


@contextlib.asynccontextmanager
async def door(echo: Echo, base_path: str = "") -> AsyncIterator[tuple[Door, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    it = Door(echo, _POLICY, base_path)  # type: ignore[arg-type]
    await it.open(listener)
    try:
        yield it, listener.getsockname()[1]
    finally:
        await it.close(0.1)


@contextlib.asynccontextmanager
async def caller(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, str, str]:
    """Status, head in lower case, body."""
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
        body = await reader.readexactly(length)
    return int(head.split()[1]), head, body.decode()


async def closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            return await reader.read(1) == b""
    return True


def request(path: str, body: bytes = b"", more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_requests_that_follow_unasked_are_answered_in_their_order(run: Run) -> None:
    async def test() -> None:
        echo = Echo()
        async with door(echo) as (_, port), caller(port) as (reader, writer):
            echo.hold.clear()
            writer.write(b"".join(request(f"/{n}", b"x" * n) for n in range(50)))
            await asyncio.sleep(0.05)
            assert len(echo.calls) == 1
            echo.hold.set()
            for n in range(50):
                status, _, body = await answer(reader)
                assert (status, body) == (200, f'{{"path":"/{n}","query":"","size":{n}}}')

    run(test())


@pytest.mark.parametrize(
    ("path", "most", "words"), [("/in", 200_000, "WAYPOST_MAX_BODY"), ("/longer", 300_000, "too much")]
)
def test_a_route_says_how_long_its_bodies_may_be(run: Run, path: str, most: int, words: str) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port):
            for size, expected in ((most, 200), (most + 1, 400)):
                body = b"x" * size
                chunked = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n".encode()
                for whole in (request(path, body), chunked + body + b"\r\n0\r\n\r\n"):
                    async with caller(port) as (reader, writer):
                        writer.write(whole)
                        status, _, said = await answer(reader)
                        assert status == expected
                        assert (words in said) == (expected == 400)

    run(test())


def test_a_request_may_come_byte_by_byte(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            for byte in request("/a%2Fb//c?d=%20", b"body"):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            status, _, body = await answer(reader)
            assert (status, body) == (200, '{"path":"/a%2Fb//c","query":"d=%20","size":4}')

    run(test())


def test_the_target_may_be_absolute(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(request("http://waypost.example:80/v2/keys?a"))
            assert (await answer(reader))[2] == '{"path":"/v2/keys","query":"a","size":0}'

    run(test())


def test_a_large_body_is_read_only_when_it_is_asked_for(run: Run) -> None:
    async def test() -> None:
        echo = Echo()
        async with door(echo) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1", b"x" * 190_000))
            assert (await answer(reader))[2] == '{"path":"/1","query":"","size":190000}'
            writer.write(request("/2", b"y" * 200_000))
            assert (await answer(reader))[0] == 200

    run(test())


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_beyond_the_limit_is_refused(run: Run, framing: str) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            if framing == "length":
                writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200001\r\n\r\n")
            else:
                writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                writer.write(b"%x\r\n" % 150_000 + b"x" * 150_000 + b"\r\n%x\r\n" % 60_000 + b"x" * 60_000)
            status, head, body = await answer(reader)
            assert status == 400
            assert "connection: close" in head
            assert "maxMessageSize" in body

    run(test())


def test_an_answer_that_needs_no_body_comes_before_it(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 150000\r\n\r\n")
            status, head, _ = await answer(reader)
            assert status == 401
            assert "connection: close" in head
            # What was on its way already costs nobody the answer.
            writer.write(b"x" * 150_000)
            assert await closed(reader)

    run(test())


def test_who_asks_before_sending_a_body_is_told_to(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(b"POST /1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            assert (await answer(reader))[0] == 100
            writer.write(b"body")
            assert (await answer(reader))[2] == '{"path":"/1","query":"","size":4}'
            writer.write(b"POST /unread HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            assert (await answer(reader))[0] == 401

    run(test())


def test_a_body_that_does_not_come_is_not_waited_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waypost.core.limits.BODY_S", 0.1)
    monkeypatch.setattr("waypost.local.door._SWEEP_S", 0.05)

    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
            status, _, body = await answer(reader)
            assert status == 400
            assert "did not arrive" in body
            assert await closed(reader)

    run(test())


def test_a_body_may_take_its_time_to_be_served(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BODY_S", "HEAD_S", "IDLE_S"):
        monkeypatch.setattr(f"waypost.core.limits.{name}", 0.1)
    monkeypatch.setattr("waypost.local.door._SWEEP_S", 0.02)

    async def test() -> None:
        echo = Echo()
        echo.hold.clear()
        async with door(echo) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1", b"body"))
            await asyncio.sleep(0.3)
            echo.hold.set()
            assert (await answer(reader))[0] == 200

    run(test())


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost"])
def test_a_connection_that_asks_nothing_is_closed(run: Run, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_S", "IDLE_S"):
        monkeypatch.setattr(f"waypost.core.limits.{name}", 0.1)
    monkeypatch.setattr("waypost.local.door._SWEEP_S", 0.02)

    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(sent)
            assert await closed(reader)

    run(test())


def test_a_head_without_end_is_refused(run: Run) -> None:
    async def test() -> None:
        echo = Echo()
        async with door(echo) as (_, port), caller(port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 200_000)
            status, _, body = await answer(reader)
            assert status == 431
            assert "131072" in body
            assert await closed(reader)
        assert not echo.calls

    run(test())


def test_what_follows_a_request_and_is_none_costs_it_nothing(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1", b"body") + b"nonsense\r\n\r\n")
            status, head, _ = await answer(reader)
            assert status == 200
            assert "connection: close" in head
            assert await closed(reader)

    run(test())


def test_a_wish_for_another_protocol_is_answered_as_if_it_were_none(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1", b"", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"))
            assert (await answer(reader))[0] == 200

    run(test())


def test_who_wants_the_connection_closed_has_it_closed(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1", b"", "Connection: close\r\n"))
            assert (await answer(reader))[0] == 200
            assert await closed(reader)

    run(test())


def test_a_caller_who_leaves_is_no_error(run: Run) -> None:
    async def test() -> None:
        echo = Echo()
        async with door(echo) as (_, port):
            async with caller(port) as (_, writer):
                writer.write(b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
                await asyncio.sleep(0.05)
            async with caller(port) as (reader, writer):
                writer.write(request("/2"))
                assert (await answer(reader))[0] == 200

    run(test())


def test_a_close_lets_what_is_served_be_answered(run: Run) -> None:
    async def test() -> None:
        echo = Echo()
        echo.hold.clear()
        async with door(echo) as (it, port), caller(port) as (reader, writer), caller(port) as (idle, _):
            writer.write(request("/1"))
            await asyncio.sleep(0.05)
            closing = asyncio.create_task(it.close(5))
            assert await closed(idle)
            echo.hold.set()
            status, head, _ = await answer(reader)
            assert status == 200
            assert "connection: close" in head
            await asyncio.wait_for(closing, 5)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)

    run(test())


def test_below_a_base_path_nothing_else_is_answered(run: Run) -> None:
    async def test() -> None:
        async with door(Echo(), "/queue") as (_, port), caller(port) as (reader, writer):
            writer.write(request("/queue/v2/keys") + request("/v2/keys"))
            assert (await answer(reader))[2] == '{"path":"/v2/keys","query":"","size":0}'
            assert (await answer(reader))[0] == 404

    run(test())


def test_a_body_that_a_wish_for_another_protocol_would_lose_is_refused(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1", b"body", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"))
            status, _, body = await answer(reader)
            assert status == 400
            assert "Upgrade" in body

    run(test())


def test_what_stands_behind_a_body_is_no_header(run: Run) -> None:
    async def test() -> None:
        echo = Echo()
        async with door(echo) as (_, port), caller(port) as (reader, writer):
            head = b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head + b"1\r\nx\r\n0\r\nAuthorization: Bearer t\r\n\r\n")
            assert (await answer(reader))[0] == 200
        assert [name for name, _ in echo.calls[0].headers] == ["host", "transfer-encoding"]

    run(test())


def test_requests_in_line_let_other_connections_in_between(run: Run) -> None:
    async def test() -> None:
        echo = Echo()
        echo.hold.clear()
        async with door(echo) as (_, port), caller(port) as (many, first), caller(port) as (few, second):
            first.write(b"".join(request(f"/many/{n}") for n in range(200)))
            second.write(request("/few/0") + request("/few/1"))
            await asyncio.sleep(0.05)
            assert len(echo.calls) == 2
            echo.hold.set()
            for reader, count in ((many, 200), (few, 2)):
                for _ in range(count):
                    assert (await answer(reader))[0] == 200
        assert [call.path for call in echo.calls].index("/few/1") < 10

    run(test())


def test_who_reads_no_answers_gets_no_more(run: Run) -> None:
    class Long(Echo):
        async def answer(self, call: Call) -> Reply:
            self.calls.append(call)
            return Reply(200, "x" * 30_000)

    async def test() -> None:
        api, count = Long(), 1_000
        async with door(api) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/") * count)
            await asyncio.sleep(0.5)
            assert 0 < len(api.calls) < count
            for _ in range(count):
                assert (await answer(reader))[0] == 200

    run(test())


def test_a_connection_that_is_over_leaves_nothing_to_the_garbage_collector(run: Run) -> None:
    async def test() -> None:
        echo, over = Echo(), []
        async with door(echo) as (it, port):
            for sent in (request("/1"), request("/2", b"body")[:-1], b"GET / HT"):
                async with caller(port) as (_, writer):
                    writer.write(sent)
                    await asyncio.sleep(0.05)
                    over += [weakref.ref(connection) for connection in it._connections]
                await asyncio.sleep(0.05)
            echo.calls.clear()
        assert [connection() for connection in over] == [None, None, None]

    gc.disable()
    try:
        run(test())
    finally:
        gc.enable()


def test_a_body_is_no_part_of_the_head_behind_it(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1", b"x" * 60_000) + b"POST /2 HTTP/1.1\r\nHost: x\r\nX: ")
            assert (await answer(reader))[2] == '{"path":"/1","query":"","size":60000}'
            writer.write(b"y" * 100_000)
            await asyncio.sleep(0.05)
            writer.write(b"\r\nContent-Length: 0\r\n\r\n")
            assert (await answer(reader))[2] == '{"path":"/2","query":"","size":0}'

    run(test())


def test_an_early_answer_is_the_only_one(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(b"POST /unread HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            assert (await answer(reader))[0] == 401
            writer.write(b"nonsense\r\n")
            assert await closed(reader)

    run(test())


def test_behind_the_last_request_nothing_is_looked_at(run: Run) -> None:
    async def test() -> None:
        echo = Echo()
        async with door(echo) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1") + request("/2", b"", "Connection: close\r\n") + request("/3"))
            status, head, _ = await answer(reader)
            assert status == 200
            assert "connection" not in head
            status, head, _ = await answer(reader)
            assert status == 200
            assert "connection: close" in head
            assert await closed(reader)
        assert [call.path for call in echo.calls] == ["/1", "/2"]

    run(test())


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (request("/2", b"", "Connection: Upgrade\r\nUpgrade: h2c\r\n"), 200),
        (b"POST /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400),
    ],
    ids=["upgrade", "nonsense"],
)
def test_what_ends_a_connection_is_answered_in_its_turn(run: Run, last: bytes, status: int) -> None:
    async def test() -> None:
        echo = Echo()
        echo.hold.clear()
        async with door(echo) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1") + last)
            await asyncio.sleep(0.05)
            echo.hold.set()
            first, head, _ = await answer(reader)
            assert first == 200
            assert "connection" not in head
            second, head, _ = await answer(reader)
            assert second == status
            assert "connection: close" in head
            assert await closed(reader)

    run(test())


def test_a_close_begins_nothing_that_waits_in_line(run: Run) -> None:
    async def test() -> None:
        echo = Echo()
        echo.hold.clear()
        async with door(echo) as (it, port), caller(port) as (reader, writer):
            writer.write(request("/1") + request("/2"))
            await asyncio.sleep(0.05)
            closing = asyncio.create_task(it.close(5))
            await asyncio.sleep(0.05)
            echo.hold.set()
            status, head, _ = await answer(reader)
            assert status == 200
            assert "connection: close" in head
            assert await closed(reader)
            await asyncio.wait_for(closing, 5)
        assert [call.path for call in echo.calls] == ["/1"]

    run(test())


def test_http_1_0_is_told_when_the_connection_is_kept(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            status, head, _ = await answer(reader)
            assert status == 200
            assert "connection: keep-alive" in head
            writer.write(b"GET /2 HTTP/1.0\r\n\r\n")
            status, head, _ = await answer(reader)
            assert status == 200
            assert "connection: close" in head
            assert await closed(reader)

    run(test())


def test_http_1_0_is_never_told_to_continue(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(b"POST /1 HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            await asyncio.sleep(0.05)
            writer.write(b"body")
            assert (await answer(reader))[2] == '{"path":"/1","query":"","size":4}'

    run(test())


def test_a_length_of_thousands_of_digits_is_too_much(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"0" * 5_000 + b"9\r\n\r\n")
            status, _, body = await answer(reader)
            assert status == 400
            assert "maxMessageSize" in body

    run(test())


def test_who_ends_his_own_side_is_still_answered(run: Run) -> None:
    async def test() -> None:
        echo = Echo()
        echo.hold.clear()
        async with door(echo) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1", b"body") + request("/2"))
            writer.write_eof()
            await asyncio.sleep(0.05)
            echo.hold.set()
            assert (await answer(reader))[2] == '{"path":"/1","query":"","size":4}'
            status, head, _ = await answer(reader)
            assert status == 200
            assert "connection: close" in head
            assert await closed(reader)

    run(test())


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"GET / HT",
        b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo",
        request("/unread", b"b")[:-1],
    ],
    ids=["nothing", "a line", "a head", "a body", "unread"],
)
def test_an_end_in_the_middle_ends_the_connection(run: Run, sent: bytes) -> None:
    async def test() -> None:
        async with door(Echo()) as (it, port), caller(port) as (reader, writer):
            writer.write(sent)
            await asyncio.sleep(0.05)
            writer.write_eof()
            async with asyncio.timeout(5):
                assert (await reader.read()).count(b"HTTP/1.1 ") == (len(sent) > 2)
            await asyncio.sleep(0.05)
            assert not it._connections

    run(test())


_CHUNKED = b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("start", [_CHUNKED + b"1;", _CHUNKED + b"0\r\nX: "], ids=["extension", "trailer"])
def test_what_stands_around_a_body_has_an_end(run: Run, start: bytes) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(start + b"x" * 140_000)
            status, head, body = await answer(reader)
            assert status == 400
            assert "connection: close" in head
            assert "131072" in body
            assert await closed(reader)

    run(test())


def test_blank_lines_have_an_end(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1"))
            assert (await answer(reader))[0] == 200
            writer.write(b"\r\n" * 100_000)
            assert await closed(reader)

    run(test())


def test_a_body_may_come_in_the_smallest_chunks(run: Run) -> None:
    async def test() -> None:
        async with door(Echo()) as (_, port), caller(port) as (reader, writer):
            writer.write(_CHUNKED + b"1\r\nx\r\n" * 60_000 + b"0\r\n\r\n")
            assert (await answer(reader))[2] == '{"path":"/1","query":"","size":60000}'

    run(test())


def test_an_unforeseen_error_hangs_no_connection(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Echo):
        async def answer(self, call: Call) -> Reply:
            return Reply(200, object())

    async def test() -> None:
        async with door(Broken()) as (_, port), caller(port) as (reader, writer):
            writer.write(request("/1"))
            assert await closed(reader)

    with caplog.at_level(logging.ERROR):
        run(test())
    assert "given up" in caplog.text
