"""Changing an item that others may be changing: each writes under the condition that it stands as he has read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from waypost.core.ports import Busy, ConditionFailed, Item, Key, Ports

#: Of those that meet, one succeeds. The others try again some 100 ms apart.
_TRIES = 24


async def change_item(ports: Ports, key: Key, change: Callable[[Item | None], Awaitable[None]], what: str) -> None:
    """Hands the item as it stands to `change`, which raises ConditionFailed where somebody else was quicker, and is
    then asked again. Raises Busy when others always are; `what` is what the error calls the item."""
    for tried in range(_TRIES):
        try:
            return await change(await ports.table.get(key))
        except ConditionFailed:
            await ports.clock.sleep_ms(ports.random(1)[0] * min(tried + 1, 4))
    raise Busy(f"too many others are changing {what} just now")
