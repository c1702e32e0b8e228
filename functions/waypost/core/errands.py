"""What bells and reminders speak of besides messages. Each kind has names that begin with a word of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from waypost.core.message import parse_ref


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

    def know(self, ref: str) -> bool:
        """Whether a bell or a reminder speaks of an errand; else it is of a message."""
        return _kind_of(parse_ref(ref)[1]) in self._kinds

    async def wake_at(self, ref: str) -> int | None:
        account, name = parse_ref(ref)
        return await self._kinds[_kind_of(name)].wake_at(account, name)

    async def run(self, ref: str) -> str | None:
        account, name = parse_ref(ref)
        return await self._kinds[_kind_of(name)].run(account, name)


def _kind_of(name: str) -> str:
    return name.partition("_")[0]
