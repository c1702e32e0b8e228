"""What bells and reminders speak of besides messages. Each kind has names that begin with a word of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Errand(Protocol):
    async def wake_at(self, account: str, name: str) -> int | None:
        """When there is next something to do; None: there never is again. Strongly consistent."""
        ...

    async def run(self, account: str, name: str) -> str | None:
        """Does what is due, and rings for what it leaves. Returns what the operator should know; None: nothing."""
        ...


class Errands:
    def __init__(self, kinds: Mapping[str, Errand]) -> None:
        """By the words that names begin with, up to their first `_`."""
        self._kinds = kinds

    def of(self, name: str) -> Errand | None:
        """None: it is no errand's name, so it is a message's."""
        return self._kinds.get(name.partition("_")[0])
