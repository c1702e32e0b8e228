"""One attempt: claim, sign, send, settle. The claim decides who may send; the token decides who may settle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from waypost.core import limits
from waypost.core.accept import Acceptor
from waypost.core.body import BodyMissing, load_body
from waypost.core.callback import callback_request, name_from
from waypost.core.dead_letters import capped_headers, cut, dead_letter, letter_id
from waypost.core.fresh import Fresh
from waypost.core.ids import place_of, random_name
from waypost.core.lane import QUEUE_DELETED, Turn
from waypost.core.lanes import Admission, Lanes
from waypost.core.llm import KeyMissing, Llm
from waypost.core.log import Log
from waypost.core.message import (
    LEASE_MARGIN_MS,
    Message,
    Phase,
    State,
    message_key,
    parse_ref,
    place_in_line,
)
from waypost.core.order import OpenOrders
from waypost.core.policy import Policy
from waypost.core.ports import (
    LONGEST_BELL_MS,
    AllOf,
    Answer,
    Bell,
    Busy,
    Change,
    Condition,
    ConditionFailed,
    NoAnswer,
    Outgoing,
    Ports,
    Present,
    Put,
    Unavailable,
    Write,
)
from waypost.core.reminder import Looked, Stopwatch, remind
from waypost.core.retry import Delivered, RetryAt, after_attempt, is_success
from waypost.core.signing import SigningKeys, sign
from waypost.core.terms import LaneKind, hidden
from waypost.core.transitions import (
    NOT_STOPPED,
    WAITING,
    claim_condition,
    claim_in_place,
    ended,
    is_abandoned,
    lease,
    needs_reminder,
    retry_later,
    settle_condition,
    under_way,
)

#: The request is over this long before the lease ends.
_SETTLE_MARGIN_MS = 10_000
#: A bell this early waits in the worker; an earlier one rings itself again.
_WAIT_HERE_MS = 1_000
#: Pauses between tries to settle, while the store is busy.
_SETTLE_PAUSE_MS = 200
#: An attempt that the store kept from being made is due, or rung, again after this.
AGAIN_MS = 1_000


class Attempt(Struct, frozen=True):
    """A claimed message: whoever holds this may send once, and settle while `token` stands in its state."""

    message: Message
    state: State


class _End(NamedTuple):
    """What an attempt came to, and what is stored with it. All of it is of one time: a callback names the dead letter,
    whose name has the time in it."""

    at_ms: int
    state: State
    watch: Stopwatch
    callbacks: Sequence[Message]


class Deliverer:
    def __init__(
        self,
        ports: Ports,
        policy: Policy,
        looked: Looked,
        fresh: Fresh,
        signing_keys: Callable[[str], Awaitable[SigningKeys]],
        acceptor: Acceptor,
        orders: OpenOrders,
        lanes: Lanes,
        llm: Llm,
        log: Log,
    ) -> None:
        self._ports = ports
        self._policy = policy
        self._looked = looked
        self._fresh = fresh
        self._orders = orders
        self._lanes = lanes
        self._llm = llm
        self._signing_keys = signing_keys
        self._acceptor = acceptor
        self._log = log
        self._under_way: dict[str, Attempt] = {}

    async def find(self, ref: str) -> Message | None:
        """The message that a bell speaks of; None if it is gone."""
        fresh = self._fresh.take(ref)
        if fresh is not None:
            return fresh
        account, message_id = parse_ref(ref)
        place = place_of(message_id)
        if place is None:
            return None
        item = await self._ports.table.get(message_key(account, message_id, place))
        return Message.from_item(item, self._ports.clock.now_ms())

    async def deliver(self, message: Message) -> State | None:
        """Makes the attempt that is due, if one is due and nobody else is making it. Returns what it came to, None if
        it was not made or is no longer ours to tell.

        Raises Busy or Unavailable when the store fails before the request was sent: ring again later.
        """
        attempt = await self._claim(message)
        if attempt is None:
            return None
        self._under_way[attempt.state.token] = attempt
        try:
            if await self._ordered_off(attempt):
                return None
            prepared = await self._prepared(attempt)
            if not message.lane:
                return await self._make(attempt, prepared)
            # Last of all: nothing is to come between this and the request.
            admission = await self._admitted(attempt)
            if admission is None:
                return None
            making = self._make(Attempt(message, replace(attempt.state, window_ms=admission.window_ms)), prepared)
            if not admission.heard_of:
                return await making
            end, _ = await asyncio.gather(making, self._lanes.begin(message, place_in_line(message, attempt.state)))
            return end
        finally:
            del self._under_way[attempt.state.token]

    def let_go(self) -> list[Coroutine[Any, Any, None]]:
        """Before a stop: each gives back an attempt that is under way, due at once, neither a crash nor a retry.

        What such an attempt still comes to is no longer written.
        """
        now = self._ports.clock.now_ms()
        return [self._put_back(attempt, now, may_have_begun=True) for attempt in self._under_way.values()]

    # Claim -----------------------------------------------------------------------------------------------------------

    async def _claim(self, message: Message) -> Attempt | None:
        now = self._ports.clock.now_ms()
        early_ms = message.due_ms - now
        if early_ms > 0 and not await self._is_made_due(message, early_ms):
            if not await self._wait_or_ring_again(message, early_ms):
                return None
            now = self._ports.clock.now_ms()
        try:
            # Undone only by a crash, which undoes everything after it too: then the attempt in flight is made again.
            free = claim_in_place(message, now) if message.lane else claim_condition(now)
            item = await self._ports.table.write(self._lease(message, now, free), relaxed=not message.lane)
        except ConditionFailed as refused:
            return await self._after_refused_claim(message, State.from_item(refused.item))
        return Attempt(message, State.from_item(item))

    async def _after_refused_claim(self, message: Message, state: State) -> Attempt | None:
        now = self._ports.clock.now_ms()
        if state.phase is Phase.RETRY and state.due_ms > now and not state.stop:
            if message.lane and not place_in_line(message, state):
                await self._lanes.stands_nowhere(message)
            if await self._wait_or_ring_again(message, state.due_ms - now):
                return await self._claim(message)
        elif state.phase.final:
            await self._lanes.leave(message, state, place_in_line(message, state))
        elif state.phase is not Phase.ACTIVE and message.lane and not place_in_line(message, state):
            await self._arrive(message, state)
        elif state.phase is Phase.RETRY and not state.stop:
            return await self._claim(message)  # It has come due since.
        elif state.phase is Phase.ACTIVE and is_abandoned(state, now, self._policy.boot):
            return await self._take_over(message, state, now)
        return None

    async def _arrive(self, message: Message, state: State) -> None:
        """Takes a place in its lane's line, or ends with its queue."""
        if not await self._lanes.arrive(message, state):
            with contextlib.suppress(ConditionFailed):
                await self._end_with_queue(message, state, WAITING)

    async def _take_over(self, message: Message, state: State, now: int) -> Attempt | None:
        """The worker before us did not return: a crash, which costs no retry of the user's."""
        crashed = replace(state, crashes=state.crashes + 1)
        place = place_in_line(message, state)
        held = under_way(state)
        try:
            if state.stop or await self._orders.cover(message):
                await self._end_cancelled(message, crashed, now, held)
                return None
            held = AllOf((*held.conditions, NOT_STOPPED))
            if crashed.crashes >= limits.CRASHES:
                await self._give_up(message, crashed, now, held)
                return None
            if _starts_once_in_place(message):
                waiting = replace(crashed, due_ms=now, out_of_line=True)
                await self._ports.table.write(retry_later(message, waiting, held))
                await self._lanes.leave(message, waiting, place)
                await self._arrive(message, replace(waiting, phase=Phase.RETRY))
                return None
            item = await self._ports.table.write(self._lease(message, now, held, crashed.crashes))
        except ConditionFailed:
            return None  # Somebody else took it over, or its worker came back after all.
        return Attempt(message, State.from_item(item))

    async def _give_up(self, message: Message, crashed: State, now: int, held: Condition) -> None:
        """Ends a message whose attempts don't return. Raises ConditionFailed."""
        outcome = NoAnswer("delivery did not return")
        lost = _with_attempt(message, crashed, outcome, now, now)
        watch = Stopwatch(self._ports.clock, now)
        lost = replace(lost, phase=Phase.FAILED, ended_ms=now)
        callbacks = await self._callbacks(message, lost, outcome, now, attempted=False)
        lost = _waited_for(message, lost, callbacks)
        end = ended(message, lost, Phase.FAILED, now, when=held)
        letter = dead_letter(message, lost, now, outcome, self._policy)
        await self._ports.table.write_together([end, letter, *(Put(one.to_item()) for one in callbacks)])
        self._log.settled(message, lost, now)
        for one in callbacks:
            await self._acceptor.announce(one, watch)
        await self._lanes.leave(message, lost, place_in_line(message, lost))

    async def _end_with_queue(self, message: Message, state: State, held: Condition) -> None:
        """Raises ConditionFailed."""
        await self._end_cancelled(message, replace(state, why=QUEUE_DELETED), self._ports.clock.now_ms(), held)

    async def _end_cancelled(self, message: Message, state: State, now: int, held: Condition) -> None:
        """Raises ConditionFailed."""
        await self._ports.table.write(ended(message, state, Phase.CANCELLED, now, when=held))
        self._log.canceled(message, now)
        await self._lanes.leave(message, replace(state, phase=Phase.CANCELLED), place_in_line(message, state))

    async def _ordered_off(self, attempt: Attempt) -> bool:
        """Whether an order covers what was claimed; it is cancelled then."""
        message, state = attempt.message, attempt.state
        try:
            if not await self._orders.cover(message):
                return False
            now = self._ports.clock.now_ms()
            await self._end_cancelled(message, state, now, under_way(state))
        except (Busy, Unavailable):
            await self._put_back(attempt, self._ports.clock.now_ms() + AGAIN_MS)
            raise
        except ConditionFailed:
            return True  # It took effect and its answer was lost, or the lease was over before that.
        self._log.cancel_requested(message, now)
        return True

    async def _admitted(self, attempt: Attempt) -> Admission | None:
        """None: its lane does not let it start now."""
        message, state = attempt.message, attempt.state
        place = place_in_line(message, state)
        try:
            admission = await self._lanes.turn(message, place)
            if admission.turn is Turn.NOW:
                return admission
            now = self._ports.clock.now_ms()
            if admission.turn is Turn.NEVER:
                with contextlib.suppress(ConditionFailed):
                    await self._end_with_queue(message, state, under_way(state))
                return None
        except (Busy, Unavailable):
            await self._put_back(attempt, self._ports.clock.now_ms() + AGAIN_MS)
            raise
        await self._put_back(attempt, now)
        await self._lanes.wait(message, state, admission.turn)
        return None

    def _lease(self, message: Message, now: int, when: Condition, crashes: int = 0) -> Change:
        """The write that claims the message."""
        lease_ms = now + message.terms.timeout_ms + LEASE_MARGIN_MS
        return lease(message, random_name(self._ports.random), lease_ms, self._policy.boot, when, crashes)

    async def _is_made_due(self, message: Message, early_ms: int) -> bool:
        """Whether its state and no longer its own due time decides. Not asked where waiting is as good."""
        if early_ms <= _WAIT_HERE_MS:
            return False
        return await self._ports.table.get(message.state_key) is not None

    async def _wait_or_ring_again(self, message: Message, early_ms: int) -> bool:
        """True: waited, it is due. False: too early for that, a bell of its own or its reminder will bring it back."""
        if early_ms <= _WAIT_HERE_MS:
            await self._ports.clock.sleep_ms(early_ms)
            return True
        await self._ring(message, early_ms)
        return False

    # Send ------------------------------------------------------------------------------------------------------------

    async def _prepared(self, attempt: Attempt) -> Outgoing | NoAnswer:
        """The signed request, or why there can be none."""
        try:
            return await self._prepare(attempt)
        except (BodyMissing, KeyMissing) as lost:
            return NoAnswer(str(lost))
        except (Busy, Unavailable):
            await self._put_back(attempt, self._ports.clock.now_ms() + AGAIN_MS)
            raise

    async def _make(self, attempt: Attempt, prepared: Outgoing | NoAnswer) -> State | None:
        """The attempt itself. Returns what it came to, None as `deliver` does."""
        started_ms = self._ports.clock.now_ms()
        self._log.active(attempt.message, started_ms)
        outcome = prepared if isinstance(prepared, NoAnswer) else await self._send(attempt, prepared)
        return await self._settle(attempt, outcome, started_ms) if outcome else None

    async def _send(self, attempt: Attempt, request: Outgoing) -> Answer | NoAnswer | None:
        """None: held up for so long that the lease leaves no time for it."""
        left = attempt.state.lease_ms - _SETTLE_MARGIN_MS - self._ports.clock.now_ms()
        if left <= 0:
            return None
        if left < request.timeout_ms:
            request = replace(request, timeout_ms=left)
        return await self._ports.sender.send(request)

    async def _put_back(self, attempt: Attempt, due_ms: int, *, may_have_begun: bool = False) -> None:
        """Undoes the claim of an attempt that was not made, or that nobody will wait for."""
        message, state = attempt.message, attempt.state
        out = may_have_begun and _starts_once_in_place(message)
        waiting = replace(
            state, phase=Phase.RETRY, due_ms=due_ms, out_of_line=out, given_back=state.given_back or may_have_begun
        )
        try:
            await self._write_retry(message, waiting, settle_condition(state))
        except ConditionFailed:
            # Cancelled meanwhile; or taken over, which leaves it to who did.
            cancelled = AllOf((*under_way(state).conditions, Present("stop")))
            with contextlib.suppress(ConditionFailed):
                await self._end_cancelled(message, state, self._ports.clock.now_ms(), cancelled)

    async def _prepare(self, attempt: Attempt) -> Outgoing:
        message, state = attempt.message, attempt.state
        body = await load_body(message.body, self._ports.blobs)
        keys = await self._signing_keys(message.account)
        jti = f"jwt_{random_name(self._ports.random)}"
        signature = sign(keys, url=message.url, body=body, now_ms=self._ports.clock.now_ms(), jti=jti)
        headers = delivery_headers(message, state.retried, signature, self._policy.region)
        if message.via.api:
            headers += self._authorization(message)
        return Outgoing(message.terms.method, message.url, headers, body, message.terms.timeout_ms)

    def _authorization(self, message: Message) -> Sequence[tuple[str, str]]:
        """The model service's key, unless the publisher gave one. What was accepted for another service doesn't get
        it."""
        given = any(name == "Authorization" for name, _ in message.terms.headers)
        key = "" if given or message.url != self._llm.url else self._llm.key()
        return [("Authorization", f"Bearer {key}")] if key else ()

    # Settle ----------------------------------------------------------------------------------------------------------

    async def _settle(self, attempt: Attempt, outcome: Answer | NoAnswer, started_ms: int) -> State | None:
        """Writes what the attempt came to, if it is still ours to write; keeps trying until the lease ends."""
        state = attempt.state
        message = attempt.message
        place = place_in_line(message, state)
        end: _End | None = None
        while True:
            now = self._ports.clock.now_ms()
            try:
                if end is None and not state.stop and not is_success(outcome) and await self._orders.cover(message):
                    # The order has not come so far; to whoever was answered it is cancelled all the same.
                    state = replace(state, stop=now)
                # Made anew when a look may have come to the minute that the callbacks were made for.
                if end is None or end.watch.late(now):
                    settled = self._after(message, state, outcome, started_ms, now)
                    watch = Stopwatch(self._ports.clock, now)
                    callbacks = await self._callbacks(message, settled, outcome, now)
                    end = _End(now, _waited_for(message, settled, callbacks), watch, callbacks)
                await self._write_settled(message, end.state, settle_condition(state), outcome, end.callbacks)
            except ConditionFailed as refused:
                standing = State.from_item(refused.item)
                if standing.token == state.token and standing.stop and not state.stop:
                    state, end = replace(state, stop=standing.stop), None
                    continue
                # Ours took effect and its answer was lost, or it was never ours: a bell too many does no harm.
                if standing.phase is Phase.RETRY or standing.phase is Phase.CREATED:
                    await self._ring(message, max(0, standing.due_ms - now))
                for one in end.callbacks if end else ():
                    await self._acceptor.ring(one)
                await self._lanes.leave(message, standing, place)
                return None
            except (Busy, Unavailable):
                if now >= state.lease_ms:
                    raise
                await self._ports.clock.sleep_ms(_SETTLE_PAUSE_MS)
                continue
            self._log.settled(message, end.state, end.at_ms)
            for one in end.callbacks:
                await self._acceptor.announce(one, end.watch)
            await self._lanes.leave(message, end.state, place)
            if end.state.phase is Phase.RETRY:
                await self._ring(message, end.state.due_ms - self._ports.clock.now_ms())
            return end.state

    async def _callbacks(
        self, message: Message, settled: State, outcome: Answer | NoAnswer, now: int, *, attempted: bool = True
    ) -> Sequence[Message]:
        """The messages that tell of this, to be stored together with it."""
        terms = message.terms
        failed = terms.failure_callback if settled.phase is Phase.FAILED else None
        wanted = [one for one in (terms.callback if attempted else None, failed) if one]
        if not wanted:
            return ()
        try:
            body = await load_body(message.body, self._ports.blobs)
        except BodyMissing:
            body = b""
        return [
            await self._acceptor.make(
                callback_request(
                    one,
                    message,
                    body,
                    outcome,
                    retried=settled.retried - (settled.phase is not Phase.DELIVERED and attempted),
                    now_ms=now,
                    dlq_id=letter_id(message, settled, now) if one is failed else "",
                ),
                name_from(message.id, settled.token, "failure" if one is failed else "attempt"),
            )
            for one in wanted
        ]

    def _after(self, message: Message, state: State, outcome: Answer | NoAnswer, started_ms: int, now: int) -> State:
        """The state that follows. Pure, but for the figures of the policy."""
        plan = after_attempt(outcome, message.terms, retried=state.retried, backoff=self._policy.backoff, now_ms=now)
        if isinstance(plan, Delivered):
            delivered = _with_attempt(message, state, outcome, started_ms, now)
            return replace(delivered, phase=Phase.DELIVERED, ended_ms=now)
        retries = isinstance(plan, RetryAt) and not state.stop
        due_ms = plan.due_ms if isinstance(plan, RetryAt) and retries else 0
        failed = replace(_with_attempt(message, state, outcome, started_ms, now, due_ms), retried=state.retried + 1)
        if state.stop:
            return replace(failed, phase=Phase.CANCELLED, ended_ms=now)
        if retries:
            return replace(failed, phase=Phase.RETRY, due_ms=due_ms, out_of_line=_starts_once_in_place(message))
        return replace(failed, phase=Phase.FAILED, ended_ms=now)

    async def _write_settled(
        self,
        message: Message,
        settled: State,
        held: Condition,
        outcome: Answer | NoAnswer,
        callbacks: Sequence[Message],
    ) -> None:
        told = [Put(one.to_item()) for one in callbacks]
        if settled.phase is Phase.RETRY:
            await self._write_retry(message, settled, held, told)
            return
        end = ended(message, settled, settled.phase, settled.ended_ms, when=held)
        if settled.phase is Phase.FAILED:
            told.append(dead_letter(message, settled, settled.ended_ms, outcome, self._policy))
        await self._write_all([end, *told])

    async def _write_retry(
        self, message: Message, waiting: State, held: Condition, together_with: Sequence[Put] = ()
    ) -> None:
        """The reminder first: whoever makes a message due owes it one."""
        if needs_reminder(self._looked, message, self._ports.clock.now_ms()):
            await remind(self._ports, message.ref, waiting.due_ms, self._policy.shards)
        await self._write_all([retry_later(message, waiting, when=held), *together_with])

    async def _write_all(self, writes: Sequence[Write]) -> None:
        if len(writes) == 1:
            await self._ports.table.write(writes[0])
        else:
            await self._ports.table.write_together(writes)

    async def _ring(self, message: Message, delay_ms: int) -> None:
        if delay_ms <= LONGEST_BELL_MS:
            await self._ports.doorbell.ring([Bell(message.ref, max(0, delay_ms), message.terms.timeout_ms)])


