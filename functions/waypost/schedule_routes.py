"""The routes of schedules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from waypost.call import Call, Reply, message_body
from waypost.core import limits
from waypost.core.body import BodyMissing, body_at_hand, load_body
from waypost.core.destination import is_group_name, read_destination, split_control_keys
from waypost.core.errors import Conflict
from waypost.core.firing import Firer
from waypost.core.groups import Groups
from waypost.core.guard import Guard
from waypost.core.llm import API_LLM, Llm
from waypost.core.policy import Policy
from waypost.core.ports import Ports
from waypost.core.schedule import Schedule
from waypost.core.schedules import Schedules
from waypost.core.settings import Asked, headers_of_json, read_schedule, with_defaults
from waypost.shapes import outcome_shape, schedule_shape


class ScheduleRoutes:
    def __init__(
        self,
        ports: Ports,
        policy: Policy,
        schedules: Schedules,
        firer: Firer,
        groups: Groups,
        guard: Guard,
        llm: Llm,
    ) -> None:
        self._ports = ports
        self._policy = policy
        self._schedules = schedules
        self._firer = firer
        self._groups = groups
        self._guard = guard
        self._llm = llm

    async def create(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        headers, url, api = call.headers, "", ""
        ours: Sequence[tuple[str, str]] = split_control_keys(call.query)[1]
        if is_group_name(destination := unquote(match["schedule"])):
            group = await self._groups.read(account, destination)
            headers = with_defaults(headers, ours, headers_of_json(group.headers), scheduled=True)
        else:
            url, ours, api = read_destination(match["schedule"], call.query, self._guard, self._llm)
            destination = API_LLM if api else url
        body = await message_body(call, self._policy)
        asked = Asked(account, call.caller_ip, self._ports.clock.now_ms(), url, body, api)
        wanted = read_schedule(headers, ours, asked, policy=self._policy, guard=self._guard)
        return Reply(201, {"scheduleId": await self._schedules.create(wanted, destination)})

    async def list_all(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        schedules = await self._schedules.list_all(account)
        states = await self._schedules.last_states(schedules)
        shapes, left = [], limits.SCHEDULE_BODIES
        for one in schedules:
            body = body_at_hand(one.body)
            if body is not None and len(body) > left:
                body = None
            left -= len(body or b"")
            shapes.append(schedule_shape(one, body, states))
        return Reply(200, shapes)

    async def get(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        schedule = await self._schedules.read(account, _id(match))
        states = await self._schedules.last_states([schedule])
        return Reply(200, schedule_shape(schedule, await self._body(schedule), states))

    async def delete(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        await self._schedules.delete(account, _id(match))
        return Reply(200, {})

    async def pause(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        await self._schedules.pause(account, _id(match))
        return Reply(200, {})

    async def resume(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        await self._schedules.resume(account, _id(match))
        return Reply(200, {})

    async def run(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        schedule = await self._schedules.read(account, _id(match))
        try:
            requests, accepted = await self._firer.publish(schedule)
        except BodyMissing as lost:
            raise Conflict(f"schedule {schedule.id} can't be run: {lost}; make it anew, with its body") from None
        shapes = [outcome_shape(one) for one in accepted]
        if is_group_name(schedule.destination):
            return Reply(201, [{**shape, "url": one.url} for shape, one in zip(shapes, requests, strict=True)])
        return Reply(201, shapes[0])

    async def _body(self, schedule: Schedule) -> bytes | None:
        """None: it is gone."""
        try:
            return await load_body(schedule.body, self._ports.blobs)
        except BodyMissing:
            return None


def _id(match: re.Match[str]) -> str:
    return unquote(match["schedule"])
