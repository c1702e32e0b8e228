"""Requests from sockets: an ASGI application that hands raw paths to `api`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from waypost.api import Api, Call, Reply, body_too_large
from waypost.core.policy import Policy

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Gone(Exception):
    """The caller went away before its request was whole."""


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
        body = await self._read(scope, receive)
        if body is None:
            # What is left of the body is not read, so the connection can't be used again.
            return Reply(413, {"error": body_too_large(self._policy)}, [("connection", "close")])
        return await self._api.answer(
            Call(
                method=scope["method"],
                path=path,
                query=scope["query_string"].decode("latin-1"),
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
                body=body,
                caller_ip=scope["client"][0] if scope["client"] else "",
            )
        )

    async def _read(self, scope: _Scope, receive: _Receive) -> bytes | None:
        """The whole body, or None if it is larger than any route takes."""
        limit = self._policy.max_body
        for name, value in scope["headers"]:
            if name == b"content-length" and (len(value) > 15 or int(value) > limit):
                return None
        chunks: list[bytes] = []
        size = 0
        while True:
            event = await receive()
            if event["type"] != "http.request":
                raise _Gone
            chunk = event.get("body", b"")
            size += len(chunk)
            if size > limit:
                return None
            chunks.append(chunk)
            if not event.get("more_body"):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