# Decisions -----------------------------------------------------------------------------------------------------------


def _starts_once_in_place(message: Message) -> bool:
    """Under a flow-control key each attempt takes its turn again."""
    lane = message.terms.lane
    return lane is not None and lane.kind is LaneKind.KEY


def _waited_for(message: Message, settled: State, callbacks: Sequence[Message]) -> State:
    """Its queue waits for these, too."""
    lane = message.terms.lane
    if lane is None or lane.kind is not LaneKind.QUEUE or not callbacks:
        return settled
    names = (*settled.callbacks, *(one.id for one in callbacks))
    return replace(settled, callbacks=names[-limits.AWAITED_CALLBACKS :])


def _with_attempt(
    message: Message, state: State, outcome: Answer | NoAnswer, started_ms: int, now_ms: int, next_ms: int = 0
) -> State:
    """The state with one more attempt that came back. An endpoint may have made an echo of what is redacted."""
    earlier = state.earlier
    if state.last:
        before = tuple([state.last.get(name, 0) for name in ("at", "ms", "status", "error", "next", "window")])
        earlier = (*earlier, before)[-limits.ATTEMPTS_BEFORE_LAST :]
    last: dict[str, Any] = {"at": started_ms, "ms": max(0, now_ms - started_ms), "status": 0, "error": ""}
    if state.window_ms:
        last["window"] = state.window_ms
    if isinstance(outcome, NoAnswer):
        last["error"] = outcome.reason[: limits.ERROR_LENGTH]
    else:
        last["status"] = outcome.status
    if not is_success(outcome):
        last["next"] = next_ms
    if isinstance(outcome, Answer) and not is_success(outcome):
        headers, body = (
            capped_headers(outcome.headers, limits.ATTEMPT_ANSWER_HEADERS),
            cut(outcome.body, limits.ATTEMPT_ANSWER),
        )
        if message.terms.redacted:
            headers = [[name, hidden(value.encode())] for name, value in headers]
            body = hidden(outcome.body).encode()
        last["headers"], last["body"] = headers, body
    return replace(state, last=last, earlier=earlier)


def delivery_headers(message: Message, retried: int, signature: str, region: str) -> list[tuple[str, str]]:
    """What the destination gets, besides Host and framing."""
    return [
        *_own_agent(message.terms.headers),
        *message.terms.headers,
        ("Upstash-Message-Id", message.id),
        ("Upstash-Retried", str(retried)),
        ("Upstash-Signature", signature),
        ("Upstash-Caller-Ip", message.caller_ip),
        ("Upstash-Region", region),
        *((("Upstash-Topic-Name", message.via.topic),) if message.via.topic else ()),
        *((("Upstash-Schedule-Id", message.via.schedule),) if message.via.schedule else ()),
    ]


def _own_agent(headers: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Who is calling, unless the publisher has said so."""
    for name, _ in headers:
        if name == "User-Agent":
            return ()
    return (("User-Agent", "Upstash-QStash"),)
