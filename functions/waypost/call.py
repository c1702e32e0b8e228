"""What passes between a door and the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct


class Call(Struct, frozen=True):
    """A request as the door hands it over: path and query raw, as they stood in the request line."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    #: Reads the whole body; asked only when the caller is known. Raises TooMuch.
    read_body: Callable[[], Awaitable[bytes]]
    caller_ip: str


class Reply(Struct, frozen=True):
    status: int
    #: What is given as JSON; bytes are given as they are.
    content: Any
    headers: Sequence[tuple[str, str]] = ()
    media_type: str = "application/json"

    def body(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else msgspec.json.encode(self.content)
