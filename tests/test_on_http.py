"""Both doors' events, as AWS documents them, and what becomes of them."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from waypost.call import Limit, Reply
from waypost.core.errors import TooMuch
from waypost.core.policy import Policy
from waypost.on_http import read_call, written


def event(path: str, query: str = "", **changes: Any) -> dict[str, Any]:
    """A function URL's event."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "cookies": ["a=1", "b=2"],
        "headers": {
            "content-type": "application/json",
            "upstash-forward-x": "one,two",
            "authorization": "Bearer t",
            "x-forwarded-for": "203.0.113.9",
            "host": "abc.lambda-url.us-east-1.on.aws",
        },
        "queryStringParameters": {"never": "looked at"},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abc",
            "domainName": "abc.lambda-url.us-east-1.on.aws",
            "domainPrefix": "abc",
            "http": {
                "method": "POST",
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.9",
                "userAgent": "curl/8.5.0",
            },
            "requestId": "2d7f",
            "routeKey": "$default",
            "stage": "$default",
            "time": "24/Nov/2026:12:00:00 +0000",
            "timeEpoch": 1795521600000,
        },
        "body": '{"n":1}',
        "isBase64Encoded": False,
        **changes,
    }


def http_api_event(path: str, query: str = "", **changes: Any) -> dict[str, Any]:
    """The HTTP API's event: its path is decoded, and names its stage only where that is not the default."""
    host = "abc.execute-api.us-east-1.amazonaws.com"
    function_url = event(path, query)
    return {
        **function_url,
        "headers": {
            **function_url["headers"],
            "content-length": "7",
            "host": host,
            "x-amzn-trace-id": "Root=1-5e6722a7-cc56xmpl46db7ae02d4da47e",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        },
        "requestContext": {
            **function_url["requestContext"],
            "accountId": "123456789012",
            "domainName": host,
            "http": {**function_url["requestContext"]["http"], "path": path},
        },
        "pathParameters": {"proxy": "v2/publish"},
        "stageVariables": {"never": "looked at"},
        **changes,
    }


def body_of(given: dict[str, Any], policy: Policy | None = None) -> bytes:
    async def read() -> bytes:
        return await read_call(given, policy or Policy()).read_body()

    return asyncio.run(read())


def test_a_function_url_hands_on_the_path_as_it_came() -> None:
    call = read_call(event("/v2/publish/https://example.com/a%20b%2Fc//d", "x=1&y=a/b%2Fc"), Policy())
    assert (call.method, call.path) == ("POST", "/v2/publish/https://example.com/a%20b%2Fc//d")
    assert call.query == "x=1&y=a/b%2Fc"
    assert ("upstash-forward-x", "one,two") in call.headers
    assert ("cookie", "a=1; b=2") in call.headers
    assert call.caller_ip == "203.0.113.9"


def test_the_http_api_decodes_the_path_into_letters_whose_bytes_are_kept() -> None:
    call = read_call(http_api_event("/v2/publish/https://example.com/caf\u00e9 \u2615", "x=1"), Policy())
    assert (call.method, call.query, call.caller_ip) == ("POST", "x=1", "203.0.113.9")
    assert ("authorization", "Bearer t") in call.headers
    assert call.path.encode("latin-1").decode() == "/v2/publish/https://example.com/caf\u00e9 \u2615"


def test_a_body_is_text_or_base64_or_nothing() -> None:
    assert body_of(event("/")) == b'{"n":1}'
    every_byte = bytes(range(256))
    assert body_of(event("/", body=base64.b64encode(every_byte).decode(), isBase64Encoded=True)) == every_byte
    bodiless = event("/")
    del bodiless["body"]
    assert body_of(bodiless) == b""


def test_a_body_beyond_the_limit_is_refused() -> None:
    with pytest.raises(TooMuch, match="WAYPOST_MAX_BODY"):
        body_of(event("/", body="x" * 11), Policy(max_body=10))


def test_a_route_says_how_long_its_bodies_may_be() -> None:
    async def read(most: int) -> bytes:
        call = read_call(event("/", body="x" * 11), Policy(max_body=10))
        return await call.read_body(Limit(most, "that is too much"))

    assert asyncio.run(read(11)) == b"x" * 11
    with pytest.raises(TooMuch, match="that is too much"):
        asyncio.run(read(10))


def test_an_answer_is_json_with_its_headers() -> None:
    assert written(Reply(405, {"error": "caf\u00e9"}, [("allow", "GET")])) == {
        "statusCode": 405,
        "headers": {"content-type": "application/json", "allow": "GET"},
        "body": '{"error":"caf\u00e9"}',
        "isBase64Encoded": False,
    }
