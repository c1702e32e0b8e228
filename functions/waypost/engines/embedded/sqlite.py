"""A store of rows in one SQLite file: one writer thread, reads on the loop's thread by a connection of their own."""

from __future__ import annotations

import asyncio
import bisect
import fcntl
import functools
import itertools
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import apsw

from waypost.core.ports import Key, Unavailable
from waypost.engines.embedded.durable import sync_folder
from waypost.engines.embedded.table import Row

_log = logging.getLogger("waypost.store")

_VERSION = 1
# `ttl` stands before `item`: whoever looks for it need not walk through the pages of a long item.
#
# The index on `ttl` costs 1.5 of the 8 microseconds that a row takes the writer thread. Without it, finding what is
# expired reads the whole file, however little of it is expired. Times to live grow with the clock, so nearly all of the
# index's writes meet its last page, which the group writes anyway; rounding to days made that no cheaper.
_SCHEMA = f"""
CREATE TABLE items (pk TEXT NOT NULL, sk TEXT NOT NULL, ttl INTEGER, item BLOB NOT NULL, PRIMARY KEY (pk, sk))
WITHOUT ROWID;
CREATE INDEX items_by_ttl ON items (ttl) WHERE ttl IS NOT NULL;
PRAGMA user_version = {_VERSION};
"""

# The columns in the order of a `Row`.
_PUT = "REPLACE INTO items (pk, sk, item, ttl) VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM items WHERE pk = ? AND sk = ?"
_GET = "SELECT item FROM items WHERE pk = ? AND sk = ?"
_QUERY = "SELECT sk, item FROM items WHERE pk = ? AND sk BETWEEN ? AND ? ORDER BY sk LIMIT ?"
_QUERY_NEWEST = "SELECT sk, item FROM items WHERE pk = ? AND sk BETWEEN ? AND ? ORDER BY sk DESC LIMIT ?"
_EXPIRED = "SELECT pk, sk FROM items WHERE ttl <= ? ORDER BY ttl LIMIT ?"

#: A message is one to three kilobytes: several to a page, or each group writes more pages than messages.
_PAGE = 8_192
#: Copying the log back costs two fsyncs and one write of each page changed since, so the rarer the better; 2,000 pages
#: are 16 MB of log, read in milliseconds at the next start.
_CHECKPOINT_PAGES = 2_000
_LOG_BYTES = 64 * 1024 * 1024
_CACHE_KIB = 16 * 1024
#: So many rows a statement writes: few sizes, so that each is compiled once.
_SIZES = sorted({size for power in range(9) for size in (1 << power, 3 << power >> 1)})

#: Another program may hold the file for a moment: a backup, a shell. The loop's thread cannot wait long.
_WRITE_BUSY_MS = 1_000
_READ_BUSY_MS = 50
_BUSY_TRIES = 5

_Done: TypeAlias = Callable[[BaseException | None], None]
_Job: TypeAlias = tuple[Sequence[Row], _Done, asyncio.AbstractEventLoop]


class StoreError(Exception):
    """The store cannot be opened. The text is one sentence for whoever runs the service."""


@functools.cache
def _put(count: int) -> str:
    """The statement that writes so many rows."""
    return _PUT + ", (?, ?, ?, ?)" * (count - 1)


def _filled(rows: list[Row]) -> list[Row]:
    """As many rows as the next larger statement takes: writing the last one again changes nothing."""
    size = _SIZES[bisect.bisect_left(_SIZES, len(rows))]
    return rows + rows[-1:] * (size - len(rows))


