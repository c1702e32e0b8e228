"""A SQLite file system whose power can fail: what was not synced is kept apart, and lost with the power."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

_names = itertools.count()


class PowerVfs(apsw.VFS):
    """Counts writes and syncs; from the `fail_at`-th on each fails, as if there were no disk (any more)."""

    def __init__(self) -> None:
        self.name = f"power{next(_names)}"
        self.operations = 0
        self.fail_at: int | None = None
        self.error: type[apsw.Error] = apsw.IOError
        #: By path: the content as of the last sync, and what was done since.
        self.synced: dict[str, bytearray] = {}
        self.unsynced: dict[str, list[tuple[int, bytes | None]]] = {}
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> PowerFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        return PowerFile(self, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.step()
        super().xDelete(filename, syncdir)
        self.synced.pop(filename, None)
        self.unsynced.pop(filename, None)

    def step(self) -> None:
        self.operations += 1
        if self.fail_at is not None and self.operations >= self.fail_at:
            raise self.error("the power is off")

    def cut(self, rng: random.Random | None = None) -> None:
        """Leaves each file as of its last sync; with `rng`, some of the later writes reached the disk all the same."""
        for path, content in self.synced.items():
            kept = bytearray(content)
            for at, data in self.unsynced[path]:
                if rng and rng.random() < 0.5:
                    _apply(kept, at, data)
            Path(path).write_bytes(kept)
        for path in list(self.synced):
            Path(path + "-shm").unlink(missing_ok=True)


class PowerFile(apsw.VFSFile):
    def __init__(self, vfs: PowerVfs, path: str, name: Any, flags: list[int]) -> None:
        self._vfs, self._path = vfs, path
        if path not in vfs.synced:
            there = Path(path)
            vfs.synced[path] = bytearray(there.read_bytes() if there.exists() else b"")
            vfs.unsynced[path] = []
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._vfs.step()
        self._vfs.unsynced[self._path].append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._vfs.step()
        self._vfs.unsynced[self._path].append((size, None))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        self._vfs.step()
        super().xSync(flags)
        for at, data in self._vfs.unsynced[self._path]:
            _apply(self._vfs.synced[self._path], at, data)
        self._vfs.unsynced[self._path].clear()


def _apply(content: bytearray, at: int, data: bytes | None) -> None:
    """A write at an offset, or, without data, a cut to a size."""
    if data is None:
        del content[at:]
        return
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


@contextmanager
def power_vfs() -> Iterator[PowerVfs]:
    vfs = PowerVfs()
    try:
        yield vfs
    finally:
        vfs.unregister()
