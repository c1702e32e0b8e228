"""The routes of URL groups, which QStash calls topics there."""

from __future__ import annotations

import re
from urllib.parse import unquote

from waypost.call import Call, Reply
from waypost.core.groups import Groups, check_name, read_endpoints, read_headers, read_removed
from waypost.core.guard import Guard
from waypost.core.policy import Policy
from waypost.shapes import group_shape


class GroupRoutes:
    def __init__(self, policy: Policy, groups: Groups, guard: Guard) -> None:
        self._policy = policy
        self._groups = groups
        self._guard = guard

    async def list_all(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        shapes = [group_shape(one) for one in await self._groups.list_all(account)]
        return Reply.whole_list(shapes, "URL groups", "read them by their names")

    async def get(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return Reply(200, group_shape(await self._groups.read(account, _name(match))))

    async def upsert(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        endpoints = read_endpoints(await call.read_body(), self._guard)
        await self._groups.upsert(account, _name(match), endpoints)
        return Reply(200, {})

    async def remove(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        await self._groups.remove(account, _name(match), read_removed(await call.read_body()))
        return Reply(200, {})

    async def set_headers(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        headers = read_headers(await call.read_body(), self._policy, self._guard)
        await self._groups.set_headers(account, _name(match), headers)
        return Reply(200, {})

    async def delete(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        await self._groups.delete(account, _name(match))
        return Reply(200, {})


def _name(match: re.Match[str]) -> str:
    return check_name(unquote(match["name"]))
