"""What logs tell: events of messages, their order, and the segments in which they are stored.

A segment is one item for many events. It stands under the time of its newest event and reaches back `SPAN_MS` at most:
so whoever wants the events of a time finds them all in the segments of that time and of `SPAN_MS` after it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from waypost.core.ids import number_of, with_number
from waypost.core.message import DIRECT, VERSION, Message, Phase, State, Via, lease_began_ms
from waypost.core.policy import DAY
from waypost.core.ports import Item, Put

CREATED, ACTIVE, ERROR, RETRY, CANCEL_REQUESTED, DELIVERED, CANCELED, FAILED = STATES = (
    "CREATED",
    "ACTIVE",
    "ERROR",
    "RETRY",
    "CANCEL_REQUESTED",
    "DELIVERED",
    "CANCELED",
    "FAILED",
)
#: In the order in which they follow each other within one millisecond.
RANKS: Mapping[str, int] = {state: rank for rank, state in enumerate(STATES)}
SPAN_MS = 10_000
#: A segment's events, and their bytes before they are compressed: an item holds 400 KB.
_MOST_EVENTS = 1_000
_MOST_BYTES = 200_000
_LAST_RANK = 9
_TIME_DIGITS = 15


class Position(NamedTuple):
    """An event's place in the order of all: no two events have the same."""

    time_ms: int
    rank: int
    message_id: str

    def to_cursor(self) -> str:
        return f"{self.time_ms:0{_TIME_DIGITS}d}{self.rank}{number_of(self.message_id)}"

    @staticmethod
    def from_cursor(text: str) -> Position | None:
        """None if no position was ever written so. A time alone stands for the end of its millisecond: callers who
        follow the SDK's example begin with `Date.now()`."""
        if not (text.isascii() and text.isdecimal()):
            return None
        if len(text) <= _TIME_DIGITS:
            return after_all(int(text))
        if len(text) < _TIME_DIGITS + 2:
            return None
        message_id = with_number(text[_TIME_DIGITS + 1 :])
        return Position(int(text[:_TIME_DIGITS]), int(text[_TIME_DIGITS]), message_id) if message_id else None


def before_all(time_ms: int) -> Position:
    """Stands before every event of that millisecond."""
    return Position(time_ms, 0, with_number("0") or "")


def after_all(time_ms: int) -> Position:
    return Position(time_ms, _LAST_RANK, with_number("0") or "")


class Source(NamedTuple):
    """Of a message, what logs are searched for; it outlives the message in them."""

    message_id: str
    url: str
    labels: Sequence[str]
    caller_ip: str
    via: Via = DIRECT
    queue: str = ""
    flow_key: str = ""


class Failure(Struct, frozen=True, array_like=True):
    """What an attempt came to that failed; status 0: there was no answer. Headers and body of an answer are None where
    nobody knows them any more."""

    status: int
    error: str
    headers: Sequence[tuple[str, str]] | None = None
    body: bytes | None = None

    @staticmethod
    def of(last: Mapping[str, Any]) -> Failure:
        """From `State.last`."""
        headers = [(name, value) for name, value in last["headers"]] if "headers" in last else None
        return Failure(last["status"], last["error"], headers, last.get("body"))


class Event(NamedTuple):
    position: Position
    source: Source
    #: RETRY: when the next attempt is due.
    next_ms: int = 0
    #: ERROR.
    failure: Failure | None = None

    @property
    def state(self) -> str:
        return STATES[self.position.rank]


#: An event that is not yet written: time, account, source, rank, then what an Event has besides.
Told = tuple[int, str, Source, int, int, Failure | None]


class Row(Struct, array_like=True):
    """An event within a segment: `at` counts from the segment's first event, `source` says which of its sources."""

    at: int
    source: int
    rank: int
    next_ms: int = 0
    failure: Failure | None = None


class _Block(Struct, array_like=True):
    sources: list[Source]
    rows: list[Row]


class Segment(NamedTuple):
    first_ms: int
    sources: list[Source]
    rows: list[Row]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Block).decode


def log_partition(account: str, day: int) -> str:
    """`day` counts from the epoch."""
    return f"{account}#log#{datetime.fromtimestamp(day * DAY // 1000, UTC):%Y%m%d}"


def log_bound(time_ms: int) -> str:
    """Sorts before every segment whose newest event is of that millisecond or later."""
    return f"{max(0, time_ms):0{_TIME_DIGITS}d}"


def newest_of(sk: str) -> int:
    return int(sk[:_TIME_DIGITS])


def segments(told: Sequence[Told], retention_ms: int, name: Callable[[int], str]) -> Iterator[Put]:
    """What holds all these events. `name` tells segments apart whose newest events are of one millisecond."""
    by_account: dict[str, list[Told]] = {}
    for one in told:
        by_account.setdefault(one[1], []).append(one)
    number = 0
    for account, theirs in by_account.items():
        theirs.sort(key=lambda one: one[0])
        for some in _cut(theirs):
            yield _segment(account, some, retention_ms, name(number))
            number += 1


