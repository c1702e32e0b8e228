"""The routes of the dead letter queue."""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec
from msgspec.structs import replace

from waypost.call import Call, Reply
from waypost.core import limits
from waypost.core.body import BodyMissing, load_body
from waypost.core.dead_letters import Changed, DeadLetters, Found, Letter
from waypost.core.destination import split_control_keys
from waypost.core.errors import Conflict, NotFound, shown
from waypost.core.guard import Guard
from waypost.core.letter_filter import read_wanted
from waypost.core.message import Message
from waypost.core.policy import Policy
from waypost.core.ports import Ports
from waypost.core.settings import read_changes
from waypost.core.terms import Terms
from waypost.shapes import letter_shape


class LetterRoutes:
    def __init__(self, ports: Ports, policy: Policy, letters: DeadLetters, guard: Guard) -> None:
        self._ports = ports
        self._policy = policy
        self._letters = letters
        self._guard = guard

    async def list_some(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        wanted = read_wanted(call.query)
        found = await self._letters.find(account, wanted)
        shapes, size, cursor = [], 0, found.cursor
        last: Letter | None = None
        for letter, message in await self._letters.with_messages(found.letters):
            shape = letter_shape(letter, message, await self._body(message))
            own = len(msgspec.json.encode(shape))
            if last and size + own > limits.LETTER_BYTES_WHOLE and wanted.ids:
                # Clients that name ids don't expect that they would have to go on.
                shape = letter_shape(replace(letter, body=None), message, None)
                own = len(msgspec.json.encode(shape))
            if last and size + own > limits.LETTER_BYTES:
                cursor = last.position
                break
            size += own
            shapes.append(shape)
            last = letter
        return Reply(200, {"messages": shapes, **_cursor(cursor)})

    async def get(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        letter, message = await self._one(account, match)
        return Reply(200, letter_shape(letter, message, await self._body(message)))

    async def delete(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        dlq_id = unquote(match["id"])
        letter = await self._letters.read(account, dlq_id)
        if letter is None or not await self._letters.delete(letter):
            raise _unknown(dlq_id)
        return Reply(200, {"deleted": 1})

    async def delete_some(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        found = await self._some(call, account)
        return Reply(200, {"deleted": await self._letters.delete_all(found.letters), **_cursor(found.cursor)})

    async def retry(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        changed = self._changed(call)
        letter, message = await self._one(account, match)
        try:
            message_id = await self._letters.retry(letter, message, changed)
        except BodyMissing as lost:
            raise Conflict(f"{letter.id} can't be retried: {lost}; delete it, and publish the message anew") from None
        if message_id is None:
            raise _unknown(letter.id)
        return Reply(201, {"messageId": message_id})

    async def retry_some(self, call: Call, account: str, match: re.Match[str]) -> Reply:
        changed = self._changed(call)
        found = await self._some(call, account)
        ids = await self._letters.retry_all(found.letters, changed)
        return Reply(201, {"responses": [{"messageId": one} for one in ids], **_cursor(found.cursor)})

    async def _one(self, account: str, match: re.Match[str]) -> tuple[Letter, Message]:
        dlq_id = unquote(match["id"])
        letter = await self._letters.read(account, dlq_id)
        for found in await self._letters.with_messages([letter] if letter else []):
            return found
        raise _unknown(dlq_id)

    async def _body(self, message: Message) -> bytes | None:
        """None: it is gone."""
        try:
            return await load_body(message.body, self._ports.blobs)
        except BodyMissing:
            return None

    async def _some(self, call: Call, account: str) -> Found:
        return await self._letters.find(account, read_wanted(call.query, await call.read_body()))

    def _changed(self, call: Call) -> Changed:
        """What the request's settings make of a message's terms; refuses them before anything is done."""
        _, ours = split_control_keys(call.query)

        def changed(terms: Terms, now_ms: int) -> tuple[Terms, int]:
            return read_changes(call.headers, ours, terms, policy=self._policy, guard=self._guard, now_ms=now_ms)

        changed(Terms("POST", (), 0, self._policy.default_timeout_ms), self._ports.clock.now_ms())
        return changed


def _cursor(cursor: str | None) -> dict[str, str]:
    return {"cursor": cursor} if cursor else {}


def _unknown(dlq_id: str) -> NotFound:
    return NotFound(f"dead letter {shown(dlq_id)} not found: it may have been retried, deleted or kept long enough")
