"""Unpredictable bytes from the operating system, fetched by the page: a call for each id costs more than the id."""

from __future__ import annotations

import os

_PAGE = 4096


class SystemRandomness:
    def __init__(self) -> None:
        self._page = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        if self._at + count > len(self._page):
            self._page, self._at = os.urandom(max(_PAGE, count)), 0
        start, self._at = self._at, self._at + count
        return self._page[start : self._at]
