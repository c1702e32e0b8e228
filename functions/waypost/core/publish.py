"""Accepting a message: it is durable, and found again whatever dies, before anybody is told so."""

from __future__ import annotations

from msgspec import Struct

from waypost.core.body import store_body
from waypost.core.cursor import open_cursor
from waypost.core.fresh import Fresh
from waypost.core.ids import Place, make_message_id
from waypost.core.message import VERSION, Message, State, digest, life_ends_ms, partition_of
from waypost.core.policy import Policy
from waypost.core.ports import (
    LONGEST_BELL_MS,
    Absent,
    AnyOf,
    AtMost,
    Bell,
    ConditionFailed,
    Key,
    Ports,
    Put,
)
from waypost.core.reminder import LOOK_AFTER_MS, Looked, Stopwatch, remind


class Request(Struct, frozen=True):
    """A publish, checked and with every default filled in. `dedup` is empty, or names what may exist once a window."""

    account: str
    url: str
    method: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    asked_ms: int
    due_ms: int
    retries: int
    timeout_ms: int
    caller_ip: str
    dedup: str = ""


class Accepted(Struct, frozen=True):
    message_id: str
    deduplicated: bool


class Publisher:
    def __init__(self, ports: Ports, policy: Policy, looked: Looked, fresh: Fresh) -> None:
        self._ports = ports
        self._policy = policy
        self._looked = looked
        self._fresh = fresh

    async def publish(self, request: Request) -> Accepted:
        """Stores and rings. When this returns, the message is owed.

        Raises Busy or Unavailable when the store fails; the message may then be delivered all the same.
        """
        watch = Stopwatch(self._ports.clock, request.asked_ms)
        if not self._looked.minute:
            await open_cursor(self._ports, self._looked)
        place = Place(self._looked.minute_for_new_id(request.asked_ms), self._shard())
        message = await self._prepare(request, place)
        if request.dedup:
            winner_id = await self._claim_dedup(request, message.id)
            if winner_id != message.id:
                await self._help(message.under(winner_id), watch)
                return Accepted(winner_id, deduplicated=True)
            ours = await self._put_if_absent(message)
        else:
            await self._ports.table.write(Put(message.to_item(), unborn=(message.state_key,)))
            ours = True
        now = self._ports.clock.now_ms()
        if watch.late(now) or self._looked.may_have_passed(place.minute, now):
            await self._remind(message)
        if ours and message.due_ms <= now:
            self._fresh.keep(message)
        await self._ring(message, now)
        return Accepted(message.id, deduplicated=False)

    def _shard(self) -> int:
        shards = self._policy.shards
        return self._ports.random(1)[0] % shards if shards > 1 else 0

    async def _prepare(self, request: Request, place: Place) -> Message:
        now = request.asked_ms
        ttl = life_ends_ms(
            self._policy,
            due_ms=request.due_ms,
            retries_left=request.retries,
            timeout_ms=request.timeout_ms,
            now_ms=now,
        )
        body = await store_body(
            request.body,
            account=request.account,
            ttl_ms=ttl,
            now_ms=now,
            compress_from=self._policy.compress_from,
            blobs=self._ports.blobs,
            random=self._ports.random,
        )
        return Message(
            id=make_message_id(place, now, self._ports.random),
            pk=partition_of(place),
            account=request.account,
            url=request.url,
            method=request.method,
            headers=request.headers,
            created_ms=request.asked_ms,
            due_ms=request.due_ms,
            retries=request.retries,
            timeout_ms=request.timeout_ms,
            caller_ip=request.caller_ip,
            body=body,
            ttl_ms=ttl,
        )

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
            await self._remind(message)
        if standing is None:
            await self._put_if_absent(message)
        now = self._ports.clock.now_ms()
        if watch.late(now) or (not reminded and self._looked.may_have_passed(message.place.minute, now)):
            await self._remind(message)
        if state_item is None:
            await self._ring(standing or message, now)

    async def _put_if_absent(self, message: Message) -> bool:
        """Whether it is this one that stands there now."""
        try:
            await self._ports.table.write(Put(message.to_item(), when=Absent("id")))
        except ConditionFailed:
            # Another publisher under the same dedup name stored it first: there is one message, as promised.
            return False
        return True

    async def _remind(self, message: Message) -> None:
        at = self._ports.clock.now_ms() + LOOK_AFTER_MS
        await remind(self._ports, message.ref, at, self._policy.shards)

    async def _ring(self, message: Message, now: int) -> None:
        delay = max(0, message.due_ms - now)
        if delay <= LONGEST_BELL_MS:
            await self._ports.doorbell.ring([Bell(message.ref, delay, message.timeout_ms)])
