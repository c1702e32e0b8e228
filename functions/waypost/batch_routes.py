"""Requests that are many messages: a batch, and a publish to a URL group."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from msgspec.structs import replace

from waypost.call import Call, Limit, Reply, message_body
from waypost.core.accept import NotStored, Request
from waypost.core.batch import Item, check_number, read_batch
from waypost.core.destination import is_group_name, read_destination, split_control_keys
from waypost.core.errors import BadRequest, NotFound, shown
from waypost.core.groups import Group, Groups, requests_to
from waypost.core.guard import Guard
from waypost.core.llm import Llm
from waypost.core.policy import Policy, batch_json_limit, batch_json_too_large
from waypost.core.ports import Ports
from waypost.core.publish import Accepted, Publisher
from waypost.core.settings import Asked, headers_of_json, read_settings, with_defaults
from waypost.core.some_at_once import some_at_once
from waypost.shapes import outcome_shape

_Headers = Sequence[tuple[str, str]]
_TRY_AGAIN = [("retry-after", "1")]


class BatchRoutes:
    def __init__(
        self, ports: Ports, policy: Policy, publisher: Publisher, groups: Groups, guard: Guard, llm: Llm
    ) -> None:
        self._ports = ports
        self._policy = policy
        self._publisher = publisher
        self._groups = groups
        self._guard = guard
        self._llm = llm
        self._limit = Limit(batch_json_limit(policy), batch_json_too_large(policy))

    async def publish_to_group(self, call: Call, account: str, name: str, queue: str = "") -> Reply:
        group = await self._groups.read(account, name)
        body = await message_body(call, self._policy)
        _, ours = split_control_keys(call.query)
        asked = Asked(account, call.caller_ip, self._now(), body=body, queue=queue)
        requests = self._to_group(group, call.headers, ours, asked)
        outcomes = await self._publisher.publish_all(requests)
        failed = [one for one in outcomes if isinstance(one, NotStored)]
        if failed:
            stored = len(outcomes) - len(failed)
            reason = (
                f"{stored} of {len(outcomes)} messages to URL group {shown(name)} were stored; under a deduplication id"
                f" a repeat stores none of them again ({failed[0].reason})"
            )
            return Reply(503, {"error": reason}, _TRY_AGAIN)
        return Reply(_status(outcomes), [_shape(*both) for both in zip(requests, outcomes, strict=True)])

    async def batch(self, call: Call, account: str) -> Reply:
        items = read_batch(await call.read_body(self._limit), self._policy)
        groups = await self._groups_of(account, items)
        who = Asked(account, call.caller_ip, self._now())
        asked = [self._asked(at, item, groups.get(item.destination), who) for at, item in enumerate(items)]
        requests = [request for some in asked for request in some]
        check_number(len(requests))
        outcomes = await self._publisher.publish_all(requests)
        ended = iter(zip(requests, outcomes, strict=True))
        answer: list[Any] = []
        for item, some in zip(items, asked, strict=True):
            shapes = [_shape(*both) for both in islice(ended, len(some))]
            answer += [shapes] if item.destination in groups else shapes
        status = _status(outcomes)
        return Reply(status, answer, _TRY_AGAIN if status == 503 else ())

    def _now(self) -> int:
        return self._ports.clock.now_ms()

    async def _groups_of(self, account: str, items: Sequence[Item]) -> dict[str, Group | NotFound]:
        """Those that the items name, each read once."""

        async def read(name: str) -> Group | NotFound:
            try:
                return await self._groups.read(account, name)
            except NotFound as unknown:
                return unknown

        names = list({item.destination for item in items if is_group_name(item.destination)})
        return dict(zip(names, await some_at_once(read, names), strict=True))

    def _asked(self, at: int, item: Item, group: Group | NotFound | None, who: Asked) -> Sequence[Request]:
        """The messages that an item asks for. Raises BadRequest, which names the item and its field."""
        field = "destination"
        who = replace(who, body=item.body, queue=item.queue)
        try:
            if isinstance(group, NotFound):
                raise BadRequest(str(group))
            if group:
                field = "headers"
                keys = split_control_keys(item.query)[1]
                return self._to_group(group, item.headers, keys, who)
            url, ours, api = read_destination(item.destination, item.query, self._guard, self._llm)
            field = "headers"
            return [self._request(item.headers, ours, replace(who, url=url, api=api))]
        except BadRequest as wrong:
            raise BadRequest(f"[{at}].{field}: {wrong}") from None

    def _to_group(self, group: Group, headers: _Headers, ours: _Headers, asked: Asked) -> Sequence[Request]:
        defaults = headers_of_json(group.headers)
        headers = with_defaults(headers, ours, defaults, queue=asked.queue)
        return requests_to(group, self._request(headers, ours, asked))

    def _request(self, headers: _Headers, ours: _Headers, asked: Asked) -> Request:
        return read_settings(headers, ours, asked, policy=self._policy, guard=self._guard)


def _shape(request: Request, outcome: Accepted | NotStored) -> dict[str, Any]:
    shape = outcome_shape(outcome)
    return {**shape, "url": request.url} if request.via.topic else shape


def _status(outcomes: Sequence[Accepted | NotStored]) -> int:
    stored = [one for one in outcomes if isinstance(one, Accepted)]
    if outcomes and not stored:
        return 503
    return 201 if any(not one.deduplicated for one in stored) else 202 if stored else 200
