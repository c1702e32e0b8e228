"""A disk that is full, a file that is read-only, locked or damaged: a clear word, and nothing half done."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from engines.vfs import Fault, Operation, TestVfs
from waypost.core.ports import Change, Key, Put, Unavailable
from waypost.engines.embedded import sqlite
from waypost.engines.embedded.sqlite import SqliteStore, StoreError
from waypost.engines.embedded.table import EmbeddedTable, Row


def item(sk: str, n: int = 0, size: int = 0) -> dict[str, Any]:
    return {"pk": "p", "sk": sk, "n": n, "data": b"x" * size}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "waypost.db"


@pytest.fixture
def vfs(request: pytest.FixtureRequest) -> Iterator[TestVfs]:
    vfs = TestVfs(request.node.name)
    yield vfs
    vfs.unregister()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_WRITE_BUSY_MS", 1)
    monkeypatch.setattr(sqlite, "_READ_BUSY_MS", 1)


async def stored(table: EmbeddedTable) -> dict[str, int]:
    return {one["sk"]: one["n"] for one in (await table.query("p")).items}


def reopened(path: Path) -> dict[str, int]:
    async def look() -> dict[str, int]:
        return await stored(EmbeddedTable(store))

    store = SqliteStore(path)
    try:
        return asyncio.run(look())
    finally:
        store.close()


def fails(error: type[apsw.Error], operation: Operation, suffix: str) -> Fault:
    def fault(reached: Operation, path: str) -> None:
        if reached == operation and path.endswith(suffix):
            raise error("injected")

    return fault


# While it runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "operation"),
    [(apsw.FullError, "write"), (apsw.IOError, "write"), (apsw.IOError, "sync"), (apsw.FullError, "sync")],
)
def test_a_commit_that_fails_is_told_and_the_next_works(
    path: Path, vfs: TestVfs, error: type[apsw.Error], operation: Operation
) -> None:
    async def story() -> dict[str, int]:
        store = SqliteStore(path, vfs=vfs.name)
        table = EmbeddedTable(store)
        await table.write_many([Put(item("a", 1)), Put(item("b", 1))])
        vfs.fault = fails(error, operation, "-wal")
        for n in range(5):
            pair = [Change(Key("p", sk), add={"n": 1}) for sk in "ab"]
            work = [table.write_together(pair), table.write(Put(item(f"new{n}", size=9_000)))]
            outcomes = await asyncio.gather(*work, return_exceptions=True)
            assert all(isinstance(one, Unavailable) and str(path) in str(one) for one in outcomes)
            assert await stored(table) == {"a": 1, "b": 1}
            assert (await table.get(Key("p", "a"))) == item("a", 1)
        vfs.fault = None
        await table.write_together([Change(Key("p", sk), add={"n": 10}) for sk in "ab"])
        found = await stored(table)
        await table.close()
        store.close()
        return found

    assert asyncio.run(story()) == {"a": 11, "b": 11} == reopened(path)


def test_a_full_disk_by_sqlites_own_count(path: Path) -> None:
    acknowledged: list[str] = []

    async def fill(table: EmbeddedTable, first: int, last: int) -> None:
        for n in range(first, last):
            pair = (f"{n:04} left", f"{n:04} right")
            await table.write_together([Put(item(sk, n, 3_000)) for sk in pair])
            acknowledged.extend(pair)

    async def story() -> None:
        store = SqliteStore(path)
        table = EmbeddedTable(store)
        store._writer.pragma("max_page_count", 60)
        with pytest.raises(Unavailable, match="full"):
            await fill(table, 0, 1000)
        assert acknowledged
        assert acknowledged == list(await stored(table))
        store._writer.pragma("max_page_count", 10_000)
        await fill(table, 1000, 1010)
        store.close()

    asyncio.run(story())
    assert acknowledged == list(reopened(path))


@pytest.mark.parametrize("operation", ["write", "sync", "truncate", "read"])
def test_a_copy_back_of_the_log_that_fails_loses_nothing(
    path: Path, vfs: TestVfs, monkeypatch: pytest.MonkeyPatch, operation: Operation
) -> None:
    monkeypatch.setattr(sqlite, "_CHECKPOINT_PAGES", 10)

    async def story() -> set[str]:
        store = SqliteStore(path, vfs=vfs.name)
        table = EmbeddedTable(store)
        vfs.fault = fails(apsw.IOError, operation, ".db")
        acknowledged = set()
        for n in range(40):
            if n == 30:
                vfs.fault = None
            try:
                await table.write(Put(item(f"{n}", n, 3_000)))
                acknowledged.add(f"{n}")
            except Unavailable:
                pass
        assert {f"{n}" for n in range(30, 40)} <= acknowledged
        store.close()
        return acknowledged

    acknowledged = asyncio.run(story())
    assert acknowledged <= set(reopened(path))


def test_reads_that_fail_are_unavailable_and_come_back(path: Path, vfs: TestVfs) -> None:
    async def story() -> None:
        store = SqliteStore(path, vfs=vfs.name)
        await EmbeddedTable(store).write(Put(item("a", 1)))
        table = EmbeddedTable(store)
        for error in (apsw.IOError, apsw.CorruptError):
            vfs.fault = fails(error, "read", "")
            for call in (table.get(Key("p", "a")), table.query("p"), table.get_many([Key("p", "a")])):
                with pytest.raises(Unavailable, match="cannot be read"):
                    await call
            with pytest.raises(Unavailable):
                await table.write(Change(Key("p", "a"), add={"n": 1}))
        vfs.fault = None
        assert await stored(table) == {"a": 1}
        await table.close()
        store.close()

    asyncio.run(story())


def test_a_file_locked_for_a_moment_only_delays(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other: list[apsw.Connection] = []

    class Store(SqliteStore):
        def _transact(self, rows: Sequence[Row]) -> None:
            try:
                super()._transact(rows)
            except apsw.BusyError:
                other[0].execute("COMMIT")
                raise

    async def story() -> None:
        store = Store(path)
        other.append(apsw.Connection(str(path)))
        other[0].execute("BEGIN IMMEDIATE")
        await EmbeddedTable(store).write(Put(item("a", 1)))
        other[0].close()
        store.close()

    asyncio.run(story())
    assert "is locked by another program" in caplog.text
    assert reopened(path) == {"a": 1}


def test_a_file_locked_for_long_is_unavailable_until_it_is_free(path: Path) -> None:
    async def story() -> None:
        store = SqliteStore(path)
        table = EmbeddedTable(store)
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(Unavailable, match="locked"):
                await table.write(Put(item("a", 1)))
        assert await stored(table) == {}
        other.execute("ROLLBACK")
        other.close()
        await table.write(Put(item("a", 2)))
        store.close()

    asyncio.run(story())
    assert reopened(path) == {"a": 2}


def test_after_a_commit_of_unknown_outcome_the_file_tells(path: Path) -> None:
    class Store(SqliteStore):
        def _transact(self, rows: Sequence[Row]) -> None:
            super()._transact(rows)
            if any(row.sk == "b" for row in rows):
                raise apsw.IOError("took effect all the same")

    async def story() -> None:
        store = Store(path)
        table = EmbeddedTable(store)
        await table.write(Put(item("a", 1)))
        with pytest.raises(Unavailable):
            await table.write_together([Put(item("a", 2)), Put(item("b", 2))])
        assert await table.get(Key("p", "a")) == item("a", 2)
        assert await stored(table) == {"a": 2, "b": 2}
        store.close()

    asyncio.run(story())


def test_a_closed_table_takes_no_more_and_keeps_what_it_took(path: Path) -> None:
    async def story() -> None:
        store = SqliteStore(path)
        table = EmbeddedTable(store)
        for n in range(50):
            await table.write(Put(item(f"{n:02}", n)), relaxed=True)
        await table.close()
        with pytest.raises(Unavailable, match="closed"):
            await table.write(Put(item("late")))
        store.close()
        store.close()

    asyncio.run(story())
    assert len(reopened(path)) == 50


# At the start --------------------------------------------------------------------------------------------------------


def filled(path: Path) -> None:
    async def fill() -> None:
        store = SqliteStore(path)
        await EmbeddedTable(store).write_many([Put(item(f"{n}", n, 300)) for n in range(100)])
        store.close()

    asyncio.run(fill())


def complaint(path: Path, **how: Any) -> str:
    with pytest.raises(StoreError) as refused:
        SqliteStore(path, **how)
    text = str(refused.value)
    assert "\n" not in text
    assert str(path.parent) in text
    # What refused to open holds nothing: neither the lock nor a file.
    lock = os.open(f"{path}.lock", os.O_RDWR) if Path(f"{path}.lock").exists() else None
    if lock is not None:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
    return text


def test_only_the_owner_may_read(path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(path)
        asyncio.run(EmbeddedTable(store).write(Put(item("a"))))
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert set(modes) == {"waypost.db", "waypost.db-wal", "waypost.db-shm", "waypost.db.lock"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_second_process_is_kept_out(path: Path) -> None:
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=f"another process serves {path.parent}"):
        SqliteStore(path)
    store.close()
    SqliteStore(path).close()


def test_a_file_that_is_no_database(path: Path) -> None:
    path.parent.mkdir()
    for junk in (b"hello\n" * 1000, os.urandom(8192)):
        path.write_bytes(junk)
        assert "damaged or no database" in complaint(path)
        assert path.read_bytes() == junk


def test_a_database_of_another_program(path: Path) -> None:
    path.parent.mkdir()
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    assert "belongs to another program" in complaint(path)


def test_a_database_of_a_newer_release(path: Path) -> None:
    filled(path)
    newer = apsw.Connection(str(path))
    newer.pragma("user_version", 99)
    newer.close()
    assert "newer Waypost" in complaint(path)


def read_all(path: Path) -> None:
    store = SqliteStore(path)

    async def read() -> None:
        table = EmbeddedTable(store)
        for n in range(100):
            assert await table.get(Key("p", f"{n}")) == item(f"{n}", n, 300)

    try:
        asyncio.run(read())
    finally:
        store.close()


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_database_is_noticed(path: Path, seed: int) -> None:
    """At the start, or by whoever reads the damaged page."""
    filled(path)
    read_all(path)
    data = bytearray(path.read_bytes())
    page = 4096
    for number in range(seed % 4, len(data) // page, 1 + seed):
        data[number * page : number * page + page] = bytes([seed * 31 + 1]) * page
    path.write_bytes(data)
    with pytest.raises((StoreError, Unavailable), match=r"damaged|malformed"):
        read_all(path)


def test_a_file_cut_short_is_noticed(path: Path) -> None:
    filled(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises((StoreError, Unavailable), match=r"damaged|malformed"):
        read_all(path)


def test_a_read_only_file(path: Path, vfs: TestVfs) -> None:
    filled(path)
    vfs.read_only = True
    assert "read-only" in complaint(path, vfs=vfs.name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(path: Path) -> None:
    path.parent.mkdir(mode=0o500)
    assert "permissions" in complaint(path)


def test_a_folder_that_is_a_file(path: Path) -> None:
    path.parent.write_text("")
    assert "cannot be opened" in complaint(path)


def test_a_folder_in_the_place_of_the_file(path: Path) -> None:
    path.mkdir(parents=True)
    assert "cannot be opened" in complaint(path)


def test_a_database_that_another_program_keeps_locked(path: Path) -> None:
    filled(path)
    other = apsw.Connection(str(path))
    other.pragma("locking_mode", "exclusive")
    other.execute("BEGIN EXCLUSIVE; COMMIT")
    assert "locked by another program" in complaint(path)
    other.close()
    assert len(reopened(path)) == 100


@pytest.mark.parametrize(("error", "text"), [(apsw.FullError, "is full"), (apsw.IOError, "check the disk")])
def test_a_disk_without_room_for_the_first_file(path: Path, vfs: TestVfs, error: type[apsw.Error], text: str) -> None:
    vfs.fault = fails(error, "write", "")
    assert text in complaint(path, vfs=vfs.name)
    assert reopened(path) == {}
