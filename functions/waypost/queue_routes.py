"""The routes of queues. What goes into one is published by `api`."""

from __future__ import annotations

import re
from urllib.parse import unquote

from waypost.call import Call, Reply
from waypost.core.errors import NotFound, shown
from waypost.core.flow_control import Change, paused, resumed
from waypost.core.lane_operations import LaneOperations
from waypost.core.queues import check_queue_name, read_queue
from waypost.core.terms import LaneKind, Limits
from waypost.shapes import queue_shape


class QueueRoutes:
    def __init__(self, lanes: LaneOperations) -> None:
        self._lanes = lanes

    async def list_all(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        shapes = [queue_shape(one) for one in await self._lanes.all(account, LaneKind.QUEUE)]
        return Reply.whole_list(shapes, "queues", "read them by their names")

    async def get(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        name = _name(match)
        queue = await self._lanes.read(account, LaneKind.QUEUE, name)
        if queue is None:
            raise _unknown(name)
        return Reply(200, queue_shape(queue))

    async def upsert(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        wanted = read_queue(await call.read_body())
        made = Limits(parallelism=wanted.parallelism or 1)
        await self._lanes.change(account, LaneKind.QUEUE, wanted.name, wanted.of, make=made)
        return Reply(200, {})

    async def delete(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        await self._lanes.delete_queue(account, _name(match))
        return Reply(200, {})

    async def pause(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return await self._changed(account, match, paused)

    async def resume(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return await self._changed(account, match, resumed)

    async def _changed(self, account: str, match: re.Match[str], change: Change) -> Reply:
        name = _name(match)
        if await self._lanes.change(account, LaneKind.QUEUE, name, change) is None:
            raise _unknown(name)
        return Reply(200, {})


def _name(match: re.Match[str]) -> str:
    return check_queue_name(unquote(match["queue"]))


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"queue {shown(name)} not found: POST /v2/queues makes it, and so does the first message that is put into it"
    )
