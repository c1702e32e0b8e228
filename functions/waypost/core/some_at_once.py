"""The same for many, some at a time: more would only wait for the engine's threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 8


async def some_at_once(do: Callable[[T], Awaitable[R]], items: Sequence[T]) -> list[R]:
    """What it gives for each, in order. When it raises, nothing is under way any more."""
    found: dict[int, R] = {}
    waiting = iter(enumerate(items))

    async def work() -> None:
        for number, one in waiting:
            found[number] = await do(one)

    ended = await asyncio.gather(*(work() for _ in range(min(_AT_ONCE, len(items)))), return_exceptions=True)
    for failed in ended:
        if failed is not None:
            raise failed
    return [found[number] for number in range(len(items))]
