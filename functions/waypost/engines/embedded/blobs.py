"""Blobs as files: `<class days>/<yyyymmdd>/<rest>` under one folder, dropped a day's folder at a time."""

from __future__ import annotations

import asyncio
import re
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from waypost.core.ports import Unavailable
from waypost.engines.embedded.durable import sync_folder, write_whole
from waypost.engines.limits import check_blob_name

_CLASS = "[1-9][0-9]{0,4}"
#: Clocks of the writer and of the sweep may be a day apart at midnight.
_MARGIN_DAYS = 1


class FolderBlobs:
    """ports.Blobs. Files are 0600, folders 0700."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, name: str, data: bytes) -> None:
        """Durable on return. Raises ValueError for a name that is none, Unavailable if it cannot be written."""
        path = self._path(name)
        try:
            await asyncio.to_thread(self._write, path, data)
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror}") from error

    async def get(self, name: str) -> bytes | None:
        path = self._path(name)
        try:
            return await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error

    async def expire(self, today: date) -> None:
        """Drops the days that are older than their class keeps them."""
        try:
            await asyncio.to_thread(self._expire, today)
        except OSError as error:
            raise Unavailable(f"{self._root} cannot be cleared: {error}") from error

    def _path(self, name: str) -> Path:
        check_blob_name(name)
        return self._root.joinpath(*name.split("/"))

    def _write(self, path: Path, data: bytes) -> None:
        self._make_folder(path.parent)
        write_whole(path, data)

    def _make_folder(self, folder: Path) -> None:
        """Every new folder is durable in the one above it before anything is put into it."""
        if folder.is_dir():
            return
        if folder != self._root:
            self._make_folder(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
        else:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)

    def _expire(self, today: date) -> None:
        for kept in sorted(self._root.glob("*/*")):
            days, day = kept.parent.name, _day(kept.name)
            if day is None or not re.fullmatch(_CLASS, days):
                continue  # nothing of ours
            if day + timedelta(days=int(days) + _MARGIN_DAYS) < today:
                shutil.rmtree(kept)


def _day(text: str) -> date | None:
    if not re.fullmatch("[0-9]{8}", text):
        return None
    try:
        return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None
