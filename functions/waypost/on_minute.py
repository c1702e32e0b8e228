"""EventBridge's rule ticks once a minute: the look, and what is or comes due rings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from waypost.on_aws import Function, function

#: A tick that had more to ring than it may goes on for so long, and leaves the rest to the next, which comes then.
_LONG_ENOUGH_MS = 50_000


def handler(event: Mapping[str, Any], context: Any) -> None:
    function().run(tick(function(), context.get_remaining_time_in_millis))


async def tick(here: Function, left_ms: Any) -> None:
    until_ms = left_ms() - _LONG_ENOUGH_MS
    while await here.service.look.tick() and left_ms() > until_ms:
        await asyncio.sleep(1)
    here.log.info("tick")
    # Its absence is what the alarm waits for.
    here.count({"Ticks": 1})
