"""What a batch asks for: a JSON array of messages, checked as far as can be without settings and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from waypost.core import limits
from waypost.core.destination import as_stored
from waypost.core.errors import BadRequest, TooMuch
from waypost.core.json_body import read_json
from waypost.core.policy import Policy, batch_too_large, body_too_large
from waypost.core.queues import check_queue_name
from waypost.core.settings import headers_of_json


class Item(Struct, frozen=True):
    #: A URL without its query, or the name of a group.
    destination: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    #: Empty: it goes through none.
    queue: str = ""


class _Given(Struct):
    destination: str
    headers: Mapping[str, str | list[str] | None] | None = None
    body: str | None = None
    queue: str | None = None


_decoder = msgspec.json.Decoder(list[_Given])
#: Each item has it once, and no text within a body holds it unescaped.
_IN_EACH = b'"destination"'
_EXAMPLE = '[{"destination": "https://example.com", "headers": {"Upstash-Retries": "3"}, "body": "text"}]'


def read_batch(raw: bytes, policy: Policy) -> list[Item]:
    """Raises BadRequest or TooMuch, naming the item and its field."""
    # Millions would be in memory, and hold up everybody else, before they are counted.
    check_number(raw.count(_IN_EACH))
    given = read_json(raw, _decoder, f"a JSON array of messages like {_EXAMPLE}")
    check_number(len(given))
    items = [_item(at, one, policy) for at, one in enumerate(given)]
    if sum(len(one.body) for one in items) > policy.max_batch:
        raise TooMuch(batch_too_large(policy))
    return items


def check_number(count: int) -> None:
    if count > limits.BATCH_MESSAGES:
        raise BadRequest(
            f"{count} messages are too many for one request, the limit is {limits.BATCH_MESSAGES}, a message for each"
            " endpoint of a URL group; send them in parts"
        )


def _item(at: int, given: _Given, policy: Policy) -> Item:
    try:
        queue = "" if given.queue is None else check_queue_name(given.queue)
    except BadRequest as wrong:
        raise BadRequest(f"[{at}].queue: {wrong}") from None
    body = (given.body or "").encode()
    if len(body) > policy.max_body:
        raise TooMuch(f"[{at}].body: {body_too_large(policy)}")
    try:
        headers = headers_of_json((given.headers or {}).items())
    except BadRequest as wrong:
        raise BadRequest(f"[{at}].headers: {wrong}") from None
    destination, _, query = as_stored(given.destination).partition("#")[0].partition("?")
    return Item(destination, query, headers, body, queue)
