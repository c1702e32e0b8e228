"""Accepting a message: it is durable, and found again whatever dies, before anybody is told so."""

from __future__ import annotations

from msgspec import Struct

from waypost.core.accept import Acceptor, Request
from waypost.core.fresh import Fresh
from waypost.core.message import VERSION, Message, State, digest
from waypost.core.policy import Policy
from waypost.core.ports import Absent, AnyOf, AtMost, ConditionFailed, Key, Ports, Put
from waypost.core.reminder import Looked, Stopwatch


class Accepted(Struct, frozen=True):
    message_id: str
    deduplicated: bool


class Publisher:
    def __init__(self, ports: Ports, policy: Policy, looked: Looked, fresh: Fresh, acceptor: Acceptor) -> None:
        self._ports = ports
        self._policy = policy
        self._looked = looked
        self._fresh = fresh
        self._acceptor = acceptor

    async def publish(self, request: Request) -> Accepted:
        """Stores and rings. When this returns, the message is owed.

        Raises Busy or Unavailable when the store fails; the message may then be delivered all the same.
        """
        watch = Stopwatch(self._ports.clock, request.asked_ms)
        message = await self._acceptor.make(request)
        ours = True
        if request.dedup:
            winner_id = await self._claim_dedup(request, message.id)
            if winner_id != message.id:
                await self._help(message.under(winner_id), watch)
                return Accepted(winner_id, deduplicated=True)
            ours = await self._put_if_absent(message)
        else:
            await self._ports.table.write(Put(message.to_item(), unborn=(message.state_key,)))
        if ours and message.due_ms <= self._ports.clock.now_ms():
            self._fresh.keep(message)
        await self._acceptor.announce(message, watch)
        return Accepted(message.id, deduplicated=False)

    async def _claim_dedup(self, request: Request, message_id: str) -> str:
        """Returns the id of the one message that this window has for the request's dedup name."""
        now = self._ports.clock.now_ms()
        until = now + self._policy.dedup_window_ms
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
            await self._put_if_absent(message)
        now = self._ports.clock.now_ms()
        if watch.late(now) or (not reminded and self._looked.may_have_passed(message.place.minute, now)):
            await self._acceptor.remind(message, tell=standing is None)
        if state_item is None:
            await self._acceptor.ring(standing or message)

    async def _put_if_absent(self, message: Message) -> bool:
        """False: another publisher under the same dedup name stored it first. There is one message, as promised."""
        try:
            await self._ports.table.write(Put(message.to_item(), when=Absent("id")))
        except ConditionFailed:
            return False
        return True
