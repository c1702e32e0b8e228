"""`GET /v2/events` and `GET /v2/logs`: a query to what is sought, a page to an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from waypost.core.body import body_at_hand
from waypost.core.destination import as_stored
from waypost.core.errors import BadRequest, shown
from waypost.core.event import ACTIVE, CANCELED, ERROR, RANKS, RETRY, Event, Position
from waypost.core.history import SOURCE_FILTERS, History, Sought
from waypost.core.ids import place_of
from waypost.core.message import Message, message_key
from waypost.core.messages import Messages
from waypost.core.policy import Policy
from waypost.core.ports import Ports
from waypost.shapes import event_shape, logged

_MOST = 1_000
_MOST_IDS = 100
#: An answer ends early when it has grown so long: a function's may have 6 MB.
_MOST_BYTES = 4_000_000
#: So many events' messages are read, and held, at once.
_MESSAGES_AT_ONCE = 50
#: States by the words that filters know, besides their own names.
_MEANT = {"IN_PROGRESS": (ACTIVE, RETRY, ERROR), "CANCELLED": (CANCELED,)}
_SPELT = {"callerIP": "callerIp", "messageIds": "messageId"}
_ONCE = ("fromDate", "toDate", "count", "cursor", "order")
_KNOWN = (*SOURCE_FILTERS, "state", "messageId", "messageIds", *_ONCE)
_AS_STORED: Mapping[str, Callable[[str], str]] = {"host": str.lower, "url": as_stored, "path": as_stored}
_NUMBER = re.compile(r"[0-9]{1,20}")
_EVER = 10**14


class Logs:
    def __init__(self, ports: Ports, policy: Policy, messages: Messages) -> None:
        self._ports = ports
        self._history = History(ports, policy, messages)

    async def listed(self, account: str, query: str, name: str) -> dict[str, Any]:
        """The answer, its events under `name`."""
        given = _given(query)
        cursor, count = _cursor(given), min(_number(given, "count", _MOST, least=1), _MOST)
        order = given.get("order", ["latestFirst"])[0]
        if order not in ("latestFirst", "earliestFirst"):
            raise BadRequest(f"order: {shown(order)} is no order, write latestFirst or earliestFirst")
        page = await self._history.page(
            account, _sought(given), count=count, after=cursor, earliest_first=order == "earliestFirst"
        )
        shapes, next_position = await self._shapes(account, page.events, page.next)
        answer: dict[str, Any] = {name: shapes}
        if next_position:
            answer["cursor"] = next_position.to_cursor()
        return answer

    async def _shapes(
        self, account: str, events: Sequence[Event], next_position: Position | None
    ) -> tuple[list[msgspec.Raw], Position | None]:
        """As many as an answer holds, and where to go on after them."""
        shapes: list[msgspec.Raw] = []
        size = 0
        for start in range(0, len(events), _MESSAGES_AT_ONCE):
            some = events[start : start + _MESSAGES_AT_ONCE]
            messages = await self._messages(account, some)
            described: dict[str, dict[str, Any]] = {}
            for event in some:
                message_id = event.source.message_id
                message = messages.get(message_id)
                if message and message_id not in described:
                    described[message_id] = logged(message, body_at_hand(message.body))
                shape = msgspec.json.encode(event_shape(event, described.get(message_id, {})))
                if shapes and size + len(shape) > _MOST_BYTES:
                    return shapes, events[len(shapes) - 1].position
                shapes.append(msgspec.Raw(shape))
                size += len(shape)
        return shapes, next_position

    async def _messages(self, account: str, events: Sequence[Event]) -> dict[str, Message]:
        ids = {event.source.message_id: place_of(event.source.message_id) for event in events}
        keys = [message_key(account, message_id, place) for message_id, place in ids.items() if place]
        now = self._ports.clock.now_ms()
        found = (Message.from_item(item, now) for item in await self._ports.table.get_many(keys))
        return {message.id: message for message in found if message}


def _given(query: str) -> dict[str, list[str]]:
    """Values by the filter's name. Raises BadRequest for a name that is none: it would mean everything."""
    given: dict[str, list[str]] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        name, value = unquote_plus(name), unquote_plus(value)
        if name.lower() == "qstash_token" or name.lower().startswith("upstash-"):
            continue
        name = _SPELT.get(name, name)
        if name == "groupBy":
            raise BadRequest("groupBy is not served, leave it out")
        if name not in _KNOWN:
            raise BadRequest(f"{shown(name)} is no filter of logs, take one of {', '.join(_KNOWN)}")
        if name == "cursor" and not value:
            continue
        if not value:
            raise BadRequest(f"{name} is empty, leave it out or give it a value")
        if name in _ONCE and given.get(name, [value]) != [value]:
            raise BadRequest(f"{name} is given twice, write it once")
        given.setdefault(name, []).append(value)
    return given


def _sought(given: Mapping[str, list[str]]) -> Sought:
    ids = frozenset(given.get("messageId", ()))
    if len(ids) > _MOST_IDS:
        raise BadRequest(f"messageIds: {len(ids)} ids are too many, ask for {_MOST_IDS} at most")
    ranks: set[int] = set()
    for state in given.get("state", ()):
        meant = _MEANT.get(state, (state,))
        if not RANKS.keys() >= set(meant):
            raise BadRequest(f"state: {shown(state)} is no state, take one of {', '.join([*RANKS, *_MEANT])}")
        ranks |= {RANKS[one] for one in meant}
    return Sought(
        of_source={
            name: frozenset(map(_AS_STORED.get(name, str), given[name])) for name in SOURCE_FILTERS if name in given
        },
        ranks=frozenset(ranks or RANKS.values()),
        message_ids=ids,
        from_ms=_number(given, "fromDate", 0),
        to_ms=_number(given, "toDate", _EVER),
    )


def _cursor(given: Mapping[str, list[str]]) -> Position | None:
    if "cursor" not in given:
        return None
    position = Position.from_cursor(given["cursor"][0])
    if position is None:
        raise BadRequest(f"cursor: {shown(given['cursor'][0])} is none that was given out, leave it out to begin anew")
    return position


def _number(given: Mapping[str, list[str]], name: str, default: int, *, least: int = 0) -> int:
    if name not in given:
        return default
    value = given[name][0]
    if not _NUMBER.fullmatch(value) or int(value) < least:
        what = "a number from 1 on" if least else "a time in milliseconds since 1970"
        raise BadRequest(f"{name}: {shown(value)} can't be used, write {what}")
    return min(int(value), _EVER)
