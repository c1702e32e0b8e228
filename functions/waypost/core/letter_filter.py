"""Which dead letters a caller asks for: the names and values of a query, checked. Entries alone answer to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from waypost.core.destination import as_stored, split_control_keys
from waypost.core.errors import BadRequest, shown
from waypost.core.ports import Item

#: By a filter's name: the attribute of an entry that it asks. One that no entry has yet matches nothing.
_FILTERS = {
    "url": "url",
    "topicName": "topic",
    "scheduleId": "schedule",
    "queueName": "queue",
    "label": "labels",
    "callerIp": "ip",
    "callerIP": "ip",
    "flowControlKey": "flow",
    "messageId": "id",
    "responseStatus": "status",
    "api": "api",
}
_KNOWN = (*_FILTERS, "fromDate", "toDate", "dlqIds", "count", "order", "cursor")
_MOST_A_PAGE = 100
#: So many that one call has done with all of them.
_MOST_IDS = 400
_NUMBER = re.compile(r"[0-9]{1,20}")
_CURSOR = re.compile(r"[0-9]{16,30}")
_MS_DIGITS = 15
_END_OF_TIME = 10**_MS_DIGITS - 1


class Wanted(Struct, frozen=True):
    #: By attribute: what it may be. All must hold.
    values: Mapping[str, frozenset[str]] = {}
    #: When it failed, both inclusive.
    from_ms: int = 0
    to_ms: int = _END_OF_TIME
    #: These and no others; None: any.
    ids: tuple[str, ...] | None = None
    count: int = _MOST_A_PAGE
    newest_first: bool = True
    #: The sort key of the last entry that was looked at; empty: from the start.
    after: str = ""

    def comes_after(self, sort_key: str) -> bool:
        return not self.after or (sort_key < self.after if self.newest_first else sort_key > self.after)

    def matches(self, entry: Item) -> bool:
        if not self.from_ms <= entry["failed"] <= self.to_ms:
            return False
        return all(not allowed.isdisjoint(_texts(entry.get(name))) for name, allowed in self.values.items())


class _Ids(Struct, rename="camel", forbid_unknown_fields=True):
    dlq_ids: list[str]


def read_wanted(query: str, body: bytes = b"") -> Wanted:
    """Raises BadRequest naming what can't be used. A name that is not known is never taken for no filter at all, which
    would mean everything. `query` is the raw one; a body may name ids, too."""
    given = _given(query)
    values: dict[str, frozenset[str]] = {}
    for name, attribute in _FILTERS.items():
        if name in given:
            values[attribute] = values.get(attribute, frozenset()) | _values(name, given[name])
    order = _one(given, "order", "latestFirst")
    if order not in ("latestFirst", "earliestFirst"):
        raise BadRequest(f"order: {shown(order)} is no order, write latestFirst or earliestFirst")
    count = _number(given, "count", _MOST_A_PAGE)
    if count == 0:
        raise BadRequest('count: "0" asks for nothing, write 1 or more')
    cursor = _one(given, "cursor", "")
    if cursor and not _CURSOR.fullmatch(cursor):
        raise BadRequest(f"cursor: {shown(cursor)} is none that was given out, leave it out to begin anew")
    ids = _ids(given.get("dlqIds"), body)
    return Wanted(
        values=values,
        from_ms=min(_number(given, "fromDate", 0), _END_OF_TIME),
        to_ms=min(_number(given, "toDate", _END_OF_TIME), _END_OF_TIME),
        ids=ids,
        count=min(count, _MOST_A_PAGE) if ids is None else len(ids),
        newest_first=order == "latestFirst",
        after=f"{cursor[:_MS_DIGITS]}-{cursor[_MS_DIGITS:]}" if cursor else "",
    )


def cursor_at(sort_key: str) -> str:
    """Digits alone, as clients expect; too many of them for a number in JavaScript."""
    return sort_key.replace("-", "")


def _given(query: str) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for name, value in parse_qsl(split_control_keys(query)[0], keep_blank_values=True):
        if name not in _KNOWN:
            raise BadRequest(f"{shown(name)} is no filter of dead letters, the filters are {', '.join(_KNOWN)}")
        if name == "cursor" and not value:
            continue
        if not value:
            raise BadRequest(f"{name} is empty, give it a value or leave it out")
        given.setdefault(name, []).append(value)
    return given


def _values(name: str, texts: Sequence[str]) -> frozenset[str]:
    if name == "responseStatus":
        return frozenset([str(_as_number(name, text)) for text in texts])
    if name == "url":
        return frozenset([as_stored(text) for text in texts])
    return frozenset(texts)


def _ids(texts: Sequence[str] | None, body: bytes) -> tuple[str, ...] | None:
    """None: none were asked for. An empty list asks for nothing, as whoever deletes what was selected means it."""
    if texts is None and not body.strip():
        return None
    named = [one.strip() for text in texts or () for one in text.split(",")]
    if not all(named):
        raise BadRequest("dlqIds names an empty id, leave it out")
    if body.strip():
        try:
            named += msgspec.json.decode(body, type=_Ids).dlq_ids
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            raise BadRequest(
                f'the body must be JSON like {{"dlqIds": ["1790000000000-1"]}}, or be left out ({wrong})'
            ) from None
    found = tuple(dict.fromkeys(named))
    if len(found) > _MOST_IDS:
        raise BadRequest(f"dlqIds names {len(found)} entries, the limit is {_MOST_IDS} at once; name fewer")
    return found


def _one(given: Mapping[str, Sequence[str]], name: str, default: str) -> str:
    texts = given.get(name, (default,))
    if len(set(texts)) > 1:
        raise BadRequest(f"{name} is given twice, as {shown(texts[0])} and {shown(texts[1])}; give it once")
    return texts[0]


def _number(given: Mapping[str, Sequence[str]], name: str, default: int) -> int:
    return _as_number(name, _one(given, name, str(default)))


def _as_number(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise BadRequest(f"{name}: {shown(text)} is no whole number")
    return int(text)


def _texts(value: Any) -> Sequence[str]:
    """The values of an attribute, which may be absent or a list."""
    if value is None:
        return ()
    return value if isinstance(value, list) else (str(value),)