class SqliteStore:
    """table.Store over one file. `synchronous` below FULL loses acknowledged groups in a power cut."""

    def __init__(self, path: Path, *, vfs: str | None = None, synchronous: str = "FULL") -> None:
        """Raises StoreError."""
        self._path = path
        self._lock = _make_files(path)
        try:
            self._writer = _connect(path, vfs, apsw.SQLITE_OPEN_READWRITE, _WRITE_BUSY_MS)
            _prepare(self._writer, path, synchronous)
            self._reader = _connect(path, vfs, apsw.SQLITE_OPEN_READONLY, _READ_BUSY_MS)
            self._reader.execute(_GET, ("", "")).fetchall()
        except BaseException as error:
            self._close_files()
            if isinstance(error, (apsw.Error, OSError)):
                raise StoreError(_advice(path, error)) from error
            raise
        self._read = self._reader.cursor().execute
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="waypost-store", daemon=True)
        self._thread.start()

    # Reads -----------------------------------------------------------------------------------------------------------

    def get(self, key: Key) -> bytes | None:
        rows = self._rows(_GET, key)
        return rows[0][0] if rows else None

    def query(self, pk: str, first: str, last: str, limit: int, newest_first: bool) -> list[tuple[str, bytes]]:
        return self._rows(_QUERY_NEWEST if newest_first else _QUERY, (pk, first, last, limit))

    def expired(self, before_s: int, limit: int) -> list[Key]:
        return [Key(*row) for row in self._rows(_EXPIRED, (before_s, limit))]

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            # To the last row: a statement left open would hold on to its snapshot.
            return self._read(statement, values).fetchall()
        except apsw.Error as error:
            raise Unavailable(f"{self._path} cannot be read: {error}") from error

    # Writes, on the writer's thread ----------------------------------------------------------------------------------

    def commit(self, rows: Sequence[Row], done: _Done) -> None:
        self._jobs.put((rows, done, asyncio.get_running_loop()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            rows, done, loop = job
            error = self._write(rows)
            try:
                loop.call_soon_threadsafe(done, error)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

    def _write(self, rows: Sequence[Row]) -> BaseException | None:
        tries = 1
        while True:
            try:
                self._transact(rows)
                return None
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
                failed = error
            finally:
                self._rollback()
            if not isinstance(failed, (apsw.BusyError, apsw.LockedError)) or tries == _BUSY_TRIES:
                break
            # Rows are absolute values: should the commit have taken effect all the same, repeating it changes nothing.
            tries += 1
            _log.warning("%s is locked by another program, try %d of %d", self._path, tries, _BUSY_TRIES)
        _log.error("a commit to %s failed: %s", self._path, failed)
        return Unavailable(f"{self._path} cannot be written: {failed}")

    def _transact(self, rows: Sequence[Row]) -> None:
        puts = [row for row in rows if row.item is not None]
        writer = self._writer
        if len(puts) == len(rows) <= _SIZES[-1]:
            # One statement, which is a transaction of its own: each call gives up the interpreter's lock, and getting
            # it back from a busy event loop takes longer than many rows.
            self._write_block(puts)
            return
        writer.execute("BEGIN IMMEDIATE")
        for start in range(0, len(puts), _SIZES[-1]):
            self._write_block(puts[start : start + _SIZES[-1]])
        writer.executemany(_DELETE, [row[:2] for row in rows if row.item is None])
        writer.execute("COMMIT")

    def _write_block(self, rows: list[Row]) -> None:
        rows = _filled(rows)
        self._writer.execute(_put(len(rows)), tuple(itertools.chain.from_iterable(rows)))

    def _rollback(self) -> None:
        """Leaves the connection fit for the next group. SQLite ends some failed transactions by itself, not all."""
        if self._writer.in_transaction:
            try:
                self._writer.execute("ROLLBACK")
            except apsw.Error as error:
                _log.error("a rollback of %s failed: %s", self._path, error)

    # -----------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Commits what was handed over, then lets go of the file. May be called twice."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
        self._close_files()

    def _close_files(self) -> None:
        # The writer last: only it may copy the log back.
        for name in ("_reader", "_writer"):
            connection = getattr(self, name, None)
            if connection is not None:
                try:
                    connection.close()
                except apsw.Error as error:
                    _log.warning("closing %s: %s", self._path, error)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


# Opening -------------------------------------------------------------------------------------------------------------


def _make_files(path: Path) -> int:
    """Makes the folder and the file where they are missing; returns the lock, held until it is closed."""
    folder = path.parent
    lock = -1
    try:
        _make_folder(folder)
        # Closed on exec, so that no child keeps the lock. flock, not lockf: it also keeps out a second store in here.
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Made here and not by SQLite, for the mode, which SQLite gives to the files beside it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        sync_folder(folder)
    except OSError as error:
        if lock >= 0:
            os.close(lock)
        if isinstance(error, BlockingIOError):
            raise StoreError(
                f"another process serves {folder}: stop it, or give this one a folder of its own (WAYPOST_DATA)"
            ) from error
        raise StoreError(f"{path} cannot be opened: {error.strerror}; check the folder and its permissions") from error
    return lock


def _connect(path: Path, vfs: str | None, flags: int, busy_ms: int) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs)
    connection.set_busy_timeout(busy_ms)
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def _prepare(writer: apsw.Connection, path: Path, synchronous: str) -> None:
    if writer.readonly("main"):
        raise StoreError(f"{path} is read-only: give its user the right to write")
    version = writer.pragma("user_version")
    if version > _VERSION:
        raise StoreError(f"{path} was written by a newer Waypost (format {version}, this one knows {_VERSION}): update")
    empty = not writer.execute("SELECT 1 FROM sqlite_schema").fetchall()
    if version == 0 and not empty:
        raise StoreError(f"{path} belongs to another program: move it away")
    writer.pragma("page_size", _PAGE)
    if writer.pragma("journal_mode", "wal") != "wal":
        raise StoreError(f"{path} cannot have a write-ahead log there: use a local disk")
    writer.pragma("synchronous", synchronous)
    writer.pragma("wal_autocheckpoint", _CHECKPOINT_PAGES)
    writer.pragma("journal_size_limit", _LOG_BYTES)
    if empty:
        with writer:
            writer.execute(_SCHEMA)


def _make_folder(folder: Path) -> None:
    """A folder that holds other things than ours keeps its mode."""
    if folder.is_dir():
        if (folder / "waypost.db").exists() or not any(folder.iterdir()):
            folder.chmod(0o700)
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def _advice(path: Path, error: Exception) -> str:
    if isinstance(error, (apsw.NotADBError, apsw.CorruptError)):
        return f"{path} is damaged or no database ({error}): restore it from a backup, or move it away to begin anew"
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return f"{path} is locked by another program: end that one ({error})"
    if isinstance(error, (apsw.ReadOnlyError, apsw.PermissionsError)):
        return f"{path} is read-only: give its user the right to write ({error})"
    if isinstance(error, apsw.FullError):
        return f"the disk of {path} is full: make room ({error})"
    return f"{path} cannot be opened: {error}; check the disk, the folder and its permissions"
