"""The door over raw sockets: what no client library would send, or would send otherwise."""

from __future__ import annotations

import json
import re
import socket

import pytest

from journey.harness import DEV_TOKEN, Server, SinkProcess, wait_until

_AUTH = f"Host: x\r\nAuthorization: Bearer {DEV_TOKEN}\r\n"


def exchange(server: Server, data: bytes) -> tuple[int, dict[str, str], bytes, bool]:
    """Sends the bytes; returns status, headers, body, and whether the server closed the connection."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = connection.recv(65536)
            if not chunk:
                raise AssertionError(f"closed after {received!r}")
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        while len(body) < length:
            body += connection.recv(65536)
        connection.settimeout(0.5)
        try:
            closed = connection.recv(1) == b""
        except TimeoutError:
            closed = False
        except ConnectionError:
            closed = True
        return int(lines[0].split()[1]), headers, body, closed


def publish(server: Server, target: str | bytes, more: str = "", body: bytes = b"x") -> dict[str, str]:
    raw = target.encode() if isinstance(target, str) else target
    head = b"POST /v2/publish/" + raw + f" HTTP/1.1\r\n{_AUTH}{more}Content-Length: {len(body)}\r\n\r\n".encode()
    status, _, answer, _ = exchange(server, head + body)
    assert status == 201, answer
    found: dict[str, str] = json.loads(answer)
    return found


@pytest.mark.parametrize(
    "suffix", ["", "?a=b&c=%20%2F", "/%2Fx//y/%25/?q=a/b%2Fc&&e=", "/a%20b/%C3%A9?x=1#never", "/..%2f/./.."]
)
def test_path_and_query_arrive_byte_for_byte(server: Server, sink: SinkProcess, suffix: str) -> None:
    place = sink.place("ok")
    publish(server, place.url + suffix)
    (delivery,) = wait_until(place.deliveries, 2)
    assert delivery.target == re.sub(r"^https?://[^/]+", "", place.url) + suffix.split("#")[0]


def test_a_collapsed_scheme_is_repaired_and_an_encoded_destination_decoded(server: Server, sink: SinkProcess) -> None:
    for spoil in (lambda url: url.replace("://", ":/"), lambda url: url.replace(":", "%3A").replace("/", "%2F")):
        place = sink.place("ok")
        publish(server, spoil(place.url))
        wait_until(place.deliveries, 2)


def test_control_keys_of_the_query_stay_here(server: Server, sink: SinkProcess) -> None:
    place = sink.place("ok")
    publish(server, f"{place.url}?a=1&qstash_token=x&upstash-method=PUT&b=2")
    (delivery,) = wait_until(place.deliveries, 2)
    assert delivery.target.endswith("?a=1&b=2")
    assert delivery.method == "PUT"


def test_a_chunked_body_and_100_continue_are_understood(server: Server, sink: SinkProcess) -> None:
    place = sink.place("ok")
    head = f"POST /v2/publish/{place.url} HTTP/1.1\r\n{_AUTH}Transfer-Encoding: chunked\r\n\r\n"
    status, *_ = exchange(server, head.encode() + b"3\r\nabc\r\n4\r\n\x00\r\n\xff\r\n0\r\n\r\n")
    assert status == 201
    (delivery,) = wait_until(place.deliveries, 2)
    assert delivery.body == b"abc\x00\r\n\xff"


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX y: a\r\n\r\n",
        b"POST /v2/publish/https://example.com HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
        b"POST /v2/publish/https://a.com HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST /v2/publish/https://example.com HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_gets_a_400_and_a_closed_connection(server: Server, data: bytes) -> None:
    status, _, _, closed = exchange(server, data)
    assert (status, closed) == (400, True)
    assert server.get("/healthz").status == 200


def test_a_target_of_wild_bytes_is_an_answer_not_an_error(server: Server) -> None:
    for target in (
        b"/v2/publish/http://127.0.0.1:1/caf\xc3\xa9",
        b"/v2/messages/%00",
        b"/%ff",
        b"//",
        b"/v2/publish/%",
    ):
        status, _, body, _ = exchange(server, b"POST " + target + f" HTTP/1.1\r\n{_AUTH}\r\n".encode())
        assert status in (201, 400, 404, 405), (target, status, body)
        assert b"Traceback" not in body


@pytest.mark.parametrize("length", ["1000001", "0" * 5_000 + "1"], ids=["too large", "absurd"])
def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(server: Server, length: str) -> None:
    head = f"POST /v2/publish/http://127.0.0.1:1/ HTTP/1.1\r\n{_AUTH}Content-Length: {length}\r\n\r\n"
    status, headers, body, _ = exchange(server, head.encode())
    assert status == 413
    assert headers["content-type"] == "application/json"
    assert "WAYPOST_MAX_BODY" in json.loads(body)["error"]


def test_half_a_body_is_no_message(server: Server, sink: SinkProcess) -> None:
    place, after = sink.place("ok"), sink.place("ok")
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        head = f"POST /v2/publish/{place.url} HTTP/1.1\r\n{_AUTH}Content-Length: 10\r\n\r\n"
        connection.sendall(head.encode() + b"half")
    publish(server, after.url)
    wait_until(after.deliveries, 2)
    assert place.deliveries() == []


def test_errors_are_json_over_the_wire(server: Server) -> None:
    for line in ("GET /v2/nothing", "POST /v2/publish/example.com", "PUT /v2/keys"):
        _, headers, body, closed = exchange(server, f"{line} HTTP/1.1\r\n{_AUTH}\r\n".encode())
        assert headers["content-type"] == "application/json"
        assert json.loads(body)["error"]
        assert not closed
