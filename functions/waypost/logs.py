"""`GET /v2/events` and `GET /v2/logs`: a query to what is sought, a page to an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from waypost.core import limits
from waypost.core.body import body_at_hand
from waypost.core.errors import BadRequest, shown
from waypost.core.event import ACTIVE, CANCELED, ERROR, RANKS, RETRY, Event, Position
from waypost.core.history import History, Sought
from waypost.core.ids import place_of
from waypost.core.message import Message, message_key
from waypost.core.messages import Messages
from waypost.core.policy import Policy
from waypost.core.ports import Ports
from waypost.core.query import END_OF_TIME, Query
from waypost.core.source_filter import SOURCE_FILTERS, read_source_filter
from waypost.shapes import event_shape, logged

#: So many events' messages are read, and held, at once.
_MESSAGES_AT_ONCE = 50
#: States by the words that filters know, besides their own names.
_MEANT = {"IN_PROGRESS": (ACTIVE, RETRY, ERROR), "CANCELLED": (CANCELED,)}
_SPELT = {"callerIP": "callerIp", "messageIds": "messageId"}
_KNOWN = (*SOURCE_FILTERS, "state", "messageId", "fromDate", "toDate", "count", "cursor", "order")


class Logs:
    def __init__(self, ports: Ports, policy: Policy, messages: Messages) -> None:
        self._ports = ports
        self._history = History(ports, policy, messages)

    async def listed(self, account: str, raw: str, name: str) -> dict[str, Any]:
        """The answer to a raw query, its events under `name`."""
        query = Query(raw, _KNOWN, "logs", _SPELT)
        after = Position.from_cursor(query.one("cursor")) if "cursor" in query else None
        if "cursor" in query and after is None:
            raise query.bad_cursor()
        page = await self._history.page(
            account,
            _sought(query),
            count=query.count(limits.LOG_EVENTS),
            after=after,
            earliest_first=not query.newest_first,
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
                if shapes and size + len(shape) > limits.LOG_BYTES:
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


def _sought(query: Query) -> Sought:
    ids = frozenset(query.all("messageId"))
    if len(ids) > limits.LOG_IDS:
        raise BadRequest(f"messageIds: {len(ids)} ids are too many, ask for {limits.LOG_IDS} at most")
    ranks: set[int] = set()
    for state in query.all("state"):
        meant = _MEANT.get(state, (state,))
        if not RANKS.keys() >= set(meant):
            raise BadRequest(f"state: {shown(state)} is no state, take one of {', '.join([*RANKS, *_MEANT])}")
        ranks |= {RANKS[one] for one in meant}
    return Sought(
        of_source=read_source_filter(query),
        ranks=frozenset(ranks or RANKS.values()),
        message_ids=ids,
        from_ms=query.time("fromDate", 0),
        to_ms=query.time("toDate", END_OF_TIME),
    )
