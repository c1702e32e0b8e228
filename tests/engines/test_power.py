"""Power cuts: everything acknowledged is there afterwards, whatever else did or did not reach the disk."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from engines.vfs import power_vfs
from waypost.core.ports import Key, Put, Unavailable
from waypost.engines.embedded.sqlite import SqliteStore
from waypost.engines.embedded.table import EmbeddedTable


def lost_in_a_cut(folder: Path, seed: int, synchronous: str) -> list[str]:
    """Writes from several tasks until the power fails at an operation drawn from the seed; says what was lost."""
    rng = random.Random(seed)
    path = folder / str(seed) / "waypost.db"
    acknowledged: dict[str, int] = {}
    torn: list[str] = []

    async def work(table: EmbeddedTable) -> None:
        async def one(name: str) -> None:
            try:
                for number in range(40):
                    await table.write(Put({"pk": "p", "sk": name, "n": number, "pad": "x" * rng.randrange(600)}))
                    acknowledged[name] = number
                    pair = [Put({"pk": "pair", "sk": f"{name}{half}", "n": number}) for half in "ab"]
                    await table.write_together(pair)
            except Unavailable:
                return

        await asyncio.gather(*(one(f"t{number}") for number in range(4)))

    with power_vfs() as vfs:
        store = SqliteStore(path, vfs=vfs.name, synchronous=synchronous)
        vfs.fail_at = vfs.operations + rng.randrange(1, 300)
        asyncio.run(work(EmbeddedTable(store)))
        store.close()
        vfs.cut(rng if seed % 2 else None)
    store = SqliteStore(path)
    table = EmbeddedTable(store)

    async def check() -> list[str]:
        missing = []
        for name, number in acknowledged.items():
            item = await table.get(Key("p", name))
            if item is None or item["n"] < number:
                missing.append(f"{name}: acknowledged {number}, found {item and item['n']}")
            halves = [await table.get(Key("pair", f"{name}{half}")) for half in "ab"]
            if len({half and half["n"] for half in halves}) > 1:
                torn.append(f"{name}: half a transaction: {halves}")
        return missing

    try:
        return asyncio.run(check()) + torn
    finally:
        store.close()


def test_nothing_acknowledged_is_lost_in_a_power_cut(tmp_path: Path) -> None:
    lost = {seed: found for seed in range(60) if (found := lost_in_a_cut(tmp_path, seed, "FULL"))}
    assert lost == {}


def test_a_store_that_does_not_sync_each_commit_would_lose(tmp_path: Path) -> None:
    assert any(lost_in_a_cut(tmp_path, seed, "NORMAL") for seed in range(20))
