"""What the contract suite asks of an engine besides its ports: to open, to die and to misbehave on demand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import apsw

from waypost.core.ports import Blobs, Key, Table
from waypost.engines.embedded.blobs import FolderBlobs
from waypost.engines.embedded.sqlite import SqliteStore
from waypost.engines.embedded.table import EmbeddedTable, Row

K = Key("p", "s")


def item(sk: str = "s", pk: str = "p", **attributes: Any) -> dict[str, Any]:
    return {"pk": pk, "sk": sk, **attributes}


class Harness(Protocol):
    #: What the engine cannot show, and why. A test names what it needs: `@pytest.mark.needs("...")`.
    lacks: Mapping[str, str]

    async def open(self) -> Table: ...

    async def crash(self) -> Table:
        """The process dies with all that is not committed; nobody who waits hears anything. Returns the next table."""
        ...

    def blobs(self) -> Blobs:
        """Opens this engine's one blob store."""
        ...

    def hold_commits(self) -> None:
        """From now on nothing is committed, until `release`. Needs "held commits"."""
        ...

    def release(self, commits: int | None = None) -> None:
        """Lets so many commits pass and holds the next (None: lets all pass)."""
        ...

    def fail_next_commit(self) -> None:
        """The next commit fails and takes no effect. Needs "held commits"."""
        ...

    def lose_next_answer(self) -> None:
        """The next write takes effect, but its answer is lost once. Needs "lost answers"."""
        ...

    async def expire(self, now_s: int, limit: int = 1000) -> int:
        """Drops what is expired. Needs "expiry on demand"."""
        ...

    def close(self) -> None: ...


class _Store(SqliteStore):
    def __init__(self, path: Path) -> None:
        self.gate = threading.Condition()
        #: How many commits may pass; None: all.
        self.may_pass: int | None = None
        self.dead = False
        self.fail_next = False
        self.lose_next = False
        super().__init__(path)

    def commit(self, rows: Sequence[Row], done: Callable[[BaseException | None], None]) -> None:
        super().commit(rows, lambda error: None if self.dead else done(error))

    def _transact(self, rows: Sequence[Row]) -> None:
        with self.gate:
            self.gate.wait_for(lambda: self.may_pass != 0 or self.dead)
            if self.may_pass:
                self.may_pass -= 1
        if self.dead:
            raise RuntimeError("the process is dead")
        if self.fail_next:
            self.fail_next = False
            raise apsw.FullError("no space")
        super()._transact(rows)
        if self.lose_next:
            self.lose_next = False
            raise apsw.BusyError("the answer was lost")


class SqliteHarness:
    lacks: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self._path = folder / "waypost.db"
        self._store: _Store | None = None
        self._table: EmbeddedTable | None = None

    async def open(self) -> Table:
        self._store = _Store(self._path)
        self._table = EmbeddedTable(self._store, strict=True)
        return self._table

    async def crash(self) -> Table:
        self.close()
        return await self.open()

    def blobs(self) -> Blobs:
        return FolderBlobs(self._path.parent / "blobs")

    def hold_commits(self) -> None:
        self.release(0)

    def release(self, commits: int | None = None) -> None:
        assert self._store
        with self._store.gate:
            self._store.may_pass = commits
            self._store.gate.notify()

    def fail_next_commit(self) -> None:
        assert self._store
        self._store.fail_next = True

    def lose_next_answer(self) -> None:
        assert self._store
        self._store.lose_next = True

    async def expire(self, now_s: int, limit: int = 1000) -> int:
        assert self._table
        return await self._table.expire(now_s, limit)

    def close(self) -> None:
        if self._store:
            with self._store.gate:
                self._store.dead = True
                self._store.gate.notify()
            self._store.close()


async def started(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Tasks that have come as far as they can by themselves."""
    tasks = [asyncio.create_task(one) for one in work]
    await turns()
    return tasks


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
