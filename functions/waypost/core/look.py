"""The tick: how nothing unfinished is forgotten, without an index.

Each minute's messages are read once when the minute has been over for a while (the look), and once more half an hour
later. What is unfinished then gets a reminder, and a reminder is moved on until its message is final.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from waypost.core.body import BodyMissing, prolong_body
from waypost.core.cursor import move_cursor, open_cursor, read_cursor
from waypost.core.errands import Errands
from waypost.core.event import Told, segments, told_created
from waypost.core.ids import Place
from waypost.core.lanes import who_stands_in_line
from waypost.core.message import (
    STATE_OUTLIVES_MS,
    Message,
    Phase,
    State,
    life_ends_ms,
)
from waypost.core.pending import Pending, in_minute, named
from waypost.core.policy import DAY, MINUTE, Policy
from waypost.core.ports import (
    LONGEST_BELL_MS,
    Bell,
    Change,
    ConditionFailed,
    Delete,
    Item,
    Key,
    Ports,
    Present,
    Put,
    Unavailable,
)
from waypost.core.reminder import (
    HORIZON_MS,
    LONGEST_STEP_MS,
    LOOK_AFTER_MS,
    Looked,
    due_bound,
    due_partition,
    reminder,
    reminder_after,
    wake_at,
)
from waypost.core.some_at_once import some_at_once

#: Each minute is read again this much later: for whoever stored his message later than he should.
_SECOND_LOOK_MINUTES = 30
#: How many minutes one move of the cursor covers while catching up.
_MINUTES_AT_ONCE = 60
#: So many creations are held before they are written.
_TOLD_AT_ONCE = 20_000
#: What stands in line is looked at in whole steps of this.
_IN_LINE_MS = 30 * MINUTE
#: A message is given a longer life when less than this is left of it.
_LIFE_RUNS_OUT_MS = 7 * DAY


@dataclass(frozen=True, slots=True)
class Forget:
    """The reminder has done its work."""


@dataclass(frozen=True, slots=True)
class Leave:
    """It is not its time yet."""


@dataclass(frozen=True, slots=True)
class Move:
    """Look again at `to_ms`; ring after `ring_in_ms` (None: don't)."""

    to_ms: int
    ring_in_ms: int | None


def plan_visit(
    message: Message | None, state: State, *, at_ms: int, now_ms: int, boot: str, bells_are_late: bool
) -> Forget | Leave | Move:
    """What becomes of a reminder for `at_ms` that is visited now."""
    if message is None:
        # A helper writes the reminder before the message, and takes far less time than until then.
        return Forget() if at_ms <= now_ms else Leave()
    if state.phase.final:
        return Forget()
    wake = wake_at(message, state, boot)
    if wake > now_ms + HORIZON_MS:
        # Whoever makes a message due earlier writes its reminder first.
        return Move(wake, None) if at_ms <= now_ms else Leave()
    only_late = bells_are_late and state.phase is Phase.CREATED and wake <= now_ms
    return Move(reminder_after(wake, now_ms), None if only_late else max(0, wake - now_ms))


def plan_errand(wake: int | None, *, at_ms: int, now_ms: int) -> Forget | Leave | Move:
    """Likewise for an errand's. Whoever makes one due writes its reminder first: until that one's time it may know more
    than what was read. `now_ms` is the time before the reading."""
    if wake is None:
        return Forget() if at_ms <= now_ms else Leave()
    if wake > now_ms + HORIZON_MS:
        return Move(wake, None) if at_ms <= now_ms else Leave()
    return Move(reminder_after(wake, now_ms), max(0, wake - now_ms))


class _Visit(NamedTuple):
    reminder: Item
    plan: Forget | Leave | Move
    timeout_ms: int


class Look:
    def __init__(self, ports: Ports, policy: Policy, looked: Looked, errands: Errands) -> None:
        self._ports = ports
        self._policy = policy
        self._looked = looked
        self._errands = errands

    async def open(self) -> None:
        """Learns how far the look has come; a sole server does so before it accepts or delivers anything."""
        await open_cursor(self._ports, self._looked)

    async def tick(self) -> bool:
        """Looks, then rings what is or comes due. True: there was more than one tick may ring, tick again soon."""
        await self._look_at_closed_minutes()
        late = await self._ports.doorbell.backlog()
        rings = self._policy.rings_per_tick - late
        if rings <= 0:
            return False  # Enough bells wait: more would come no sooner.
        return await self._visit_reminders(self._ports.clock.now_ms() + HORIZON_MS, rings, bells_are_late=late > 0)

    async def recover(self) -> None:
        """After a start: rings all that is unfinished and due, whose bells and workers died with the process before."""
        now = self._ports.clock.now_ms()
        for minute in range(self._looked.minute + 1, max(now // MINUTE, self._looked.minute + 1) + 1):
            async for page in self._pages_of(minute):
                unfinished = [(message, state) for message, state in page if not state.phase.final]
                in_line = await who_stands_in_line(self._ports, unfinished)
                bells = {one.lane_ref: Bell(one.lane_ref, 0) for one, _ in unfinished if one.lane}
                for message, state in unfinished:
                    delay = max(0, wake_at(message, state, self._policy.boot) - now)
                    if delay <= LONGEST_BELL_MS and message.id not in in_line:
                        bells[message.ref] = Bell(message.ref, delay, message.terms.timeout_ms)
                if bells:
                    await self._ports.doorbell.ring(list(bells.values()))
        await self._visit_reminders(now + LONGEST_STEP_MS + HORIZON_MS, sys.maxsize, bells_are_late=False)

    # The look --------------------------------------------------------------------------------------------------------

    async def _look_at_closed_minutes(self) -> None:
        while True:
            seen = await read_cursor(self._ports)
            if seen is None:
                return await self.open()
            self._looked.minute = max(self._looked.minute, seen)
            closed = (self._ports.clock.now_ms() - LOOK_AFTER_MS) // MINUTE - 1
            last = min(closed, seen + _MINUTES_AT_ONCE)
            if last <= seen or not await self._advance(seen, last):
                return None

    async def _advance(self, seen: int, last: int) -> bool:
        """Gives reminders to what is unfinished in the minutes after `seen` up to `last`, then moves the cursor."""
        self._looked.minute = max(self._looked.minute, last)
        for minute in range(seen + 1, last + 1):
            await self._remind_unfinished(minute, tell=True)
            await self._remind_unfinished(minute - _SECOND_LOOK_MINUTES)
        return await move_cursor(self._ports, seen, last)

    async def _remind_unfinished(self, minute: int, *, tell: bool = False) -> None:
        """`tell` of the minute's creations, too: so a publisher need not, and logs cost nothing before his answer."""
        reminders: dict[str, Put] = {}
        now = self._ports.clock.now_ms()
        told: list[Told] = []
        part = 0
        async for page in self._pages_of(minute):
            for message, state in page:
                if not state.phase.final:
                    wake = wake_at(message, state, self._policy.boot)
                    reminders[message.ref] = reminder(message.ref, wake, self._policy.shards)
                    if message.lane:
                        reminders[message.lane_ref] = reminder(message.lane_ref, now, self._policy.shards)
                if tell:
                    told.append(told_created(message))
                if len(told) == _TOLD_AT_ONCE:
                    await self._tell(told, minute, part)
                    told.clear()
                    part += 1
        await self._tell(told, minute, part)
        if reminders:
            await self._ports.table.write_many(list(reminders.values()))

    async def _tell(self, told: Sequence[Told], minute: int, part: int) -> None:
        """Under names that a repeat makes again, since it may find the same."""
        if told:
            retention = self._policy.log_retention_ms
            puts = segments(told, retention, lambda number: f"look-{minute}-{part}-{number}")
            await self._ports.table.write_many(list(puts))

    async def _pages_of(self, minute: int) -> AsyncIterator[Sequence[Pending]]:
        for shard in range(self._policy.shards):
            async for page in in_minute(self._ports, Place(minute, shard)):
                yield page

    # Reminders -------------------------------------------------------------------------------------------------------

    async def _visit_reminders(self, until_ms: int, rings: int, *, bells_are_late: bool) -> bool:
        """Visits what stands up to `until_ms`. True: there is more, `rings` bells are enough for now."""
        for shard in range(self._policy.shards):
            after: str | None = None
            while True:
                if rings <= 0:
                    return True
                page = await self._ports.table.query(due_partition(shard), last=due_bound(until_ms), after=after)
                rings -= await self._visit_page(page.items, bells_are_late)
                if page.next is None:
                    break
                after = page.next
        return False

    async def _visit_page(self, reminders: Sequence[Item], bells_are_late: bool) -> int:
        """Returns how many bells it rang."""
        visits = [*await self._visit_messages(reminders, bells_are_late), *await self._visit_errands(reminders)]
        moves: list[tuple[Item, Put]] = []
        forgotten: list[Item] = []
        bells: list[Bell] = []
        for item, plan, timeout_ms in visits:
            if isinstance(plan, Forget):
                forgotten.append(item)
            elif isinstance(plan, Move):
                # Never back: whoever goes through reminders in their order must miss none.
                moves.append((item, reminder(item["ref"], max(plan.to_ms, item["at"]), self._policy.shards)))
                if plan.ring_in_ms is not None:
                    bells.append(Bell(item["ref"], plan.ring_in_ms, timeout_ms))
        await self._move_reminders(moves, bells)
        if forgotten:
            await self._ports.table.write_many([Delete(_key(item)) for item in forgotten])
        return len(bells)

    async def _visit_messages(self, reminders: Sequence[Item], bells_are_late: bool) -> list[_Visit]:
        theirs = [item for item in reminders if not self._errands.know(item["ref"])]
        messages = await named(self._ports, [item["ref"] for item in theirs])
        in_line = await who_stands_in_line(self._ports, [(one, state) for one, state in messages if one])
        now = self._ports.clock.now_ms()
        visits: list[_Visit] = []
        lanes: dict[str, Put] = {}
        for item, (message, state) in zip(theirs, messages, strict=True):
            plan = plan_visit(
                message, state, at_ms=item["at"], now_ms=now, boot=self._policy.boot, bells_are_late=bells_are_late
            )
            if message and isinstance(plan, Move):
                await self._prolong(message, state, now)
                if message.id in in_line and not state.phase.final:
                    # Whoever lets it in rings for it. Its lane's reminder sees to that.
                    plan = Move((now // _IN_LINE_MS + 2) * _IN_LINE_MS, None)
                    at_ms = reminder_after(now, now)
                    lanes[message.lane] = reminder(message.lane_ref, at_ms, self._policy.shards)
            visits.append(_Visit(item, plan, message.terms.timeout_ms if message else 0))
        if lanes:
            await self._ports.table.write_many(list(lanes.values()))
        return visits

    async def _visit_errands(self, reminders: Sequence[Item]) -> list[_Visit]:
        now = self._ports.clock.now_ms()

        async def visit(item: Item) -> _Visit:
            wake = await self._errands.wake_at(item["ref"])
            return _Visit(item, plan_errand(wake, at_ms=item["at"], now_ms=now), 0)

        return await some_at_once(visit, [item for item in reminders if self._errands.know(item["ref"])])

    async def _move_reminders(self, moves: list[tuple[Item, Put]], bells: list[Bell]) -> None:
        """The new ones first: whatever dies in between, each message has one ahead of it.

        While the doorbell has no room for all, the old ones stay for the next tick.
        """
        moved = [(item, new) for item, new in moves if _key(item) != new.key]
        if moved:
            # Several reminders of one message may meet on one key.
            await self._ports.table.write_many(list({new.key: new for _, new in moved}.values()))
        not_taken = await self._ports.doorbell.ring(bells) if bells else 0
        if moved and not not_taken:
            await self._ports.table.write_many([Delete(_key(item)) for item, _ in moved])

    async def _prolong(self, message: Message, state: State, now: int) -> None:
        """Lengthens the life of what is unfinished and would soon expire: the body first, then the state, then the
        message, so that none is ever outlived by what needs it."""
        ends = message.ttl_ms if not state.ttl_ms else min(message.ttl_ms, state.ttl_ms - STATE_OUTLIVES_MS)
        if ends - now >= _LIFE_RUNS_OUT_MS:
            return
        ttl_ms = life_ends_ms(
            self._policy,
            due_ms=wake_at(message, state, self._policy.boot),
            retries_left=max(0, message.terms.retries - state.retried),
            timeout_ms=message.terms.timeout_ms,
            now_ms=now,
        )
        try:
            body = await prolong_body(
                message.body,
                account=message.account,
                ttl_ms=ttl_ms,
                now_ms=now,
                blobs=self._ports.blobs,
                random=self._ports.random,
            )
        except BodyMissing:
            body = message.body  # The attempt will say so.
        except Unavailable:
            return  # The next visit tries again, and no other message waits for this one's body.
        state_ttl = (ttl_ms + STATE_OUTLIVES_MS) // 1000
        for change in (
            Change(message.state_key, set={"ttl": state_ttl}, when=Present("state")),
            Change(message.key, set={"ttl": ttl_ms // 1000, "body": body}, when=Present("url")),
        ):
            try:
                await self._ports.table.write(change)
            except ConditionFailed:
                continue  # Not there: a state is absent until the first attempt.


def _key(item: Item) -> Key:
    return Key(item["pk"], item["sk"])
