"""What was acknowledged outlives a power cut and a kill, at whatever moment it comes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engines.vfs import TestVfs
from waypost.core.ports import Change, Key, Put, Unavailable
from waypost.engines.embedded import sqlite
from waypost.engines.embedded.sqlite import SqliteStore
from waypost.engines.embedded.table import EmbeddedTable

WRITERS = 6
ROUNDS = 15
#: More writes and syncs than a whole run makes; what is drawn beyond the end cuts a machine at rest.
OPERATIONS = 300


def item(sk: str, n: int, size: int = 0) -> dict[str, Any]:
    return {"pk": "p", "sk": sk, "n": n, "data": b"x" * size}


async def write_until_the_cut(path: Path, vfs: TestVfs, synchronous: str, rng: random.Random) -> list[int]:
    """Each writer counts up in a relaxed row, then in two rows together; returns how far each was acknowledged."""
    acknowledged = [0] * WRITERS
    try:
        store = SqliteStore(path, vfs=vfs.name, synchronous=synchronous)
    except sqlite.StoreError:
        return acknowledged
    table = EmbeddedTable(store)

    async def count(writer: int) -> None:
        for n in range(1, ROUNDS + 1):
            size = rng.choice((10, 600, 600, 9_000))
            await table.write(Put(item(f"{writer} relaxed", n)), relaxed=True)
            await table.write_together(
                [Put(item(f"{writer} left", n, size)), Change(Key("p", f"{writer} right"), add={"n": 1})]
            )
            acknowledged[writer] = n

    await asyncio.gather(*[count(writer) for writer in range(WRITERS)], return_exceptions=True)
    store.close()
    return acknowledged


async def standing(path: Path, vfs: str | None = None) -> dict[str, int]:
    store = SqliteStore(path, vfs=vfs)
    table = EmbeddedTable(store)
    found = {one["sk"]: one["n"] for one in (await table.query("p")).items}
    # The file must also be fit to go on with.
    await table.write(Put(item("after", 1)))
    await table.close()
    store.close()
    return found


def cut_once(folder: Path, seed: int, synchronous: str) -> list[str]:
    """One run and one cut; returns what is wrong with what is left."""
    rng = random.Random(seed)
    path = folder / str(seed) / "waypost.db"
    vfs = TestVfs(f"cut-{synchronous}-{seed}")
    try:
        vfs.cut_after = rng.randrange(OPERATIONS)
        acknowledged = asyncio.run(write_until_the_cut(path, vfs, synchronous, rng))
        vfs.after_the_cut(rng if seed % 2 else None)
    finally:
        vfs.unregister()
    found = asyncio.run(standing(path))
    wrong = []
    for writer, promised in enumerate(acknowledged):
        left, right, relaxed = (found.get(f"{writer} {name}", 0) for name in ("left", "right", "relaxed"))
        if left < promised:
            wrong.append(f"lost: {promised} was acknowledged, {left} is there")
        if left != right:
            wrong.append(f"torn: {left} and {right} were written together")
        if relaxed < left:
            wrong.append(f"out of order: {left} was decided after {relaxed}")
    return wrong


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that cuts meet checkpoints and logs begun anew, too."""
    monkeypatch.setattr(sqlite, "_CHECKPOINT_PAGES", 30)


@pytest.mark.parametrize("seed", range(60))
def test_nothing_acknowledged_is_lost_in_a_power_cut(tmp_path: Path, seed: int) -> None:
    assert cut_once(tmp_path, seed, "FULL") == []


def test_the_power_cut_finds_what_a_weaker_setting_loses(tmp_path: Path) -> None:
    found = [wrong for seed in range(20) for wrong in cut_once(tmp_path, seed, "NORMAL")]
    assert any(one.startswith("lost") for one in found)
    # It gives up durability, not atomicity nor order.
    assert all(one.startswith("lost") for one in found)


def test_a_whole_run_has_moments_to_cut_in(tmp_path: Path) -> None:
    """Else the cuts above would all meet a machine at rest."""
    vfs = TestVfs("uncut")
    acknowledged = asyncio.run(write_until_the_cut(tmp_path / "waypost.db", vfs, "FULL", random.Random(0)))
    vfs.unregister()
    assert acknowledged == [ROUNDS] * WRITERS
    assert OPERATIONS / 3 < vfs.operations < OPERATIONS * 2


CHILD = """
import asyncio, sys
from pathlib import Path
from waypost.core.ports import Put
from waypost.engines.embedded.sqlite import SqliteStore
from waypost.engines.embedded.table import EmbeddedTable

async def main():
    table = EmbeddedTable(SqliteStore(Path(sys.argv[1])))
    async def count(writer):
        for n in range(1, 1_000_000):
            await table.write(Put({"pk": "p", "sk": str(writer), "n": n}))
            print(writer, n, flush=True)
    await asyncio.gather(*[count(writer) for writer in range(5)])

asyncio.run(main())
"""


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "waypost.db"
    acknowledged = dict.fromkeys("01234", 0)
    for lines in (1, 50, 333):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert child.stdout
        with child.stdout:
            heard = [child.stdout.readline() for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
            heard += child.stdout.readlines()
        child.wait()
        acknowledged |= {writer: int(n) for writer, n in (line.split() for line in heard if line.endswith("\n"))}
        found = asyncio.run(standing(path))
        assert all(found.get(writer, 0) >= n for writer, n in acknowledged.items())


async def _refused(table: EmbeddedTable) -> bool:
    try:
        await table.write(Put(item("x", 1)))
    except Unavailable:
        return True
    return False


def test_after_the_cut_nobody_is_told_of_success(tmp_path: Path) -> None:
    async def story() -> None:
        vfs = TestVfs("dead")
        store = SqliteStore(tmp_path / "waypost.db", vfs=vfs.name)
        table = EmbeddedTable(store)
        vfs.dead = True
        assert [await _refused(table) for _ in range(3)] == [True] * 3
        store.close()
        vfs.unregister()

    asyncio.run(story())
