"""Several calls at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: More would only wait for an engine's threads.
_SOME = 8


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each returned, in order. When one raises, so does this, but not before all have ended: nothing of it goes on
    behind its caller's back."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


async def some_at_once(do: Callable[[T], Awaitable[R]], items: Sequence[T]) -> list[R]:
    """Likewise what is done to each of many, of which a few are under way at once."""
    found: dict[int, R] = {}
    waiting = iter(enumerate(items))

    async def work() -> None:
        for number, one in waiting:
            found[number] = await do(one)

    await together(work() for _ in range(min(_SOME, len(items))))
    return [found[number] for number in range(len(items))]
