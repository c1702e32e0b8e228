"""Accepting a message: it is durable, and found again whatever dies, before anybody is told so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from waypost.core.accept import Acceptor, NotStored, Request
from waypost.core.fresh import Fresh
from waypost.core.lanes import Lanes
from waypost.core.message import VERSION, Message, State, digest
from waypost.core.policy import SECOND, Policy
from waypost.core.ports import (
    Absent,
    AnyOf,
    AtMost,
    Busy,
    ConditionFailed,
    Key,
    Ports,
    Put,
    TooLarge,
    Unavailable,
)
from waypost.core.reminder import Looked, Stopwatch
from waypost.core.some_at_once import some_at_once

T = TypeVar("T")


#: Of many messages, none is begun after so long: a function has 29 s, and must still tell what became of them.
_LONG_MS = 20 * SECOND


class Accepted(Struct, frozen=True):
    message_id: str
    deduplicated: bool


class Publisher:
    def __init__(
        self, ports: Ports, policy: Policy, looked: Looked, fresh: Fresh, acceptor: Acceptor, lanes: Lanes
    ) -> None:
        self._ports = ports
        self._policy = policy
        self._looked = looked
        self._fresh = fresh
        self._acceptor = acceptor
        self._lanes = lanes

    async def publish(self, request: Request) -> Accepted:
        """Stores and rings. When this returns, the message is owed.

        Raises Busy or Unavailable when the store fails; the message may then be delivered all the same.
        """
        watch = Stopwatch(self._ports.clock, request.asked_ms)
        message = await self._acceptor.make(request)
        if request.dedup:
            stored = await self._store_once(request, message, watch)
            if isinstance(stored, Accepted):
                return stored
            message = stored
        else:
            if message.lane:
                message = (await self._lanes.placed([message]))[0]
            await self._ports.table.write(_put(message))
            self._keep_at_hand(message)
        await self._acceptor.announce(message, watch)
        return Accepted(message.id, deduplicated=False)

    async def publish_all(self, requests: Sequence[Request]) -> list[Accepted | NotStored]:
        """Stores and rings requests of one account; tells of each, in order. Of those under one dedup name the first
        makes the message, and the others are its duplicates.

        Raises Busy or Unavailable when the store fails before anything was stored.
        """
        if not requests:
            return []
        watch = Stopwatch(self._ports.clock, requests[0].asked_ms)
        named: dict[str, int] = {}
        # For each, the place of the request that makes its message: its own, or that of the first of its name.
        makers = [named.setdefault(one.dedup, at) if one.dedup else at for at, one in enumerate(requests)]
        first = [at for at, maker in enumerate(makers) if at == maker]
        made = await self._acceptor.make_all([requests[at] for at in first])
        stored = dict(zip(first, await self._store_all([requests[at] for at in first], made, watch), strict=True))
        missed = await self._acceptor.announce_all([one for one in stored.values() if isinstance(one, Message)], watch)
        return [_told(stored[maker], missed, again=at != maker) for at, maker in enumerate(makers)]

    async def _store_all(
        self, requests: Sequence[Request], made: Sequence[Message | NotStored], watch: Stopwatch
    ) -> Sequence[Message | Accepted | NotStored]:
        """The messages that are new, and are still to be announced; of others what became of them."""
        pairs = list(zip(requests, made, strict=True))
        plain = [one for request, one in pairs if isinstance(one, Message) and not request.dedup]
        placed = {one.id: one for one in await self._lanes.placed(plain)}
        failed = await self._write_all(list(placed.values()), watch) if plain else {}

        async def store(both: tuple[Request, Message | NotStored]) -> Message | Accepted | NotStored:
            request, one = both
            if isinstance(one, NotStored):
                return one
            if not request.dedup:
                return failed.get(one.id, placed[one.id])
            return await self._tried(lambda: self._store_once(request, one, watch), watch)

        return await some_at_once(store, pairs)

    async def _write_all(self, messages: Sequence[Message], watch: Stopwatch) -> Mapping[str, NotStored]:
        """New messages without conditions. Returns, by id, those that nobody may rely on."""
        failed: dict[str, NotStored] = {}

        async def write(message: Message) -> None:
            written = await self._tried(lambda: self._ports.table.write(Put(message.to_item())), watch)
            if isinstance(written, NotStored):
                failed[message.id] = written

        try:
            await self._ports.table.write_many([_put(message) for message in messages])
        except (Busy, Unavailable, TooLarge):
            # Any of them may stand, and even be delivered already. One by one, it is known of each.
            await some_at_once(write, messages)
        for message in messages:
            if message.id not in failed:
                self._keep_at_hand(message)
        return failed

    async def _tried(self, write: Callable[[], Awaitable[T]], watch: Stopwatch) -> T | NotStored:
        """Nothing more is begun when the whole has taken long."""
        if watch.took_ms() >= _LONG_MS or watch.late(self._ports.clock.now_ms()):
            return NotStored("the message store failed, try again: it takes too long")
        try:
            return await write()
        except (Busy, Unavailable) as failed:
            return NotStored.because(failed)
        except TooLarge as wrong:
            return NotStored(f"the message is too large to be stored, make it smaller: {wrong}", lasting=True)

    async def _store_once(self, request: Request, message: Message, watch: Stopwatch) -> Message | Accepted:
        """Returns the one message under the request's dedup name, which is still to be announced, or tells of one that
        was first and needs nothing more."""
        winner_id = await self._claim_dedup(request, message.id)
        if winner_id != message.id:
            await self._help(message.under(winner_id), watch)
            return Accepted(winner_id, deduplicated=True)
        stored = await self._put_if_absent(message)
        self._keep_at_hand(stored)
        return stored

    def _keep_at_hand(self, message: Message) -> None:
        if message.due_ms <= self._ports.clock.now_ms():
            self._fresh.keep(message)

    async def _claim_dedup(self, request: Request, message_id: str) -> str:
        """Returns the id of the one message that this window has for the request's dedup name."""
        now = self._ports.clock.now_ms()
        until = now + (request.dedup_ms or self._policy.dedup_window_ms)
        key = Key(f"{request.account}#dedup#{digest(request.dedup)}", "dedup")
        absent_or_expired = AnyOf((Absent("id"), AtMost("until", now)))
        entry = {"pk": key.pk, "sk": key.sk, "v": VERSION, "id": message_id, "until": until, "ttl": until // 1000 + 60}
        try:
            await self._ports.table.write(Put(entry, when=absent_or_expired))
        except ConditionFailed as lost:
            if lost.item is None:
                raise
            return str(lost.item["id"])
        return message_id

    async def _help(self, message: Message, watch: Stopwatch) -> None:
        """Completes a first publisher that may have died anywhere. `message` is our own under the winner's id."""
        table, now = self._ports.table, self._ports.clock.now_ms()
        standing = Message.from_item(await table.get(message.key), now)
        state_item = await table.get(message.state_key)
        if State.from_item(state_item).phase.final:
            return
        reminded = self._looked.may_have_passed(message.place.minute, now)
        if reminded:
            await self._acceptor.remind(message, tell=standing is None)
        if standing is None:
            message = await self._put_if_absent(message)
        now = self._ports.clock.now_ms()
        if watch.late(now) or (not reminded and self._looked.may_have_passed(message.place.minute, now)):
            await self._acceptor.remind(message, tell=standing is None)
        if state_item is None:
            await self._acceptor.ring(standing or message)

    async def _put_if_absent(self, message: Message) -> Message:
        """Returns the one that stands: another publisher under the same dedup name may have stored it first."""
        [placed] = await self._lanes.placed([message])
        try:
            await self._ports.table.write(Put(placed.to_item(), when=Absent("id")))
        except ConditionFailed as refused:
            await self._lanes.forget_place(placed)
            return Message.from_item(refused.item, self._ports.clock.now_ms()) or placed
        return placed


def _put(message: Message) -> Put:
    return Put(message.to_item(), unborn=(message.state_key,))


def _told(
    stored: Message | Accepted | NotStored, missed: Mapping[str, NotStored], *, again: bool
) -> Accepted | NotStored:
    if isinstance(stored, Message):
        return missed.get(stored.id) or Accepted(stored.id, deduplicated=again)
    return stored
