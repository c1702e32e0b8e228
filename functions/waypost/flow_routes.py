"""The routes of flow-control keys."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from waypost.call import Call, Reply
from waypost.core.errors import NotFound, shown
from waypost.core.flow_control import Change, check_key, paused, read_pin, read_unpin, reset_rate, resumed
from waypost.core.lane_operations import LaneOperations, Standing
from waypost.core.ports import Ports
from waypost.core.query import Query
from waypost.core.some_at_once import some_at_once
from waypost.core.terms import LaneKind
from waypost.shapes import flow_key_shape


class FlowRoutes:
    def __init__(self, ports: Ports, lanes: LaneOperations) -> None:
        self._ports = ports
        self._lanes = lanes

    async def list_all(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        part = Query(call.query, ("search",), "flow-control keys").one("search")
        keys = await self._lanes.all(account, LaneKind.KEY, part)
        shapes = await some_at_once(lambda key: self._shape(account, key), keys)
        return Reply.whole_list(shapes, "flow-control keys", "?search= names a part of those that are wanted")

    async def get(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        name = _name(match)
        key = await self._lanes.read(account, LaneKind.KEY, name)
        if key is None:
            raise _unknown(name)
        return Reply(200, await self._shape(account, key))

    async def pause(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return await self._changed(account, match, paused)

    async def resume(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return await self._changed(account, match, resumed)

    async def pin(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        pinned, change = read_pin(call.query)
        await self._lanes.change(account, LaneKind.KEY, _name(match), change, make=pinned)
        return Reply(200, {})

    async def unpin(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return await self._changed(account, match, read_unpin(call.query))

    async def reset_rate(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return await self._changed(account, match, reset_rate)

    async def all_together(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        """Over the keys that limit parallelism: what of their slots is taken."""
        limiting = [one for one in await self._lanes.lanes(account, LaneKind.KEY) if one.limits_parallelism]
        most = sum(lane.limits.parallelism for lane in limiting)
        at_work = await some_at_once(lambda lane: self._lanes.at_work(account, lane), limiting)
        return Reply(200, {"parallelismMax": most, "parallelismCount": sum(at_work)})

    async def _shape(self, account: str, key: Standing) -> dict[str, Any]:
        return flow_key_shape(key, await self._lanes.at_work(account, key.lane), self._ports.clock.now_ms())

    async def _changed(self, account: str, match: re.Match[str], change: Change) -> Reply:
        name = _name(match)
        if await self._lanes.change(account, LaneKind.KEY, name, change) is None:
            raise _unknown(name)
        return Reply(200, {})


def _name(match: re.Match[str]) -> str:
    return check_key(unquote(match["key"]))


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"flow-control key {shown(name)} not found: the first message that has it in Upstash-Flow-Control-Key makes it,"
        " and so does POST /v2/flowControl/<key>/pin"
    )
