"""Disks full, read-only, locked or damaged: a clear error, nothing acknowledged and then lost, and on it goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

from engines.vfs import power_vfs
from support import PUBLISH, Desk
from waypost.core.ports import Key, Put, Unavailable
from waypost.engines.embedded.sqlite import SqliteStore, StoreError
from waypost.engines.embedded.table import EmbeddedTable


def put(name: str, size: int = 10) -> Put:
    return Put({"pk": "p", "sk": name, "pad": "x" * size})


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError, apsw.ReadOnlyError])
def test_a_disk_that_fails_and_comes_back_loses_nothing(tmp_path: Path, error: type[apsw.Error]) -> None:
    async def test(table: EmbeddedTable) -> None:
        await table.write(put("before"))
        vfs.error, vfs.fail_at = error, 0
        with pytest.raises(Unavailable, match=r"waypost\.db"):
            await table.write(put("during"))
        with pytest.raises(Unavailable):
            await table.write_together([put("a"), put("b")])
        assert await table.get(Key("p", "during")) is None
        assert await table.get(Key("p", "before"))
        vfs.fail_at = None
        await table.write(put("after"))

    with power_vfs() as vfs:
        store = SqliteStore(tmp_path / "data" / "waypost.db", vfs=vfs.name)
        asyncio.run(test(EmbeddedTable(store)))
        store.close()
    store = SqliteStore(tmp_path / "data" / "waypost.db")
    assert [sk for sk, _ in store.query("p", "", "~", 10, False)] == ["after", "before"]
    store.close()


def test_a_publisher_on_a_full_disk_gets_a_503_and_no_message(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.open()
        writer = desk.store._writer
        pages = writer.pragma("page_count")
        writer.pragma("max_page_count", pages)
        body = bytes(range(256)) * 30
        replies = [await desk.call("POST", PUBLISH, {"Upstash-Deduplication-Id": f"d{n}"}, body) for n in range(40)]
        refused = [reply for reply in replies if reply.status == 503]
        assert refused
        assert "full" in refused[0].content["error"]
        writer.pragma("max_page_count", pages * 1000)
        again = [await desk.call("POST", PUBLISH, {"Upstash-Deduplication-Id": f"d{n}"}, body) for n in range(40)]
        assert all(reply.status in (201, 202) for reply in again)
        for before, after in zip(replies, again, strict=True):
            if before.status == 201:
                assert before.content["messageId"] == after.content["messageId"]
        while await desk.deliver():
            pass
        assert len(desk.sender.sent) == 40

    desk = Desk(tmp_path)
    try:
        asyncio.run(test(desk))
    finally:
        desk.store.close()


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "waypost.db")
    with pytest.raises(StoreError, match=str(tmp_path)):
        SqliteStore(tmp_path / "waypost.db")
    store.close()
    SqliteStore(tmp_path / "waypost.db").close()


@pytest.mark.parametrize("content", [b"not a database" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_said_to_be_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "waypost.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"waypost\.db"):
        SqliteStore(tmp_path / "waypost.db")
    assert (tmp_path / "waypost.db").read_bytes() == content


def test_a_file_locked_by_another_program_is_an_error_not_a_wait_for_ever(tmp_path: Path) -> None:
    async def test(table: EmbeddedTable) -> None:
        await table.write(put("before"))
        other = apsw.Connection(str(tmp_path / "waypost.db"))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await table.write(put("during"))
        other.execute("ROLLBACK")
        other.close()
        await table.write(put("after"))

    store = SqliteStore(tmp_path / "waypost.db")
    asyncio.run(test(EmbeddedTable(store)))
    store.close()


def test_only_its_owner_may_read_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    store = SqliteStore(folder / "waypost.db")
    asyncio.run(EmbeddedTable(store).write(put("a")))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    store.close()
