"""Making a message, and telling of it once it is stored: whoever stores one does both here, be it a publisher, an
attempt that calls back, or an operator who retries."""

from __future__ import annotations

from msgspec import Struct

from waypost.core.body import store_body
from waypost.core.cursor import open_cursor
from waypost.core.ids import Place, make_message_id
from waypost.core.log import Log
from waypost.core.message import Message, life_ends_ms, partition_of
from waypost.core.policy import Policy
from waypost.core.ports import LONGEST_BELL_MS, Bell, Ports, Randomness
from waypost.core.reminder import LOOK_AFTER_MS, Looked, Stopwatch, remind
from waypost.core.terms import Terms


class Request(Struct, frozen=True):
    """What is to be sent, checked and with every default filled in. `dedup` is empty, or names what may exist once a
    window."""

    account: str
    url: str
    terms: Terms
    body: bytes
    asked_ms: int
    due_ms: int
    caller_ip: str
    dedup: str = ""


class Acceptor:
    def __init__(self, ports: Ports, policy: Policy, looked: Looked, log: Log) -> None:
        self._ports = ports
        self._policy = policy
        self._looked = looked
        self._log = log

    async def make(self, request: Request, random: Randomness | None = None) -> Message:
        """The message, in a minute that was not looked at; a blob is durable when this returns. `random`: where its
        name comes from."""
        if not self._looked.minute:
            await open_cursor(self._ports, self._looked)
        now = request.asked_ms
        place = Place(self._looked.minute_for_new_id(now), self._shard())
        ttl = life_ends_ms(
            self._policy,
            due_ms=request.due_ms,
            retries_left=request.terms.retries,
            timeout_ms=request.terms.timeout_ms,
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
            id=make_message_id(place, now, random or self._ports.random),
            pk=partition_of(place),
            account=request.account,
            url=request.url,
            terms=request.terms,
            created_ms=now,
            due_ms=request.due_ms,
            caller_ip=request.caller_ip,
            body=body,
            ttl_ms=ttl,
        )

    async def announce(self, message: Message, watch: Stopwatch) -> None:
        """After it was stored, which began when `watch` did: a reminder, if the look may have missed it, and a bell."""
        now = self._ports.clock.now_ms()
        if watch.late(now) or self._looked.may_have_passed(message.place.minute, now):
            await self.remind(message)
        await self.ring(message)

    async def remind(self, message: Message, *, tell: bool = True) -> None:
        """For a message that the look may have missed: what the look would have done. `tell`: it is new."""
        if tell:
            self._log.created(message)
        at = self._ports.clock.now_ms() + LOOK_AFTER_MS
        await remind(self._ports, message.ref, at, self._policy.shards)

    async def ring(self, message: Message) -> None:
        delay = max(0, message.due_ms - self._ports.clock.now_ms())
        if delay <= LONGEST_BELL_MS:
            await self._ports.doorbell.ring([Bell(message.ref, delay, message.terms.timeout_ms)])

    def _shard(self) -> int:
        shards = self._policy.shards
        return self._ports.random(1)[0] % shards if shards > 1 else 0