def _cut(told: Sequence[Told]) -> Iterator[Sequence[Told]]:
    start = size = 0
    for number, (time_ms, _, source, _, _, failure) in enumerate(told):
        via = source.via
        own = 100 + len(source.url) + sum(map(len, source.labels))
        own += len(via.topic) + len(via.endpoint) + len(via.schedule) + len(source.queue) + len(source.flow_key)
        if failure:
            own += len(failure.body or b"") * 4 // 3 + len(failure.error)
            own += sum(len(name) + len(value) + 6 for name, value in failure.headers or ())
        size += own
        if number > start and (
            number - start == _MOST_EVENTS or size > _MOST_BYTES or time_ms - told[start][0] > SPAN_MS
        ):
            yield told[start:number]
            start, size = number, own
    if told:
        yield told[start:]


def _segment(account: str, told: Sequence[Told], retention_ms: int, name: str) -> Put:
    first, newest = told[0][0], told[-1][0]
    places: dict[Source, int] = {}
    rows: list[tuple[Any, ...]] = []
    for time_ms, _, source, rank, next_ms, failure in told:
        at = places.setdefault(source, len(places))
        if failure:
            rows.append((time_ms - first, at, rank, next_ms, failure))
        elif next_ms:
            rows.append((time_ms - first, at, rank, next_ms))
        else:
            rows.append((time_ms - first, at, rank))
    return Put(
        {
            "pk": log_partition(account, newest // DAY),
            "sk": f"{log_bound(newest)}#{name}",
            "v": VERSION,
            "first": first,
            "log": zlib.compress(_encode((list(places), rows)), 1),
            "ttl": (newest + retention_ms) // 1000 + 1,
        }
    )


def read_segment(item: Item) -> Segment:
    block = _decode(zlib.decompress(item["log"]))
    return Segment(item["first"], block.sources, block.rows)


def event_of(segment: Segment, row: Row) -> Event:
    source = segment.sources[row.source]
    return Event(Position(segment.first_ms + row.at, row.rank, source.message_id), source, row.next_ms, row.failure)


# Of one message, from what it is and what became of it ---------------------------------------------------------------


def source_of(message: Message) -> Source:
    terms = message.terms
    source = Source(message.id, message.url, terms.labels, message.caller_ip, message.via)
    return source._replace(queue=terms.queue, flow_key=terms.flow_key) if terms.lane else source


def told_created(message: Message) -> Told:
    return (message.created_ms, message.account, source_of(message), RANKS[CREATED], 0, None)


def end_of_attempt(state: State, now_ms: int) -> list[tuple[int, str, int, Failure | None]]:
    """Time, state and the rest of what is told of an attempt that came back and left the message in this state."""
    if state.phase is Phase.DELIVERED:
        return [(now_ms, DELIVERED, 0, None)]
    failed = (now_ms, ERROR, 0, Failure.of(state.last or {"status": 0, "error": ""}))
    if state.phase is Phase.RETRY:
        return [failed, (now_ms, RETRY, state.due_ms, None)]
    return [failed, (now_ms, state.phase.value, 0, None)]


def events_of(message: Message, state: State) -> list[Event]:
    """All that a message's state still tells, in order."""
    found: list[tuple[int, str, int, Failure | None]] = [(message.created_ms, CREATED, 0, None)]
    for attempt in _attempts(state):
        at, end, next_ms = attempt["at"], attempt["at"] + attempt["ms"], attempt.get("next")
        found.append((at, ACTIVE, 0, None))
        if next_ms is not None:
            found.append((end, ERROR, 0, Failure.of(attempt)))
        if next_ms:
            found.append((end, RETRY, next_ms, None))
    if state.phase is Phase.ACTIVE:
        found.append((lease_began_ms(message, state), ACTIVE, 0, None))
    if state.stop or state.phase is Phase.CANCELLED:
        found.append((state.stop or state.ended_ms, CANCEL_REQUESTED, 0, None))
    if state.phase.final:
        found.append((state.ended_ms, state.phase.value, 0, None))
    source = source_of(message)
    events = [
        Event(Position(time_ms, RANKS[name], message.id), source, next_ms, failure)
        for time_ms, name, next_ms, failure in found
    ]
    return sorted(events, key=lambda event: event.position)


def _attempts(state: State) -> Iterator[Mapping[str, Any]]:
    for at, ms, status, error, next_ms, *_ in state.earlier:
        yield {"at": at, "ms": ms, "status": status, "error": error, "next": next_ms}
    if state.last:
        yield state.last
