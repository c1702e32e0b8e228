"""Requests from sockets: an ASGI application that hands raw paths to `api`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from waypost.api import Api, Call, Reply, body_too_large
from waypost.core.errors import BadRequest, TooMuch
from waypost.core.policy import Policy

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


#: A caller whose body takes longer is let go.
_BODY_S = 60


class _Gone(BaseException):
    """The caller went away before its request was whole. No Exception: nobody is left whom `api` could answer."""


class Door:
    def __init__(self, api: Api, policy: Policy, base_path: str) -> None:
        self._api = api
        self._policy = policy
        self._base_path = base_path

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            return
        try:
            reply = await self._answer(scope, receive)
        except _Gone:
            return
        body = reply.body()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers += [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: _Scope, receive: _Receive) -> Reply:
        path = scope["raw_path"].decode("latin-1")
        if self._base_path:
            if not path.startswith(self._base_path + "/"):
                return Reply(404, {"error": f"this server answers below {self._base_path}/ (WAYPOST_BASE_PATH)"})
            path = path[len(self._base_path) :]
        return await self._api.answer(
            Call(
                method=scope["method"],
                path=path,
                query=scope["query_string"].decode("latin-1"),
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
                read_body=lambda: self._read(scope, receive),
                caller_ip=scope["client"][0] if scope["client"] else "",
            )
        )

    async def _read(self, scope: _Scope, receive: _Receive) -> bytes:
        try:
            async with asyncio.timeout(_BODY_S):
                return await self._collect(scope, receive)
        except TimeoutError:
            raise BadRequest(f"the body did not arrive within {_BODY_S} s, send it faster") from None

    async def _collect(self, scope: _Scope, receive: _Receive) -> bytes:
        limit = self._policy.max_body
        for name, value in scope["headers"]:
            if name == b"content-length" and (len(value) > 15 or int(value) > limit):
                raise TooMuch(body_too_large(self._policy))
        chunks: list[bytes] = []
        size = 0
        while True:
            event = await receive()
            if event["type"] != "http.request":
                raise _Gone
            chunk = event.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise TooMuch(body_too_large(self._policy))
            chunks.append(chunk)
            if not event.get("more_body"):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
