"""Reading logs, in bounded pages however much is stored.

Two kinds of sources are merged: segments, and the creations of minutes that the look has not reached, which stand in no
segment yet. Each source knows an edge: all that it has not given lies on the far side of it. What lies on the near side
of every edge is in order and can be given.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from waypost.core import limits
from waypost.core.cursor import read_cursor
from waypost.core.event import (
    CREATED,
    RANKS,
    SPAN_MS,
    Event,
    Position,
    Source,
    after_all,
    before_all,
    event_of,
    events_of,
    log_bound,
    log_partition,
    newest_of,
    read_segment,
    source_of,
)
from waypost.core.ids import Place, first_id
from waypost.core.message import Via, partition_of
from waypost.core.messages import Messages
from waypost.core.policy import DAY, MINUTE, Policy
from waypost.core.ports import Item, Ports
from waypost.core.source_filter import SourceFilter, fits

#: What a page may read is reckoned in events: so many bytes cost as much as one, a segment as much as some, and a day
#: that has none as much as a few.
_BYTES_READ = 500
_SEGMENT_COST = 10
_EMPTY_DAY_COST = 500
#: Partitions of messages that one page may open.
_MOST_PARTITIONS = 512
_SEGMENTS_AT_ONCE = 100
#: Of a partition, of which many may be read at once: a message and its state are two.
_ITEMS_AT_ONCE = 50


class Sought(Struct, frozen=True):
    """What an event must be. Of each set one must fit; an empty mapping asks for nothing."""

    of_source: SourceFilter
    #: Of states.
    ranks: frozenset[int]
    message_ids: frozenset[str]
    from_ms: int
    to_ms: int

    def fits(self, source: Source) -> bool:
        return (not self.message_ids or source.message_id in self.message_ids) and fits(self.of_source, source)


class HistoryPage(NamedTuple):
    events: list[Event]
    #: Where to go on; None: there is no more.
    next: Position | None


class History:
    def __init__(self, ports: Ports, policy: Policy, messages: Messages) -> None:
        self._ports = ports
        self._policy = policy
        self._messages = messages

    async def page(
        self, account: str, sought: Sought, *, count: int, after: Position | None = None, earliest_first: bool = False
    ) -> HistoryPage:
        """At most `count` events that follow `after`; perhaps none, although there are more."""
        now = self._ports.clock.now_ms()
        low, high = before_all(max(sought.from_ms, now - self._policy.log_retention_ms + 1)), after_all(sought.to_ms)
        if after:
            low, high = (max(low, after), high) if earliest_first else (low, min(high, after))
        window = _Window(sought, low, high, after, -1 if earliest_first else 1)
        if sought.message_ids:
            return await self._of_messages(account, window, count)
        walk = _Walk(window, count)
        # In this order: what the look has passed by then stands in segments.
        seen = await read_cursor(self._ports)
        if seen is not None and RANKS[CREATED] in sought.ranks:
            self._add_live(walk, account, seen, now)
        walk.sources.append(_Segments(self._ports, account, window, now))
        return await walk.go()

    async def _of_messages(self, account: str, window: _Window, count: int) -> HistoryPage:
        """A message's own state tells at once, and needs no segment."""
        sought = window.sought
        kept = self._policy.log_retention_ms
        seen = await asyncio.gather(*(self._messages.read(account, one, kept_ms=kept) for one in sought.message_ids))
        found = [
            event
            for one in seen
            if one and sought.fits(source_of(one.message))
            for event in events_of(one.message, one.state)
            if event.position.rank in sought.ranks and window.holds(event.position)
        ]
        found.sort(key=lambda event: event.position, reverse=window.sign > 0)
        return HistoryPage(found[:count], found[count - 1].position if len(found) > count else None)

    def _add_live(self, walk: _Walk, account: str, seen: int, now: int) -> None:
        """The minutes that the look has not reached, the nearest first; those too many are left to a later page."""
        window, shards = walk.window, self._policy.shards
        first = max(seen + 1, window.low.time_ms // MINUTE)
        # A minute that was looked at gets no new id, whatever the clock says.
        last = min(max(now // MINUTE, seen + 1), window.high.time_ms // MINUTE)
        most = max(1, _MOST_PARTITIONS // shards)
        if last - first >= most and window.sign > 0:
            first = last - most + 1
            walk.limit_to(first * MINUTE)
        elif last - first >= most:
            last = first + most - 1
            walk.limit_to((last + 1) * MINUTE - 1)
        for minute in range(first, last + 1):
            for shard in range(shards):
                walk.sources.append(_Creations(self._ports, account, Place(minute, shard), window, now))


class _Window:
    """What may be given: from `low` to `high`, but for the event that was given last."""

    def __init__(self, sought: Sought, low: Position, high: Position, after: Position | None, sign: int) -> None:
        self.sought = sought
        self.low = low
        self.high = high
        self._after = after
        #: Times are multiplied by this, so that a walk always goes from great to small.
        self.sign = sign

    @property
    def end(self) -> int:
        """The far one of its times, times the sign."""
        return self.low.time_ms if self.sign > 0 else -self.high.time_ms

    def holds(self, position: Position) -> bool:
        return self.low <= position <= self.high and position != self._after


class _Read(NamedTuple):
    events: list[Event]
    cost: int
    #: Of the last event that was looked at, times the sign: the cost counts once the walk has passed it. What lies
    #: beyond the edge when a page ends is read again, and must not keep the next one from getting further.
    last: int


class _Source(Protocol):
    #: What it has not given is of this time, times the sign, or less; `_DONE`: there is no more.
    edge: int

    async def read(self) -> _Read:
        """Some of its events that fit."""
        ...


_DONE = -(2**63)


class _Walk:
    def __init__(self, window: _Window, count: int) -> None:
        self.window = window
        self.sources: list[_Source] = []
        self._count = count
        self._given: list[Event] = []
        self._rest: Position | None = None

    def limit_to(self, ms: int) -> None:
        """This page goes no further."""
        if self.window.sign > 0:
            self._rest = self.window.low = before_all(ms)
        else:
            self._rest = self.window.high = after_all(ms)

    async def go(self) -> HistoryPage:
        waiting: list[Event] = []
        costs: list[tuple[int, int]] = []
        spent = 0
        while True:
            edge = max(source.edge for source in self.sources)
            waiting = self._give(waiting, edge)
            more = edge >= self.window.end
            if len(self._given) == self._count and (waiting or more):
                return HistoryPage(self._given, self._given[-1].position)
            if not more:
                return HistoryPage(self._given, self._rest)
            while costs and -costs[0][0] > edge:
                spent += heapq.heappop(costs)[1]
            if spent >= limits.LOG_EVENTS_READ and (reached := self._cut(edge)):
                return HistoryPage(self._given, reached)
            for read in await _together(source.read() for source in self.sources if source.edge == edge):
                waiting += read.events
                if read.cost:
                    heapq.heappush(costs, (-read.last, read.cost))

    def _give(self, waiting: list[Event], edge: int) -> list[Event]:
        """Gives what lies on the near side of the edge; returns the others."""
        sign, given = self.window.sign, self._given
        waiting.sort(key=lambda event: event.position, reverse=sign > 0)
        for number, event in enumerate(waiting):
            if sign * event.position.time_ms <= edge or len(given) == self._count:
                return waiting[number:]
            # What a repeat wrote twice, or the look while this walk was under way, is one event.
            if not given or given[-1].position != event.position:
                given.append(event)
        return []

    def _cut(self, edge: int) -> Position | None:
        """Where a later page goes on if this one ends here. None: it would begin where this one began."""
        window = self.window
        if window.sign > 0:
            reached = before_all(edge + 1)
            return reached if reached < window.high else None
        reached = after_all(-edge - 1)
        return reached if reached > window.low else None


async def _together(reads: Iterable[Coroutine[Any, Any, _Read]]) -> list[_Read]:
    """When it raises, none is under way any more."""
    done = await asyncio.gather(*reads, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return [one for one in done if not isinstance(one, BaseException)]


class _Segments:
    """Segments in order of their newest events, day by day."""

    def __init__(self, ports: Ports, account: str, window: _Window, now: int) -> None:
        self._table = ports.table
        self._account = account
        self._window = window
        newest = min(window.high.time_ms, now) + SPAN_MS
        days = range(window.low.time_ms // DAY, newest // DAY + 1)
        self._days = deque(reversed(days) if window.sign > 0 else days)
        self._items: deque[Item] = deque()
        self._next: str | None = None
        self.edge = window.high.time_ms if window.sign > 0 else -window.low.time_ms

    async def read(self) -> _Read:
        if not self._items:
            return await self._query()
        item, sign = self._items.popleft(), self._window.sign
        newest = newest_of(item["sk"])
        self._reach(newest if sign > 0 else newest - SPAN_MS)
        if item["first"] > self._window.high.time_ms:
            return _Read([], 0, self.edge)
        events, looked_at = self._events(item)
        cost = looked_at and looked_at + len(item["log"]) // _BYTES_READ + _SEGMENT_COST
        return _Read(events, cost, sign * (item["first"] if sign > 0 else newest))

    async def _query(self) -> _Read:
        if not self._days:
            self.edge = _DONE
            return _Read([], 0, _DONE)
        day = self._days[0]
        window = self._window
        page = await self._table.query(
            log_partition(self._account, day),
            first=log_bound(window.low.time_ms),
            last=log_bound(window.high.time_ms + SPAN_MS + 1),
            limit=_SEGMENTS_AT_ONCE,
            newest_first=window.sign > 0,
            after=self._next,
        )
        self._items.extend(page.items)
        self._next = page.next
        if page.next is None:
            self._days.popleft()
            if not page.items:
                self._reach(day * DAY - 1 if window.sign > 0 else (day + 1) * DAY - SPAN_MS)
        return _Read([], 0 if page.items else _EMPTY_DAY_COST, self.edge + 1)

    def _reach(self, ms: int) -> None:
        self.edge = min(self.edge, self._window.sign * ms)

    def _events(self, item: Item) -> tuple[list[Event], int]:
        """Those that fit, and how many lie in the window."""
        segment, window = read_segment(item), self._window
        ranks = window.sought.ranks
        earliest, latest = window.low.time_ms - segment.first_ms, window.high.time_ms - segment.first_ms
        fits = [window.sought.fits(source) for source in segment.sources]
        rows = [row for row in segment.rows if earliest <= row.at <= latest]
        events = [event_of(segment, row) for row in rows if fits[row.source] and row.rank in ranks]
        return [event for event in events if window.holds(event.position)], len(rows)


class _Creations:
    """The messages of one partition, in order of their ids, which is that of their creation."""

    def __init__(self, ports: Ports, account: str, place: Place, window: _Window, now: int) -> None:
        self._table = ports.table
        self._account = account
        self._place = place
        self._window = window
        self._now = now
        self._next: str | None = None
        start = place.minute * MINUTE
        self._earliest = max(start, window.low.time_ms)
        self._latest = min(start + MINUTE - 1, window.high.time_ms)
        self.edge = self._latest if window.sign > 0 else -self._earliest

    async def read(self) -> _Read:
        start, sign = self._place.minute * MINUTE, self._window.sign
        page = await self._table.query(
            partition_of(self._place),
            first=f"{self._account}#{first_id(self._place, self._earliest - start)}",
            last=f"{self._account}#{first_id(self._place, self._latest - start)}~",
            limit=_ITEMS_AT_ONCE,
            newest_first=sign > 0,
            after=self._next,
        )
        self._next = page.next
        messages = [item for item in page.items if "url" in item]
        last = min(self.edge, sign * messages[-1]["created"]) if messages else self.edge
        self.edge = _DONE if page.next is None else last
        return _Read(list(self._fitting(messages)), sum(map(_cost, messages)), last)

    def _fitting(self, messages: Sequence[Item]) -> Iterator[Event]:
        for item in messages:
            source = Source(item["id"], item["url"], item.get("labels", ()), item["ip"], Via.from_item(item))
            position = Position(item["created"], RANKS[CREATED], item["id"])
            if item["ttl"] * 1000 > self._now and self._window.holds(position) and self._window.sought.fits(source):
                yield Event(position, source)


def _cost(message: Item) -> int:
    body = message["body"]
    return 1 + len(body.get("raw") or body.get("zip") or b"") // _BYTES_READ
