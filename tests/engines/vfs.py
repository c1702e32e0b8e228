"""A file system for SQLite, for tests: it forgets at a power cut what was not synced, and fails on demand."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import apsw

Operation = Literal["read", "write", "sync", "truncate", "lock"]
#: Gets the operation and the file's name, and raises what the operation shall fail with.
Fault = Callable[[Operation, str], None]

#: What a disk writes as a whole.
_SECTOR = 512


class _Durable:
    """A file as the disk would have it after a cut, and what was written to it since, in order."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        #: (offset, bytes), or (size, None) for a truncation.
        self.unsynced: list[tuple[int, bytes | None]] = []

    def sync(self) -> None:
        for change in self.unsynced:
            _apply(self.content, change)
        self.unsynced.clear()


class TestVfs(apsw.VFS):
    """Files lie on the real disk, which a running process sees; what is durable is kept apart in memory.

    Names are durable at once: SQLite syncs the folder when it makes a log.
    """

    __test__ = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.fault: Fault | None = None
        self.read_only = False
        #: After so many writes and syncs the power goes; None: never.
        self.cut_after: int | None = None
        self.operations = 0
        self.dead = False
        self.files: dict[str, _Durable] = {}
        self.lock = threading.RLock()
        super().__init__(name, "")

    def excepthook(self, *raised: Any) -> bool:
        """An injected fault is no news."""
        return True

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if not flags[0] & (apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL):
            return super().xOpen(name, flags)
        if self.read_only and flags[0] & apsw.SQLITE_OPEN_READWRITE:
            flags[0] ^= apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_READONLY
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        with self.lock:
            if path not in self.files:
                real = Path(path)
                self.files[path] = _Durable(real.read_bytes() if real.exists() else b"")
            return _File(self, path, name, flags)

    def xDelete(self, name: str, sync_folder: bool) -> None:
        with self.lock:
            self.reached("write", name)
            self.files.pop(name, None)
        super().xDelete(name, sync_folder)

    def reached(self, operation: Operation, path: str) -> None:
        """Raises if the operation must fail, which it does for ever once the power is gone."""
        if operation in ("write", "sync", "truncate"):
            self.operations += 1
            if self.cut_after is not None and self.operations > self.cut_after:
                self.dead = True
        if self.dead and operation != "lock":
            raise apsw.IOError("the power is gone")
        if self.fault:
            self.fault(operation, path)

    def after_the_cut(self, rng: random.Random | None = None) -> None:
        """Leaves on the real disk what a cut would have left: what was synced and, given a source of chance, some of
        what was not, whole or in part. Every connection must be closed."""
        for path, file in self.files.items():
            content = bytearray(file.content)
            for change in file.unsynced:
                if rng and rng.random() < 0.5:
                    _apply(content, _torn(change, rng))
            Path(path).write_bytes(content)
            Path(path + "-shm").unlink(missing_ok=True)


class _File(apsw.VFSFile):
    def __init__(self, vfs: TestVfs, path: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._vfs = vfs
        self._path = path
        self._durable = vfs.files[path]
        super().__init__("", name, flags)

    def excepthook(self, *raised: Any) -> bool:
        """An injected fault is no news."""
        return True

    def xRead(self, amount: int, offset: int) -> bytes:
        self._vfs.reached("read", self._path)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._vfs.lock:
            self._vfs.reached("write", self._path)
            super().xWrite(data, offset)
            self._durable.unsynced.append((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        with self._vfs.lock:
            self._vfs.reached("truncate", self._path)
            super().xTruncate(size)
            self._durable.unsynced.append((size, None))

    def xSync(self, flags: int) -> None:
        with self._vfs.lock:
            self._vfs.reached("sync", self._path)
            self._durable.sync()

    def xLock(self, level: int) -> None:
        self._vfs.reached("lock", self._path)
        super().xLock(level)


def _apply(content: bytearray, change: tuple[int, bytes | None]) -> None:
    offset, data = change
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _torn(change: tuple[int, bytes | None], rng: random.Random) -> tuple[int, bytes | None]:
    offset, data = change
    if data is None or rng.random() < 0.7:
        return change
    return offset, data[: rng.randrange(0, len(data) + 1, _SECTOR)]
