"""The table of one process: conditions are decided in memory in program order, groups of rows are committed by a store.

A decision sees every decision before it, committed or not. What keeps that honest:

- a read or a refusal that rests on a row not yet committed resolves only after that row's commit;
- groups are committed one after the other, so that nothing is ever durable without what was decided before it;
- a commit that fails fails its group and all that was decided since, and drops what was only in memory.

Everything here runs on the event loop, knows no time and draws no random number, so that a simulator with a store of
its own decides exactly as the real engine does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol

import msgspec

from waypost.core.ports import (
    MAX,
    Change,
    ConditionFailed,
    Delete,
    Item,
    Key,
    Page,
    Put,
    TooLarge,
    Unavailable,
    Write,
)
from waypost.engines.embedded.decide import holds, outcome
from waypost.engines.limits import MAX_ITEM, MAX_PAGE, check_item, check_key, check_many, check_together

#: Rows that a query reads at once: few enough that items of 400 KB do not hold up the loop for long.
_CHUNK = 32
#: What an entry of the cache costs besides its bytes, about.
_ENTRY_BYTES = 250
_CACHE_BYTES = 1024 * 1024

#: Stands in the cache for a row that is known not to exist; no item is encoded in no byte.
_NO_ITEM = b""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Row(NamedTuple):
    """A row as it shall stand. `item` is encoded, None: no such row. `ttl` is its expiry in seconds since the epoch."""

    pk: str
    sk: str
    item: bytes | None
    ttl: int | None


class Store(Protocol):
    """Committed rows. Reads are synchronous, see every group whose `done` was called, and may raise Unavailable."""

    def get(self, key: Key) -> bytes | None: ...

    def query(self, pk: str, first: str, last: str, limit: int, newest_first: bool) -> list[tuple[str, bytes]]:
        """At most `limit` rows from `first` to `last`, both inclusive, in order of code points; fewer: no more."""
        ...

    def expired(self, before_s: int, limit: int) -> list[Key]:
        """Rows whose ttl is at or before that second."""
        ...

    def commit(self, rows: Sequence[Row], done: Callable[[BaseException | None], None]) -> None:
        """Makes all the rows durable or none, then calls `done` on the event loop: None, or why it failed. There is at
        most one group at a time, and no key is in it twice."""
        ...


class _Group:
    """What is decided and not yet committed: the last decided row of each key, by partition, and who waits for it."""

    __slots__ = ("loop", "rows", "waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.rows: dict[str, dict[str, Row]] = {}
        self.waiters: list[asyncio.Future[None]] = []

    def committed(self) -> asyncio.Future[None]:
        # A future for each waiter: one that is cancelled takes nobody with it.
        waiter = self.loop.create_future()
        self.waiters.append(waiter)
        return waiter


class EmbeddedTable:
    """ports.Table over a Store. Belongs to one event loop."""

    def __init__(self, store: Store, *, cache_bytes: int = _CACHE_BYTES, strict: bool = False) -> None:
        """`strict` refuses what DynamoDB would not take. For tests: it is a twentieth of all that a message costs."""
        self._store = store
        self._strict = strict
        self._cache = _Cache(cache_bytes)
        self._open: _Group | None = None
        self._flying: _Group | None = None
        self._closed = False

    # Reads -----------------------------------------------------------------------------------------------------------

    async def get(self, key: Key) -> Item | None:
        data, group = self._stands(key)
        if group is not None:
            await group.committed()
        return None if data is None else _decoded(data)

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        found: list[bytes | None] = []
        rests: _Group | None = None
        for key in keys:
            data, group = self._stands(key)
            found.append(data)
            rests = self._later(rests, group)
        if rests is not None:
            await rests.committed()
        return [None if data is None else _decoded(data) for data in found]

    async def query(
        self,
        pk: str,
        *,
        first: str = "",
        last: str = MAX,
        limit: int = 100,
        newest_first: bool = False,
        after: str | None = None,
    ) -> Page:
        if limit < 1:
            raise ValueError("a page holds at least one item")
        if after is not None and newest_first:
            last = min(last, after)
        elif after is not None:
            first = max(first, after)
        found: list[bytes] = []
        size = 0
        cursor: str | None = None
        more = False
        rests: _Group | None = None
        for sk, data, group in self._merged(pk, first, last, newest_first):
            if sk == after:
                continue
            rests = self._later(rests, group)
            if data is None:
                continue
            if len(found) == limit or (found and size + len(data) > MAX_PAGE):
                more = True
                break
            found.append(data)
            size += len(data)
            cursor = sk
        if rests is not None:
            await rests.committed()
        return Page([_decoded(data) for data in found], cursor if more else None)

    # Writes ----------------------------------------------------------------------------------------------------------

    async def write(self, one: Write, *, relaxed: bool = False) -> Item | None:
        # Nothing is awaited before the row is in its group: that makes the decision atomic.
        new, row = self._decided(one)
        if row is None:
            await self._refuse(one)
        group = self._append(row)
        if isinstance(one, Put):
            for key in one.unborn:
                self._cache.put(key, _NO_ITEM)
        if not relaxed:
            await group.committed()
        return new

    async def write_many(self, writes: Sequence[Put | Delete]) -> None:
        if not writes:
            return
        check_many(writes)
        rows = [self._row(one.key, outcome(one, None)) for one in writes]
        await self._append_all(rows).committed()

    async def write_together(self, writes: Sequence[Write]) -> None:
        if not writes:
            return
        check_together(writes)
        rows = []
        for position, one in enumerate(writes):
            _, row = self._decided(one)
            if row is None:
                await self._refuse(one, writes[:position])
            rows.append(row)
        await self._append_all(rows).committed()

    async def expire(self, now_s: int, limit: int = 1000) -> int:
        """Deletes at most so many rows whose `ttl` has passed; returns how many."""
        rows = []
        for key in self._store.expired(now_s, limit):
            pending, _ = self._pending(key)
            # The store knows only what is committed: a pending change may have prolonged the row's life.
            if pending is None or (pending.ttl is not None and pending.ttl <= now_s):
                rows.append(Row(key.pk, key.sk, None, None))
        if rows:
            await self._append_all(rows).committed()
        return len(rows)

    async def close(self) -> None:
        """Refuses further writes and waits for the commit of those decided before."""
        self._closed = True
        group = self._open or self._flying
        if group is not None:
            try:
                await group.committed()
            except Unavailable:
                pass  # those who wrote were told; a relaxed write was never promised

    # Decisions -------------------------------------------------------------------------------------------------------

    def _decided(self, one: Write) -> tuple[Item | None, Row | None]:
        """What the write makes of what stands. No row: its condition does not hold."""
        key = one.key
        old: Item | None = None
        if one.when is not None or isinstance(one, Change):
            data, _ = self._stands(key)
            if data is not None:
                old = _decoded(data)
            if one.when is not None and not holds(one.when, old):
                return old, None
        new = outcome(one, old)
        return new, self._row(key, new)

    async def _refuse(self, refused: Write, held: Sequence[Write] = ()) -> NoReturn:
        """The refusal of the first write that does not hold rests on those before it, too."""
        data, rests = self._stands(refused.key)
        for one in held:
            rests = self._later(rests, self._stands(one.key)[1])
        if rests is not None:
            await rests.committed()
        raise ConditionFailed(refused.key, None if data is None else _decoded(data))

    def _row(self, key: Key, item: Item | None) -> Row:
        """Raises TypeError, ValueError or TooLarge for what DynamoDB would not take."""
        pk, sk = key
        if self._strict:
            check_key(key)
            check_item(item or {})
        if item is None:
            return Row(pk, sk, None, None)
        data = _encode(item)
        if len(data) > MAX_ITEM:
            raise TooLarge(f"{key} has {len(data)} bytes, more than {MAX_ITEM}")
        ttl = item.get("ttl")
        return Row(pk, sk, data, ttl if type(ttl) is int else None)

    def _pending(self, key: Key) -> tuple[Row | None, _Group | None]:
        """The last decided row that is not yet committed, and its group."""
        pk, sk = key
        for group in (self._open, self._flying):
            if group is not None:
                rows = group.rows.get(pk)
                if rows is not None:
                    row = rows.get(sk)
                    if row is not None:
                        return row, group
        return None, None

    def _stands(self, key: Key) -> tuple[bytes | None, _Group | None]:
        """The encoded item as decided last, and the group whose commit that rests on (None: it is committed)."""
        row, group = self._pending(key)
        if row is not None:
            return row.item, group
        data = self._cache.get(key)
        if data is None:
            data = self._store.get(key)
            if data is not None:
                self._cache.put(key, data)
        return data or None, None

    def _later(self, one: _Group | None, other: _Group | None) -> _Group | None:
        """Of two groups (None: what is committed) the one that is committed later."""
        if one is None or (other is not None and other is self._open):
            return other
        return one

    def _merged(
        self, pk: str, first: str, last: str, newest_first: bool
    ) -> Iterator[tuple[str, bytes | None, _Group | None]]:
        """Committed rows with the pending ones over them, in order; None stands for a row decided to be deleted.

        Lazy, so that a page rests only on the pending rows it reached; never suspended by its caller in between.
        """
        pending: dict[str, tuple[Row, _Group]] = {}
        for group in (self._flying, self._open):
            if group is not None:
                for sk, row in group.rows.get(pk, {}).items():
                    if first <= sk <= last:
                        pending[sk] = (row, group)
        waiting = sorted(pending, reverse=not newest_first)
        for sk, data in self._committed(pk, first, last, newest_first):
            while waiting and (waiting[-1] > sk if newest_first else waiting[-1] < sk):
                row, group = pending[waiting.pop()]
                yield row.sk, row.item, group
            if waiting and waiting[-1] == sk:
                row, group = pending[waiting.pop()]
                yield sk, row.item, group
            else:
                yield sk, data, None
        while waiting:
            row, group = pending[waiting.pop()]
            yield row.sk, row.item, group

    def _committed(self, pk: str, first: str, last: str, newest_first: bool) -> Iterator[tuple[str, bytes]]:
        edge: str | None = None
        while first <= last:
            # A chunk begins with the last row of the one before: text has a successor, but no predecessor.
            rows = self._store.query(pk, first, last, _CHUNK, newest_first)
            for sk, data in rows:
                if sk != edge:
                    yield sk, data
            if len(rows) < _CHUNK:
                return
            edge = rows[-1][0]
            if newest_first:
                last = edge
            else:
                first = edge

    # Groups ----------------------------------------------------------------------------------------------------------

    def _append(self, row: Row) -> _Group:
        group = self._open
        if group is None:
            group = self._new_group()
        rows = group.rows.get(row.pk)
        if rows is None:
            group.rows[row.pk] = {row.sk: row}
        else:
            rows[row.sk] = row
        return group

    def _append_all(self, rows: Iterable[Row]) -> _Group:
        group = self._open or self._new_group()
        for row in rows:
            self._append(row)
        return group

    def _new_group(self) -> _Group:
        if self._closed:
            raise Unavailable("the table is closed")
        group = self._open = _Group(asyncio.get_running_loop())
        if self._flying is None:
            # After all that is ready to run in this turn of the loop, so that it shares one commit.
            group.loop.call_soon(self._submit, group)
        return group

    def _submit(self, group: _Group) -> None:
        self._open = None
        self._flying = group
        try:
            self._store.commit(
                [row for rows in group.rows.values() for row in rows.values()],
                lambda error: self._finish(group, error),
            )
        except Exception as error:  # noqa: BLE001 - whatever the store raised, those who wait must hear of it
            self._finish(group, error)

    def _finish(self, group: _Group, error: BaseException | None) -> None:
        if self._flying is not group:
            return
        self._flying = None
        following = self._open
        if error is None:
            if following is not None:
                self._submit(following)
            self._remember(group)
            for waiter in group.waiters:
                if not waiter.done():
                    waiter.set_result(None)
        else:
            self._open = None
            self._cache.clear()
            for failed in (group, following):
                for waiter in failed.waiters if failed is not None else ():
                    if not waiter.done():
                        waiter.set_exception(Unavailable(str(error) or repr(error)))

    def _remember(self, group: _Group) -> None:
        for pk, rows in group.rows.items():
            for sk, row in rows.items():
                if row.item is None:
                    self._cache.drop((pk, sk))
                else:
                    self._cache.put((pk, sk), row.item)


class _Cache:
    """Committed rows, encoded, by partition and sort key; the least recently used go first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._rows: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def get(self, key: tuple[str, str]) -> bytes | None:
        data = self._rows.get(key)
        if data is not None:
            self._rows.move_to_end(key)
        return data

    def put(self, key: tuple[str, str], data: bytes) -> None:
        old = self._rows.pop(key, None)
        self._rows[key] = data
        self._size += len(data) + _ENTRY_BYTES if old is None else len(data) - len(old)
        while self._size > self._capacity:
            _, oldest = self._rows.popitem(last=False)
            self._size -= len(oldest) + _ENTRY_BYTES

    def drop(self, key: tuple[str, str]) -> None:
        old = self._rows.pop(key, None)
        if old is not None:
            self._size -= len(old) + _ENTRY_BYTES

    def clear(self) -> None:
        self._rows.clear()
        self._size = 0


# Items ---------------------------------------------------------------------------------------------------------------


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        item: dict[str, Any] = _decode(data)
    except msgspec.DecodeError as error:
        raise Unavailable(f"a stored item is damaged: {error}") from error
    return item
