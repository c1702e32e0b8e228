"""Which dead letters a caller asks for: the names and values of a query, checked. Entries alone answer to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from waypost.core import limits
from waypost.core.destination import as_stored
from waypost.core.ports import Item
from waypost.core.query import END_OF_TIME, Query, as_number

#: By a filter's name: the attribute of an entry that it asks.
_FILTERS = {
    "url": "url",
    "topicName": "topic",
    "scheduleId": "schedule",
    "queueName": "queue",
    "label": "labels",
    "callerIp": "ip",
    "flowControlKey": "flow",
    "messageId": "id",
    "responseStatus": "status",
    "api": "api",
}
_SPELT = {"callerIP": "callerIp"}
_KNOWN = (*_FILTERS, "fromDate", "toDate", "dlqIds", "count", "order", "cursor")
_CURSOR = re.compile(r"[0-9]{16,30}")
_MS_DIGITS = 15


class Wanted(Struct, frozen=True):
    #: By attribute: what it may be. All must hold.
    values: Mapping[str, frozenset[str]] = {}
    #: When it failed, both inclusive.
    from_ms: int = 0
    to_ms: int = END_OF_TIME
    #: These and no others; None: any.
    ids: tuple[str, ...] | None = None
    count: int = limits.LETTERS
    newest_first: bool = True
    #: The sort key of the last entry that was looked at; empty: from the start.
    after: str = ""

    def comes_after(self, sort_key: str) -> bool:
        return not self.after or (sort_key < self.after if self.newest_first else sort_key > self.after)

    def matches(self, entry: Item) -> bool:
        if not self.from_ms <= entry["failed"] <= self.to_ms:
            return False
        return all(not allowed.isdisjoint(_texts(entry.get(name))) for name, allowed in self.values.items())


def read_wanted(raw: str, body: bytes = b"") -> Wanted:
    """Raises BadRequest naming what can't be used. `raw` is the query; a body may name ids, too."""
    query = Query(raw, _KNOWN, "dead letters", _SPELT)
    cursor = query.one("cursor")
    if cursor and not _CURSOR.fullmatch(cursor):
        raise query.bad_cursor()
    count = query.count(limits.LETTERS)
    ids = query.ids("dlqIds", body, limits.LETTER_IDS)
    return Wanted(
        values={attribute: _values(name, query.all(name)) for name, attribute in _FILTERS.items() if name in query},
        from_ms=query.time("fromDate", 0),
        to_ms=query.time("toDate", END_OF_TIME),
        ids=ids,
        count=count if ids is None else len(ids),
        newest_first=query.newest_first,
        after=f"{cursor[:_MS_DIGITS]}-{cursor[_MS_DIGITS:]}" if cursor else "",
    )


def cursor_at(sort_key: str) -> str:
    """Digits alone, as clients expect; too many of them for a number in JavaScript."""
    return sort_key.replace("-", "")


def _values(name: str, texts: Sequence[str]) -> frozenset[str]:
    if name == "responseStatus":
        return frozenset([str(as_number(name, text)) for text in texts])
    if name == "url":
        return frozenset([as_stored(text) for text in texts])
    return frozenset(texts)


def _texts(value: Any) -> Sequence[str]:
    """The values of an attribute, which may be absent or a list."""
    if value is None:
        return ()
    return value if isinstance(value, list) else (str(value),)
