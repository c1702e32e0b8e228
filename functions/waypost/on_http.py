"""API Gateway's HTTP API and function URLs (payload format 2.0): an event becomes a call, a reply becomes an answer."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from waypost.call import Call, Limit, Reply, body_limit
from waypost.core.errors import TooMuch
from waypost.core.policy import Policy
from waypost.on_aws import Function, function


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    here = function()
    reply = here.run(_answered(here, read_call(event, here.policy)))
    here.log.info("request", extra={"method": event["requestContext"]["http"]["method"], "status": reply.status})
    return written(reply)


async def _answered(here: Function, call: Call) -> Reply:
    reply = await here.service.api.answer(call)
    await here.write_log()
    return reply


def read_call(event: Mapping[str, Any], policy: Policy) -> Call:
    """The request that the event stands for, its path as raw as the door left it: a function URL hands it on as it
    came, the HTTP API decodes it. Letters outside ASCII are given as their bytes, each of which is a character."""
    http = event["requestContext"]["http"]

    async def read_body(limit: Limit | None = None) -> bytes:
        limit = limit or body_limit(policy)
        text = event.get("body") or ""
        body = base64.b64decode(text) if event.get("isBase64Encoded") else text.encode("utf-8", "surrogatepass")
        if len(body) > limit.most:
            raise TooMuch(limit.refusal)
        return body

    return Call(
        method=http["method"],
        path=_as_bytes(event["rawPath"]),
        query=_as_bytes(event.get("rawQueryString") or ""),
        headers=[(name.lower(), _as_bytes(value)) for name, value in _headers(event)],
        read_body=read_body,
        caller_ip=http.get("sourceIp") or "",
    )


def _headers(event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Cookies stand apart from the others."""
    yield from event["headers"].items()
    if event.get("cookies"):
        yield "cookie", "; ".join(event["cookies"])


def written(reply: Reply) -> dict[str, Any]:
    headers = {"content-type": reply.media_type, **dict(reply.headers)}
    return {"statusCode": reply.status, "headers": headers, "body": reply.body().decode(), "isBase64Encoded": False}


def _as_bytes(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")
