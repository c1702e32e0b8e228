"""Reading and cancelling one message, and making it due."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from msgspec.structs import replace

from waypost.core.errors import Conflict
from waypost.core.ids import place_of
from waypost.core.lanes import Lanes
from waypost.core.log import Log
from waypost.core.message import Message, Phase, State, due_of, message_key, place_in_line, state_key
from waypost.core.policy import Policy
from waypost.core.ports import (
    Absent,
    AllOf,
    AnyOf,
    Bell,
    Busy,
    Change,
    Condition,
    ConditionFailed,
    Equals,
    Ports,
    Unavailable,
)
from waypost.core.reminder import LOOK_AFTER_MS, remind
from waypost.core.transitions import due_at_once, ended, under_way


@dataclass(frozen=True, slots=True)
class Seen:
    message: Message
    state: State


class Messages:
    def __init__(self, ports: Ports, policy: Policy, lanes: Lanes, log: Log) -> None:
        self._ports = ports
        self._policy = policy
        self._lanes = lanes
        self._log = log

    async def read(self, account: str, message_id: str, *, kept_ms: int | None = None) -> Seen | None:
        """None for what is unknown, another account's, or ended longer ago than `kept_ms`, else than the retention."""
        place = place_of(message_id)
        if place is None:
            return None
        now = self._ports.clock.now_ms()
        message = Message.from_item(await self._ports.table.get(message_key(account, message_id, place)), now)
        if message is None:
            return None
        state = State.from_item(await self._ports.table.get(state_key(account, message_id, place)))
        kept_ms = self._policy.retention_ms if kept_ms is None else kept_ms
        if state.phase.final and state.ended_ms + kept_ms <= now:
            return None
        return Seen(message, state)

    async def cancel(self, account: str, message_id: str) -> bool | None:
        """True: no attempt starts after this; one under way is not broken off, and its success still counts.
        False: the message had ended, or been cancelled, before. None: there is no such message."""
        seen = await self.read(account, message_id)
        return await self.stop(seen.message, seen.state) is None if seen else None

    async def stop(self, message: Message, state: State, *, in_line: bool = True, why: str = "") -> State | None:
        """Cancels a message that is at hand. Its state may be an older one. Returns the one that is in the way: the
        message has ended, or been cancelled; None: there is none. `in_line`: it may stand in its lane's line. `why`: if
        nobody named it."""
        while not (state.phase.final or state.stop):
            now = self._ports.clock.now_ms()
            try:
                await self._ports.table.write(self._cancellation(message, replace(state, why=why), now))
            except ConditionFailed as refused:
                state = State.from_item(refused.item)
            else:
                self._log.cancel_requested(message, now)
                if state.phase is not Phase.ACTIVE:
                    self._log.canceled(message, now)
                    await self._lanes.leave_line(message, state, in_line=in_line)
                return None
        return state

    async def retry(self, account: str, message_id: str) -> bool:
        """Makes a waiting message due at once. False: there is no such message. Raises Conflict where none waits."""
        seen = await self.read(account, message_id)
        if seen is None:
            return False
        message, state = seen.message, seen.state
        if state.phase in (Phase.CREATED, Phase.RETRY) and not state.stop:
            now = self._ports.clock.now_ms()
            due_ms = due_of(message, state)
            if due_ms <= now and place_in_line(message, state):
                await self._ports.doorbell.ring([Bell(message.lane_ref, 0)])
                return True  # It has its turn when it has: nobody is passed over.
            try:
                # Whoever makes a message due owes it a reminder first. A tick in between must leave it alone.
                await remind(self._ports, message.ref, now + LOOK_AFTER_MS, self._policy.shards)
                due = State.from_item(await self._ports.table.write(due_at_once(message, now)))
            except ConditionFailed as refused:
                state = State.from_item(refused.item)
            else:
                await self._go_on(message, due)
                return True
        if state.phase.final:
            raise Conflict(f"message {message_id} has ended as {state.phase}: it can't be made due; publish it anew")
        raise Conflict(f"message {message_id} is being delivered: read what comes of it, then ask again")

    async def _go_on(self, message: Message, due: State) -> None:
        """Takes its place in its lane before anybody is answered: who comes later stands behind it."""
        if message.lane and not place_in_line(message, due):
            with contextlib.suppress(Busy, Unavailable):
                if await self._lanes.arrive(message, due):
                    return
        await self._ports.doorbell.ring([Bell(message.ref, 0, message.terms.timeout_ms)])

    def _cancellation(self, message: Message, state: State, now: int) -> Change:
        if state.phase is Phase.ACTIVE:
            return Change(message.state_key, set={"stop": now}, when=under_way(state))
        # As it was read, or an attempt that came in between would be forgotten.
        waiting: Condition = Absent("state")
        if state.phase is Phase.RETRY:
            retried: Condition = Equals("retried", state.retried)
            retried = retried if state.retried else AnyOf((retried, Absent("retried")))
            waiting = AllOf((Equals("state", Phase.RETRY.value), retried))
        return ended(message, state, Phase.CANCELLED, now, when=waiting)
