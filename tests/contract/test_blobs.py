"""What a blob store must do."""

from __future__ import annotations

import asyncio
import os
import stat
from datetime import date
from pathlib import Path

import pytest

from contract.harness import Harness
from waypost.core.ports import Unavailable
from waypost.engines.embedded.blobs import FolderBlobs

NAME = "30/20260101/acct/0123abcd"


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


async def test_a_blob_comes_back_as_it_went(engine: Harness) -> None:
    blobs = engine.blobs()
    assert await blobs.get(NAME) is None
    for data in (b"", bytes(range(256)) * 5_000):
        await blobs.put(NAME, data)
        assert await blobs.get(NAME) == data
        assert await engine.blobs().get(NAME) == data


async def test_many_at_once(engine: Harness) -> None:
    blobs = engine.blobs()
    names = [f"30/2026010{n % 9 + 1}/acct{n % 3}/{n}" for n in range(60)]
    await asyncio.gather(*[blobs.put(name, name.encode()) for name in names])
    assert await asyncio.gather(*[blobs.get(name) for name in names]) == [name.encode() for name in names]


async def test_racing_puts_of_one_name_leave_one_whole_blob(engine: Harness) -> None:
    blobs = engine.blobs()
    await asyncio.gather(*[blobs.put(NAME, bytes([n]) * 100_000) for n in range(20)])
    data = await blobs.get(NAME)
    assert data is not None
    assert len(data) == 100_000
    assert len(set(data)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        "30",
        "30/20260101",
        "30/20260101/",
        "30/20260101//x",
        "30/20260101/../../../x",
        "30/20260101/.",
        "30/20260101/a/..",
        "/30/20260101/x",
        "../20260101/x",
        "0/20260101/x",
        "30/2026010/x",
        "30/20261301/x",
        "30/today/x",
        "x/20260101/x",
        "30/20260101/a\0b",
        "30/20260101/a\\b",
        "30/20260101/x\n/",
        "30/20260101/" + "x" * 300,
    ],
)
async def test_names_that_lead_elsewhere_are_refused(engine: Harness, tmp_path: Path, name: str) -> None:
    blobs = engine.blobs()
    with pytest.raises(ValueError, match="names no blob"):
        await blobs.put(name, b"x")
    with pytest.raises(ValueError, match="names no blob"):
        await blobs.get(name)
    assert not list(tmp_path.rglob("*"))


async def test_days_go_when_their_class_has_passed(blobs: FolderBlobs, tmp_path: Path) -> None:
    names = ["30/20260101/a/x", "30/20260102/a/x", "120/20260101/a/x", "400/20250101/a/x"]
    for name in names:
        await blobs.put(name, b"x")
    foreign = tmp_path / "blobs" / "lost+found" / "20200101"
    foreign.mkdir(parents=True)

    async def left() -> list[str]:
        return [name for name in names if await blobs.get(name) is not None]

    await blobs.expire(date(2026, 2, 1))  # 30 days and the margin of one after January 1
    assert await left() == names
    await blobs.expire(date(2026, 2, 2))
    assert await left() == names[1:]
    await blobs.expire(date(2026, 2, 8))  # 400 + 3 days after January 1, 2025
    assert await left() == names[2:3]
    assert foreign.is_dir()


async def test_only_the_owner_may_read(blobs: FolderBlobs, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await blobs.put(NAME, b"x")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "blobs", *(tmp_path / "blobs").rglob("*"))}
    assert set(modes.values()) == {0o600, 0o700}
    assert modes[tmp_path / "blobs" / NAME] == 0o600


async def test_a_put_that_fails_leaves_the_old_blob_and_no_litter(
    blobs: FolderBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await blobs.put(NAME, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left"):
            await blobs.put(NAME, b"new")
    assert await blobs.get(NAME) == b"old"
    assert [path.name for path in (tmp_path / "blobs" / NAME).parent.iterdir()] == ["0123abcd"]
    await blobs.put(NAME, b"new")
    assert await blobs.get(NAME) == b"new"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="tells files by /proc, which this system lacks")
async def test_a_blob_and_all_the_folders_above_are_synced(
    blobs: FolderBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def watch(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").resolve())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    await blobs.put(NAME, b"x")
    folder = (tmp_path / "blobs" / NAME).parent
    names = [path.parent if path.suffix == ".part" else path for path in synced]
    assert names == [tmp_path, *list(folder.parents)[:3][::-1], folder, folder]
