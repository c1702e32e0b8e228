"""What passes between a door and the API."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from waypost.core import limits
from waypost.core.errors import Conflict, TooMuch
from waypost.core.policy import Policy, body_too_large


class Limit(NamedTuple):
    """How long a body may be, and what is said to who sends more."""

    most: int
    refusal: str


def body_limit(policy: Policy) -> Limit:
    """That of a message's body."""
    return Limit(policy.max_body, body_too_large(policy))


class ReadBody(Protocol):
    def __call__(self, limit: Limit | None = None) -> Awaitable[bytes]:
        """The whole body. Raises TooMuch for one beyond the limit; None: that of a message's body."""
        ...


class Call(Struct, frozen=True):
    """A request as the door hands it over: path and query raw, as they stood in the request line."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    #: Asked only when the caller is known.
    read_body: ReadBody
    caller_ip: str


async def message_body(call: Call, policy: Policy) -> bytes:
    """Raises TooMuch."""
    body = await call.read_body()
    if len(body) > policy.max_body:
        raise TooMuch(body_too_large(policy))
    return body


class Reply(Struct, frozen=True):
    status: int
    #: What is given as JSON; bytes are given as they are.
    content: Any
    headers: Sequence[tuple[str, str]] = ()
    media_type: str = "application/json"

    @staticmethod
    def whole_list(shapes: Sequence[Any], what: str, instead: str) -> Reply:
        """A list that has no pages. Raises Conflict for one that no answer holds, which names `what` and a remedy."""
        encoded = [msgspec.json.encode(one) for one in shapes]
        if sum(map(len, encoded)) > limits.LIST_BYTES:
            raise Conflict(
                f"the {what} have more than {limits.LIST_BYTES} bytes together, which no answer holds: {instead}"
            )
        return Reply(200, [msgspec.Raw(one) for one in encoded])

    def body(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else msgspec.json.encode(self.content)
