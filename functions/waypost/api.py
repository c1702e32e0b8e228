"""A plain request to a route, to the core, to a plain answer. The only place that knows status codes."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from waypost.batch_routes import BatchRoutes
from waypost.call import Call, Reply, message_body
from waypost.core.accounts import KeyStore, Tokens
from waypost.core.body import load_body
from waypost.core.cancel import Canceller
from waypost.core.cancel_request import read_cancel
from waypost.core.dead_letters import DeadLetters
from waypost.core.destination import is_group_name, read_destination, split_control_keys
from waypost.core.errors import BadRequest, Conflict, NotFound, Refused, TooMuch, Unauthorized, shown
from waypost.core.firing import Firer
from waypost.core.groups import Groups
from waypost.core.guard import Guard
from waypost.core.lane_operations import LaneOperations
from waypost.core.llm import Llm
from waypost.core.messages import Messages
from waypost.core.policy import Policy
from waypost.core.ports import Busy, Ports, TooLarge, Unavailable
from waypost.core.publish import Publisher
from waypost.core.queues import check_queue_name
from waypost.core.schedules import Schedules
from waypost.core.settings import Asked, read_settings
from waypost.flow_routes import FlowRoutes
from waypost.group_routes import GroupRoutes
from waypost.letter_routes import LetterRoutes
from waypost.logs import Logs
from waypost.queue_routes import QueueRoutes
from waypost.schedule_routes import ScheduleRoutes
from waypost.shapes import message_shape, outcome_shape

_log = logging.getLogger("waypost.api")


_STATUS: dict[type[Exception], int] = {
    BadRequest: 400,
    Unauthorized: 401,
    NotFound: 404,
    Conflict: 409,
    TooMuch: 413,
}

_Handler = Callable[["Api", Call, str, Any], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    #: The path as the API's description has it: what stands in braces is one segment, but a destination is all that
    #: follows. Empty: a route of QStash that is not served.
    template: str
    pattern: re.Pattern[str]
    #: None: it is not served.
    handle: _Handler | None
    #: It answers without a token.
    open: bool = False
    #: Of what is not served: what a caller is told.
    instead: str = ""


class Api:
    def __init__(
        self,
        ports: Ports,
        policy: Policy,
        tokens: Tokens,
        guard: Guard,
        llm: Llm,
        publisher: Publisher,
        groups: Groups,
        schedules: Schedules,
        firer: Firer,
        messages: Messages,
        canceller: Canceller,
        lanes: LaneOperations,
        dead_letters: DeadLetters,
        keys: KeyStore,
    ):
        self._ports = ports
        self._policy = policy
        self._tokens = tokens
        self._publisher = publisher
        self._messages = messages
        self._canceller = canceller
        self._lanes = lanes
        self.letters = LetterRoutes(ports, policy, dead_letters, guard)
        self.groups = GroupRoutes(policy, groups, guard)
        self.batches = BatchRoutes(ports, policy, publisher, groups, guard, llm)
        self.schedules = ScheduleRoutes(ports, policy, schedules, firer, groups, guard, llm)
        self.queues = QueueRoutes(lanes)
        self.flow = FlowRoutes(ports, lanes)
        self._logs = Logs(ports, policy, self._messages)
        self._keys = keys
        self._guard = guard
        self._llm = llm

    async def answer(self, call: Call) -> Reply:
        """Never raises: what went wrong is an answer."""
        try:
            route, match = self._route(call)
            account = "" if route.open else self._authenticate(call)
            if route.handle is None:
                raise NotFound(f"{call.method} {shown(call.path)}: {route.instead}")
            return await route.handle(self, call, account, match)
        except _NotAllowed as wrong:
            return Reply(405, {"error": str(wrong)}, [("allow", wrong.allow)])
        except TooLarge as wrong:
            return Reply(413, {"error": f"the message is too large to be stored, make it smaller: {wrong}"})
        except Refused as refused:
            return Reply(_STATUS[type(refused)], {"error": str(refused)})
        except (Busy, Unavailable) as failed:
            _log.warning("the store failed: %s", failed)
            reason = str(failed) or "it is busy"
            return Reply(503, {"error": f"the message store failed, try again: {reason}"}, [("retry-after", "1")])
        except Exception:  # noqa: BLE001 - a caller gets an answer whatever happens
            _log.exception("unexpected error on %s", call.method)
            return Reply(500, {"error": "internal error; the server's log tells more"})

    def _route(self, call: Call) -> tuple[Route, re.Match[str]]:
        if _DOUBLED.match(call.path):
            raise NotFound(
                f"{shown(call.path)} is not served: QSTASH_URL must be the server's address alone, such as"
                " http://127.0.0.1:8080, without /v2/publish"
            )
        method = "GET" if call.method == "HEAD" else call.method
        allowed = set()
        for route in _WRITTEN_OUT.get(call.path, ROUTES):
            match = route.pattern.fullmatch(call.path)
            if match and route.method == method:
                return route, match
            if match and route.handle:
                allowed |= {"GET", "HEAD"} if route.method == "GET" else {route.method}
            elif match:
                raise NotFound(f"{call.method} {shown(call.path)}: {route.instead}")
        if allowed:
            raise _NotAllowed(call.method, call.path, ", ".join(sorted(allowed)))
        raise NotFound(f"there is no route {call.method} {shown(call.path)}")

    def _authenticate(self, call: Call) -> str:
        token = ""
        for name, value in call.headers:
            if name.lower() == "authorization" and value.strip().lower().startswith("bearer "):
                token = value.strip()[len("bearer ") :].strip()
        if not token and "qstash" in call.query.lower():
            token = next((value for name, value in split_control_keys(call.query)[1] if name == "qstash_token"), "")
        if not token:
            raise Unauthorized(
                "unable to authenticate: no token; send Authorization: Bearer <token>, or ?qstash_token=<token>"
            )
        account = self._tokens.account(token)
        if account is None:
            raise Unauthorized(
                "unable to authenticate: invalid token; Authorization or qstash_token must hold this server's token,"
                " which it prints when it starts"
            )
        return account

    # Handlers --------------------------------------------------------------------------------------------------------

    async def health(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return Reply(200, {"status": "ok"})

    # What describes the API is imported when somebody asks for it: functions start without it.

    async def get_description(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        from waypost.openapi.document import encoded

        return Reply(200, encoded(self._policy))

    async def get_page(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        from waypost.openapi.page import HEADERS, page

        return Reply(200, page(self._policy), HEADERS, "text/html; charset=utf-8")

    async def publish(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return await self._publish(call, account, match["destination"])

    async def enqueue(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        queue = check_queue_name(unquote(match["queue"]))
        return await self._publish(call, account, match["destination"], queue)

    async def _publish(self, call: Call, account: str, destination: str, queue: str = "") -> Reply:
        if is_group_name(name := unquote(destination)):
            return await self.batches.publish_to_group(call, account, name, queue)
        url, ours, api = read_destination(destination, call.query, self._guard, self._llm)
        body = await message_body(call, self._policy)
        asked = Asked(account, call.caller_ip, self._ports.clock.now_ms(), url, body, api, queue)
        request = read_settings(call.headers, ours, asked, policy=self._policy, guard=self._guard)
        accepted = await self._publisher.publish(request)
        return Reply(202 if accepted.deduplicated else 201, outcome_shape(accepted))

    async def publish_batch(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return await self.batches.batch(call, account)

    async def get_message(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        message_id = unquote(match["id"])
        seen = await self._messages.read(account, message_id)
        if seen is None:
            raise NotFound(f"message {shown(message_id)} not found")
        shape = message_shape(seen.message, seen.state, await load_body(seen.message.body, self._ports.blobs))
        if waiting := await self._lanes.why_waiting(seen.message, seen.state):
            shape["waiting"] = waiting
        return Reply(200, shape)

    async def cancel_message(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        message_id = unquote(match["id"])
        cancelled = await self._messages.cancel(account, message_id)
        if cancelled is None:
            raise NotFound(f"message {shown(message_id)} not found")
        return Reply(200, {"cancelled": int(cancelled)})

    async def cancel_messages(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        wanted = read_cancel(call.query, await call.read_body(), self._ports.clock.now_ms())
        if wanted.ids is not None:
            cancelled = await self._canceller.by_ids(account, wanted.ids)
        elif wanted.most is not None:
            cancelled = await self._canceller.some(account, wanted.selection, wanted.most)
        else:
            cancelled = await self._canceller.all(account, wanted.selection)
        return Reply(200, {"cancelled": cancelled.count, **({"more": True} if cancelled.more else {})})

    async def retry_message(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        message_id = unquote(match["id"])
        if not await self._messages.retry(account, message_id):
            raise NotFound(f"message {shown(message_id)} not found")
        return Reply(200, {"messageId": message_id})

    async def list_events(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return Reply(200, await self._logs.listed(account, call.query, "events"))

    async def list_logs(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        return Reply(200, await self._logs.listed(account, call.query, "logs"))

    async def get_keys(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        keys = await self._keys.keys(account)
        return Reply(200, {"current": keys.current, "next": keys.next})

    async def rotate_keys(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        keys = await self._keys.rotate(account)
        return Reply(200, {"current": keys.current, "next": keys.next})


class _NotAllowed(Exception):
    def __init__(self, method: str, path: str, allow: str) -> None:
        super().__init__(f"{method} is not allowed on {shown(path)}, use {allow}")
        self.allow = allow


def _route(
    method: str,
    template: str,
    handle: _Handler,
    *,
    open: bool = False,  # noqa: A002 - the field's name
    part: str = "[^/]+",
) -> Route:
    """`part`: what stands in braces, unless it is a destination."""
    pattern = re.sub(r"\{(\w+)\}", lambda named: f"(?P<{named[1]}>{_PARTS.get(named[1], part)})", template)
    return Route(method, template, re.compile(pattern, re.DOTALL), handle, open)


def _of_letters(handle: Callable[[LetterRoutes, Call, str, Any], Awaitable[Reply]]) -> _Handler:
    return lambda api, call, account, match: handle(api.letters, call, account, match)


def _of_groups(handle: Callable[[GroupRoutes, Call, str, Any], Awaitable[Reply]]) -> _Handler:
    return lambda api, call, account, match: handle(api.groups, call, account, match)


def _of_schedules(handle: Callable[[ScheduleRoutes, Call, str, Any], Awaitable[Reply]]) -> _Handler:
    return lambda api, call, account, match: handle(api.schedules, call, account, match)


def _of_queues(handle: Callable[[QueueRoutes, Call, str, Any], Awaitable[Reply]]) -> _Handler:
    return lambda api, call, account, match: handle(api.queues, call, account, match)


def _of_flow(handle: Callable[[FlowRoutes, Call, str, Any], Awaitable[Reply]]) -> _Handler:
    return lambda api, call, account, match: handle(api.flow, call, account, match)


def _not_served(methods: str, pattern: str, instead: str = "it is not served by this version") -> list[Route]:
    compiled = re.compile(pattern, re.DOTALL)
    return [Route(method, "", compiled, None, instead=instead) for method in methods.split()]


_ALL_THAT_FOLLOWS = ".*"
#: A destination may end in what follows an id.
_NO_URL = "[^/:]+"
#: Of what stands in a template's braces: what is no segment. The clients paste a key into a path as it is.
_DONE_TO_KEYS = "pause|resume|pin|unpin|resetRate|reset"
_PARTS = {"destination": _ALL_THAT_FOLLOWS, "key": f"(?:(?!/(?:{_DONE_TO_KEYS})$).)+"}
#: A base URL that ends in a route, so that the SDK's own route follows it.
_DOUBLED = re.compile(r"/v2/publish/+(?!https?(?::|%3a))(?:[^/]+/)*(?:v2|llm/v1)/", re.IGNORECASE)

_NO_CHAT = "chat is not proxied: publish to api/llm with Upstash-Callback, or ask the model service itself"

#: Every route there is. What QStash has and this version has not is named, so that nobody wonders.
ROUTES: Sequence[Route] = [
    _route("POST", "/v2/publish/{destination}", Api.publish),
    _route("POST", "/v2/enqueue/{queue}/{destination}", Api.enqueue),
    _route("POST", "/v2/batch", Api.publish_batch),
    _route("GET", "/v2/messages/{id}", Api.get_message),
    _route("DELETE", "/v2/messages", Api.cancel_messages),
    _route("DELETE", "/v2/messages/{id}", Api.cancel_message),
    _route("POST", "/v2/messages/{id}/retry", Api.retry_message),
    _route("GET", "/v2/dlq", _of_letters(LetterRoutes.list_some)),
    _route("DELETE", "/v2/dlq", _of_letters(LetterRoutes.delete_some)),
    _route("POST", "/v2/dlq/retry", _of_letters(LetterRoutes.retry_some)),
    _route("GET", "/v2/dlq/{id}", _of_letters(LetterRoutes.get)),
    _route("DELETE", "/v2/dlq/{id}", _of_letters(LetterRoutes.delete)),
    _route("POST", "/v2/dlq/retry/{id}", _of_letters(LetterRoutes.retry)),
    _route("GET", "/v2/events", Api.list_events),
    _route("GET", "/v2/logs", Api.list_logs),
    _route("GET", "/v2/topics", _of_groups(GroupRoutes.list_all)),
    _route("GET", "/v2/topics/{name}", _of_groups(GroupRoutes.get)),
    _route("PATCH", "/v2/topics/{name}", _of_groups(GroupRoutes.set_headers)),
    _route("DELETE", "/v2/topics/{name}", _of_groups(GroupRoutes.delete)),
    _route("POST", "/v2/topics/{name}/endpoints", _of_groups(GroupRoutes.upsert)),
    _route("DELETE", "/v2/topics/{name}/endpoints", _of_groups(GroupRoutes.remove)),
    _route("GET", "/v2/schedules", _of_schedules(ScheduleRoutes.list_all)),
    _route("GET", "/v2/schedules/{schedule}", _of_schedules(ScheduleRoutes.get)),
    _route("DELETE", "/v2/schedules/{schedule}", _of_schedules(ScheduleRoutes.delete)),
    *(
        _route(method, f"/v2/schedules/{{schedule}}/{what}", _of_schedules(handle), part=_NO_URL)
        for method, what, handle in (
            ("PATCH", "pause", ScheduleRoutes.pause),
            ("POST", "pause", ScheduleRoutes.pause),
            ("PATCH", "resume", ScheduleRoutes.resume),
            ("POST", "resume", ScheduleRoutes.resume),
            ("POST", "run", ScheduleRoutes.run),
        )
    ),
    # One name for what stands there: to the API's description both are one path.
    _route("POST", "/v2/schedules/{schedule}", _of_schedules(ScheduleRoutes.create), part=_ALL_THAT_FOLLOWS),
    _route("GET", "/v2/queues", _of_queues(QueueRoutes.list_all)),
    _route("POST", "/v2/queues", _of_queues(QueueRoutes.upsert)),
    _route("GET", "/v2/queues/{queue}", _of_queues(QueueRoutes.get)),
    _route("DELETE", "/v2/queues/{queue}", _of_queues(QueueRoutes.delete)),
    _route("POST", "/v2/queues/{queue}/pause", _of_queues(QueueRoutes.pause)),
    _route("POST", "/v2/queues/{queue}/resume", _of_queues(QueueRoutes.resume)),
    _route("GET", "/v2/flowControl", _of_flow(FlowRoutes.list_all)),
    _route("GET", "/v2/flowControl/{key}", _of_flow(FlowRoutes.get)),
    *(
        _route("POST", f"/v2/flowControl/{{key}}/{what}", _of_flow(handle))
        for what, handle in (
            ("pause", FlowRoutes.pause),
            ("resume", FlowRoutes.resume),
            ("pin", FlowRoutes.pin),
            ("unpin", FlowRoutes.unpin),
            ("resetRate", FlowRoutes.reset_rate),
            ("reset", FlowRoutes.reset_rate),
        )
    ),
    _route("GET", "/v2/globalParallelism", _of_flow(FlowRoutes.all_together)),
    _route("GET", "/v2/keys", Api.get_keys),
    _route("POST", "/v2/keys/rotate", Api.rotate_keys),
    _route("GET", "/healthz", Api.health, open=True),
    _route("GET", "/openapi.json", Api.get_description, open=True),
    _route("GET", "/docs", Api.get_page, open=True),
    *_not_served("GET POST DELETE PUT PATCH", r"/v2/(workflows|trigger|wait|notify|waiters)(/.*)?"),
    *_not_served("POST", r"/v2/batch/trigger"),
    *_not_served("POST", r"/llm/.+", _NO_CHAT),
]

#: By path: a route that is written out comes before those with something in braces.
_WRITTEN_OUT = {
    written: [route for route in ROUTES if route.template == written]
    for written in {route.template for route in ROUTES if "{" not in route.template}
}
