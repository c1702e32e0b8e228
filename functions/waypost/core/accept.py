"""Making a message, and telling of it once it is stored: whoever stores one does both here, be it a publisher, an
attempt that calls back, or an operator who retries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from waypost.core.body import store_body
from waypost.core.cursor import open_cursor
from waypost.core.ids import Place, make_message_id
from waypost.core.lanes import Lanes
from waypost.core.log import Log
from waypost.core.message import DIRECT, Message, Via, life_ends_ms, partition_of
from waypost.core.policy import Policy
from waypost.core.ports import LONGEST_BELL_MS, Bell, Busy, Ports, Randomness, Unavailable
from waypost.core.reminder import LOOK_AFTER_MS, Looked, Stopwatch, remind, reminder
from waypost.core.some_at_once import some_at_once
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
    #: How long such a name holds; 0: as long as the account's do.
    dedup_ms: int = 0
    via: Via = DIRECT
    #: The ref of a message whose queue waits until this has ended.
    holds_up: str = ""


class NotStored(Struct, frozen=True):
    """A message that nobody may rely on, since the store failed; it may be delivered all the same."""

    reason: str
    #: Another try would fail in the same way.
    lasting: bool = False

    @staticmethod
    def because(failed: Exception) -> NotStored:
        return NotStored(f"the message store failed, try again: {str(failed) or 'it is busy'}")


class Acceptor:
    def __init__(self, ports: Ports, policy: Policy, looked: Looked, lanes: Lanes, log: Log) -> None:
        self._ports = ports
        self._policy = policy
        self._looked = looked
        self._lanes = lanes
        self._log = log

    async def make(self, request: Request, random: Randomness | None = None) -> Message:
        """The message, in a minute that was not looked at; a blob is durable when this returns. `random`: where its
        name comes from."""
        if not self._looked.minute:
            await open_cursor(self._ports, self._looked)
        ttl_ms = self._life_ends_ms(request)
        return self._made(request, ttl_ms, await self._store_body(request, ttl_ms), random)

    async def make_all(self, requests: Sequence[Request]) -> list[Message | NotStored]:
        """Each one's message, in order. The same body with the same life is stored once: a blob is never deleted for
        one message's sake, so several may share it."""
        if not self._looked.minute:
            await open_cursor(self._ports, self._looked)
        lives = [self._life_ends_ms(request) for request in requests]
        sharing = {(one.body, ttl_ms): (one, ttl_ms) for one, ttl_ms in zip(requests, lives, strict=True)}
        bodies = dict(zip(sharing, await some_at_once(self._try_body, list(sharing.values())), strict=True))
        made: list[Message | NotStored] = []
        for request, ttl_ms in zip(requests, lives, strict=True):
            body = bodies[request.body, ttl_ms]
            made.append(body if isinstance(body, NotStored) else self._made(request, ttl_ms, body))
        return made

    async def announce(self, message: Message, watch: Stopwatch) -> None:
        """After it was stored, which began when `watch` did: a reminder, if the look may have missed it, and a bell, or
        its place in its lane's line."""
        if self._may_be_missed(watch)(message):
            await self.remind(message)
        await self.ring(message)

    async def announce_all(self, messages: Sequence[Message], watch: Stopwatch) -> Mapping[str, NotStored]:
        """Likewise. Returns, by id, those that needed more than a bell when the store failed: nobody may rely on
        them."""
        missed = list(filter(self._may_be_missed(watch), messages))
        failed: Mapping[str, NotStored] = {}
        try:
            await self._remind_all(missed)
        except (Busy, Unavailable) as reason:
            failed = {message.id: NotStored.because(reason) for message in missed}
        missing = await self._ring_all([message for message in messages if message.id not in failed])
        return {**failed, **missing}

    async def remind(self, message: Message, *, tell: bool = True) -> None:
        """For a message that the look may have missed: what the look would have done. `tell`: it is new."""
        if tell:
            self._log.created(message)
        at = self._ports.clock.now_ms() + LOOK_AFTER_MS
        await remind(self._ports, message.ref, at, self._policy.shards)

    async def ring(self, message: Message) -> None:
        """Raises Busy or Unavailable if it is not in line then."""
        if message.lane_place:
            await self._lanes.line_up([message])
        else:
            if message.lane:
                await self._lanes.bring_limits(message)
            await self._ring([message])

    async def _ring_all(self, messages: Sequence[Message]) -> Mapping[str, NotStored]:
        in_line: defaultdict[str, list[Message]] = defaultdict(list)
        others = []
        for message in messages:
            if message.lane_place:
                in_line[message.lane].append(message)
            else:
                others.append(message)
        last_of_each = {one.lane: one for one in others if one.lane}
        await some_at_once(self._lanes.bring_limits, list(last_of_each.values()))
        await self._ring(others)
        failed: dict[str, NotStored] = {}

        async def line_up(waiting: Sequence[Message]) -> None:
            try:
                await self._lanes.line_up(waiting)
            except (Busy, Unavailable) as reason:
                failed.update({message.id: NotStored.because(reason) for message in waiting})

        await some_at_once(line_up, list(in_line.values()))
        return failed

    def _life_ends_ms(self, request: Request) -> int:
        return life_ends_ms(
            self._policy,
            due_ms=request.due_ms,
            retries_left=request.terms.retries,
            timeout_ms=request.terms.timeout_ms,
            now_ms=request.asked_ms,
        )

    async def _store_body(self, request: Request, ttl_ms: int) -> Mapping[str, Any]:
        return await store_body(
            request.body,
            account=request.account,
            ttl_ms=ttl_ms,
            now_ms=request.asked_ms,
            compress_from=self._policy.compress_from,
            blobs=self._ports.blobs,
            random=self._ports.random,
        )

    async def _try_body(self, whose: tuple[Request, int]) -> Mapping[str, Any] | NotStored:
        try:
            return await self._store_body(*whose)
        except (Busy, Unavailable) as reason:
            return NotStored.because(reason)

    def _made(
        self, request: Request, ttl_ms: int, body: Mapping[str, Any], random: Randomness | None = None
    ) -> Message:
        now = request.asked_ms
        place = Place(self._looked.minute_for_new_id(now), self._shard())
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
            ttl_ms=ttl_ms,
            via=request.via,
            holds_up=request.holds_up,
        )

    def _may_be_missed(self, watch: Stopwatch) -> Callable[[Message], bool]:
        """Whether the look may have come before a message that was stored since the watch was started."""
        now = self._ports.clock.now_ms()
        late = watch.late(now)
        return lambda message: late or self._looked.may_have_passed(message.place.minute, now)

    async def _remind_all(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._log.created(message)
        at = self._ports.clock.now_ms() + LOOK_AFTER_MS
        if messages:
            await self._ports.table.write_many([reminder(one.ref, at, self._policy.shards) for one in messages])

    async def _ring(self, messages: Sequence[Message]) -> None:
        """What is due later than a bell carries is left to the reminders."""
        now = self._ports.clock.now_ms()
        waits = [(one, max(0, one.due_ms - now)) for one in messages]
        bells = [Bell(one.ref, wait, one.terms.timeout_ms) for one, wait in waits if wait <= LONGEST_BELL_MS]
        if bells:
            await self._ports.doorbell.ring(bells)

    def _shard(self) -> int:
        shards = self._policy.shards
        return self._ports.random(1)[0] % shards if shards > 1 else 0
