"""A message's way through its lane: arriving in the line, being let in, leaving.

Whoever arrives puts an entry into the line and then reads the lane; whoever lets in writes the lane and then reads the
line. So whoever comes second sees the other, and nobody waits while there is room. Bells of a lane are rung for the end
of a full window, and where somebody gives up.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from waypost.core.ids import place_of
from waypost.core.lane import (
    ASKED_AFTER_MS,
    Entrant,
    Entry,
    Lane,
    Turn,
    entry_from,
    entry_item,
    entry_key,
    lane_ref,
    line_of,
    place_bound,
)
from waypost.core.lane_store import LaneStore
from waypost.core.message import Message, Phase, State, lane_digest, message_key, place_in_line, state_key
from waypost.core.pending import Pending
from waypost.core.policy import Policy
from waypost.core.ports import (
    LONGEST_BELL_MS,
    Bell,
    Busy,
    ConditionFailed,
    Delete,
    Key,
    Ports,
    Present,
    Put,
    Unavailable,
)
from waypost.core.some_at_once import some_at_once
from waypost.core.terms import InLane, LaneKind, Limits
from waypost.core.transitions import in_place, is_abandoned

NEVER_BEGUN = State()
#: A visitor who is always too late lets a bell come again.
_TRIES = 8
_AGAIN_MS = 1_000
#: So many are put into a line together.
_AT_ONCE = 25


class _Why(enum.Enum):
    """Why somebody has a lane visited."""

    COMES = enum.auto()
    BEGINS = enum.auto()
    #: To stand in line again, in the same place.
    GOES_BACK = enum.auto()
    LEAVES = enum.auto()


class _Caller(NamedTuple):
    who: Entrant
    why: _Why


class Admission(NamedTuple):
    """What a message is told that asks whether it may start."""

    turn: Turn
    #: The start of the window that it counts in.
    window_ms: int = 0
    #: Whether its lane waits to hear that it has begun.
    heard_of: bool = False


class _Gathering:
    """Callers of one lane: whoever visits it next does so for all of them."""

    def __init__(self) -> None:
        self.callers: list[_Caller] = []
        self.visit = asyncio.Lock()
        self.present = 0


class Lanes:
    def __init__(self, ports: Ports, policy: Policy, store: LaneStore) -> None:
        self._ports = ports
        self._policy = policy
        self._store = store
        #: By the refs of lanes that this process is visiting.
        self._gatherings: dict[str, _Gathering] = {}

    # Arriving ---------------------------------------------------------------------------------------------------------

    async def placed(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The same, in order; those that are due in a lane have a place there. For messages of one account that are
        about to be stored."""
        due: dict[str, list[int]] = defaultdict(list)
        for number, one in enumerate(messages):
            if one.lane and one.due_ms <= one.created_ms:
                due[one.lane].append(number)
        placed = list(messages)

        async def place(lane: str) -> None:
            numbers = due[lane]
            last = await self._store.take_places(messages[0].account, lane, len(numbers))
            for at, number in enumerate(numbers, last - len(numbers) + 1):
                placed[number] = replace(messages[number], lane_place=at)

        await some_at_once(place, list(due))
        return placed

    async def arrive(self, message: Message, state: State) -> bool:
        """For a message that is due and stands in no place: it takes one, which its state keeps. False: its queue was
        deleted after it was accepted."""
        account, lane = message.account, message.lane
        standing_lane = await self._store.read(account, lane)
        if standing_lane and standing_lane.is_void(0, message.created_ms):
            return False
        await self._leave_former_place(message, standing_lane)
        place = await self._store.take_places(account, lane, 1)
        try:
            await self._ports.table.write(in_place(message, state, place))
        except ConditionFailed as refused:
            await self._store.give_up_place(account, lane)
            standing = State.from_item(refused.item)
            place = place_in_line(message, standing)
            if standing.phase is not Phase.RETRY or not place:
                return True
        await self.line_up([message], replace(state, lane_place=place, out_of_line=False))
        return True

    async def line_up(self, messages: Sequence[Message], state: State = NEVER_BEGUN, *, again: bool = False) -> None:
        """Puts messages of one lane, which are in this state and have places, into its line, and lets in who may start.
        The limits of the last one become the lane's, unless it was there before or newer ones have come.

        Raises Busy or Unavailable if they do not stand in line then.
        """
        account, lane, in_lane = messages[-1].account, messages[-1].lane, messages[-1].terms.lane
        if in_lane is None:
            return
        entries = [Entry(place_in_line(one, state), one.id, one.terms.timeout_ms) for one in messages]
        # The first one first: of many that are written together, any may be seen before the others.
        for first, last in ((0, 1), *((at, at + _AT_ONCE) for at in range(1, len(entries), _AT_ONCE))):
            puts = [Put(entry_item(account, lane, one)) for one in entries[first:last]]
            await self._store.persist(partial(self._ports.table.write_many, puts))
        try:
            is_new = not (again or state.retried or state.crashes)
            await self._let_in(account, in_lane, entries, messages[-1].created_ms if is_new else 0)
        except (Busy, Unavailable):
            await self._ring_again(account, lane)

    async def bring_limits(self, message: Message) -> None:
        """For one that is due later: its limits become the lane's already, also for who waits there."""
        if message.terms.lane is None:
            return
        with contextlib.suppress(Busy, Unavailable):  # it brings them once more when it is due
            standing = await self._store.read(message.account, message.lane)
            changed = await self._as_asked(message.account, message.terms.lane, message.created_ms, 0, standing)
            if changed and changed != standing and changed.room(self._ports.clock.now_ms()):
                await self._visit_once(message.account, message.lane, _Caller((message.id, 0), _Why.COMES))

    async def _as_asked(
        self, account: str, in_lane: InLane, accepted_ms: int, place: int, standing: Lane | None
    ) -> Lane | None:
        """The lane with what a message wants that was accepted then. `place`: where it stands; 0: nowhere yet."""
        asked = _asked_of(in_lane, accepted_ms, place)
        if standing and asked(standing, 0) == standing:
            return standing
        return await self._store.change(account, in_lane.kind, in_lane.name, asked, _limits_of(in_lane))

    async def _let_in(self, account: str, in_lane: InLane, entries: Sequence[Entry], accepted_ms: int) -> None:
        lane, place = lane_digest(in_lane.kind, in_lane.name), entries[-1].place
        standing = await self._as_asked(account, in_lane, accepted_ms, place, await self._store.read(account, lane))
        if standing is None:
            return
        now = self._ports.clock.now_ms()
        bells = []
        for one in entries:
            turn = standing.turn(*one.entrant, now)
            if turn is Turn.NOW:
                # Let in before its entry stood, when nobody could hear of it.
                bells.append(Bell(f"{account}#{one.message_id}", 0, one.timeout_ms))
            elif turn is Turn.NEVER:
                bells.append(Bell(lane_ref(account, lane), 0))
        if bells:
            await self._ports.doorbell.ring(bells)
        if standing.room(now) or standing.waits_for_a_bell(now):
            await self._visit_once(account, lane, _Caller(entries[-1].entrant, _Why.COMES))

    async def forget_place(self, message: Message) -> None:
        """For one that is not stored after all."""
        if message.lane_place:
            await self._store.give_up_place(message.account, message.lane)

    # Being let in -----------------------------------------------------------------------------------------------------

    async def turn(self, message: Message, place: int) -> Admission:
        """Whether a message that has been claimed in this place may start now, before it awaits anything else."""
        account, lane, entrant = message.account, message.lane, (message.id, place)
        standing = await self._store.read(account, lane)
        if standing is None:
            return Admission(Turn.IN_LINE)
        turn = standing.turn(*entrant, self._ports.clock.now_ms())
        if turn is Turn.LATE:
            turn, standing = await self._renew(account, standing, entrant)
        if turn is Turn.NOW and standing.is_crowded and await self._enough_are_at_work(account, standing, message.id):
            turn = Turn.CROWDED
        if turn is not Turn.NOW:
            if turn is Turn.IN_LINE:
                await self._leave_former_place(message, standing)
            return Admission(turn)
        window_ms = standing.held[message.id].window_ms
        only_ends = standing.holds_to_the_end or (standing.limits_parallelism and not window_ms)
        return Admission(turn, window_ms, heard_of=not only_ends)

    async def stands_nowhere(self, message: Message) -> None:
        """Said when it hears a bell although it is not due."""
        await self._leave_former_place(message, await self._store.read(message.account, message.lane))

    async def _leave_former_place(self, message: Message, standing: Lane | None) -> None:
        """An entry that was written late, or not taken out, lets somebody in where he stands no more. What he says is
        read after the lane: where he has stood and does not stand then he never will."""
        held = standing.held.get(message.id) if standing else None
        if held:
            state = State.from_item(await self._ports.table.get(message.state_key))
            if place_in_line(message, state) != held.place:
                await self.release(message, held.place)

    async def begin(self, message: Message, place: int) -> None:
        """While the request is out: between the turn and the request, a pause might come unseen."""
        await self._visit_once(message.account, message.lane, _Caller((message.id, place), _Why.BEGINS))

    async def _enough_are_at_work(self, account: str, standing: Lane, message_id: str) -> bool:
        """Asked after one's own claim: of two who are claimed at once, one sees the other."""
        others = [other_id for other_id in standing.held if other_id != message_id]
        return await count_at_work(self._ports, account, others) >= standing.limits.parallelism

    async def _renew(self, account: str, standing: Lane, entrant: Entrant) -> tuple[Turn, Lane]:
        """Counts its start in the window that is open now, if that has room."""
        for _ in range(_TRIES):
            now = self._ports.clock.now_ms()
            turn = standing.turn(*entrant, now)
            renewed = standing.renewed(entrant, now) if turn is Turn.LATE else None
            if renewed is None:
                return turn, standing
            try:
                return Turn.NOW, await self._store.write(account, standing, renewed)
            except ConditionFailed as refused:
                standing = self._store.standing(refused.item) or standing
                await self._store.step_aside()
        return Turn.LATE, standing

    async def wait(self, message: Message, state: State, turn: Turn) -> None:
        """For a message that was claimed and put back, since it is not its turn."""
        if turn is Turn.PAUSED:
            return  # It keeps its slot, and is told when the lane goes on.
        if turn is Turn.CROWDED:
            # Not all of those who wait so at the same time again.
            wait_ms = _AGAIN_MS + 4 * self._ports.random(1)[0]
            await self._ports.doorbell.ring([Bell(message.ref, wait_ms, message.terms.timeout_ms)])
            return
        if turn is not Turn.IN_LINE:
            # Before it stands in line: who holds a slot is taken out of the line.
            who = message.id, place_in_line(message, state)
            await self._visit_once(message.account, message.lane, _Caller(who, _Why.GOES_BACK))
        await self.line_up([message], state, again=True)

    async def leave(self, message: Message, state: State, place: int) -> None:
        """After an attempt in that place, or when somebody hears of the message later: gives back a slot that it needs
        no more, and tells whom it holds up."""
        if message.holds_up and state.phase.final:
            await self._ports.doorbell.ring([Bell(message.holds_up, 0)])
        if message.terms.lane is None:
            return
        if state.phase.final:
            waits = message.terms.lane.kind is LaneKind.QUEUE
            if not waits or await self._have_ended(message.account, state.callbacks):
                await self.release(message, 0)
        elif message.terms.lane.kind is LaneKind.KEY and place and place_in_line(message, state) != place:
            await self.release(message, place)

    async def release(self, message: Message, place: int) -> None:
        """What the store keeps from being done now is done when somebody asks after the slot."""
        await self._visit_once(message.account, message.lane, _Caller((message.id, place), _Why.LEAVES))

    async def leave_line(self, message: Message, state: State, *, in_line: bool) -> None:
        """For a message that was cancelled while it waited, perhaps in line."""
        place = place_in_line(message, state)
        if message.lane and place and in_line:
            entry = entry_key(message.account, message.lane, (message.id, place))
            try:
                await self._ports.table.write(Delete(entry, when=Present("timeout")))
                await self._store.give_up_place(message.account, message.lane)
            except (ConditionFailed, Busy, Unavailable):
                # It may hold a slot, which whoever hears of it gives back.
                await self._ports.doorbell.ring([Bell(message.ref, 0, message.terms.timeout_ms)])
        if message.holds_up:
            await self._ports.doorbell.ring([Bell(message.holds_up, 0)])

    async def _visit_once(self, account: str, lane: str, caller: _Caller) -> None:
        """One visit at a time in this process: each serves all who came during the one before."""
        ref = lane_ref(account, lane)
        gathering = self._gatherings.setdefault(ref, _Gathering())
        gathering.callers.append(caller)
        gathering.present += 1
        try:
            async with gathering.visit:
                callers = tuple(gathering.callers)
                gathering.callers.clear()
                if callers:
                    await self._visit_safely(account, lane, callers)
        finally:
            gathering.present -= 1
            if not gathering.present:
                del self._gatherings[ref]

    async def _visit_safely(self, account: str, lane: str, callers: Sequence[_Caller]) -> None:
        try:
            await self._store.persist(lambda: self._visit(account, lane, callers))
        except (Busy, Unavailable):
            await self._ring_again(account, lane)
            if any(one.why is not _Why.COMES for one in callers):
                # Who comes then asks after their slots.
                await self._ports.doorbell.ring([Bell(lane_ref(account, lane), ASKED_AFTER_MS + _AGAIN_MS)])

    async def _ring_again(self, account: str, lane: str) -> None:
        await self._ports.doorbell.ring([Bell(lane_ref(account, lane), _AGAIN_MS)])

    async def visit(self, account: str, lane: str, *, ask_all: bool = False) -> None:
        """Lets in whoever may start. `ask_all`: asks after all slots before.

        Raises Busy or Unavailable; what was done then is not known.
        """
        await self._visit(account, lane, ask_all=ask_all)

    async def go_on(self, account: str, changed: Lane) -> None:
        """After an operator has changed a lane: asks after all of its slots, and lets in whoever may start."""
        lane = lane_digest(changed.kind, changed.name)
        try:
            await self._visit(account, lane, as_read=changed, ask_all=True)
        except (Busy, Unavailable):
            await self._ring_again(account, lane)

    async def _visit(
        self,
        account: str,
        lane: str,
        callers: Sequence[_Caller] = (),
        *,
        as_read: Lane | None = None,
        ask_all: bool = False,
    ) -> None:
        """Notes what callers have done, and lets in whoever may start.

        Raises Busy or Unavailable; what was done then is not known.
        """
        standing = as_read or await self._store.read(account, lane)
        tries = 0
        while standing:
            now = self._ports.clock.now_ms()
            planned = await self._asked_after(account, _noted(standing, callers), now, ask_all=ask_all)
            planned = planned.for_the_late(now)
            wanted = planned.room(now) or int(planned.waits_for_a_bell(now))
            front = await self._front(account, lane, planned, wanted + 1) if wanted else []
            planned, admitted = planned.letting_in(front, now)
            wake_ms = planned.is_full_until(now) if len(front) > len(admitted) and planned.waits_for_a_bell(now) else 0
            if wake_ms:
                planned = replace(planned, wake_ms=wake_ms)
            if planned == standing:
                return
            try:
                standing = await self._store.write(account, standing, planned)
            except ConditionFailed as refused:
                tries += 1
                if tries == _TRIES:
                    raise Busy("too many others let messages into the same lane just now") from None
                standing = self._store.standing(refused.item)
                await self._store.step_aside()
                continue
            await self._tell(account, lane, admitted, wake_ms and max(0, wake_ms - now))
            callers, ask_all = (), False
            if not standing.room(now) or not await self._has_come(account, lane, standing):
                return

    async def _has_come(self, account: str, lane: str, standing: Lane) -> bool:
        """Whether somebody who stands in line read the lane before it was written."""
        return bool(await self._front(account, lane, standing, 1))

    async def _front(self, account: str, lane: str, standing: Lane, count: int) -> list[Entry]:
        """So many of the first who stand in line and hold no slot. Who was let in stands there no more."""
        found: list[Entry] = []
        after: str | None = None
        while len(found) < count:
            page = await self._ports.table.query(
                line_of(account, lane), first=place_bound(standing.void_below + 1), limit=count, after=after
            )
            entries = [entry_from(item) for item in page.items]
            found += [one for one in entries if one.message_id not in standing.held]
            inside = [one for one in entries if standing.holds(one.entrant)]
            if inside:
                await self._take_out(account, lane, inside)
            after = page.next
            if after is None:
                break
        return found[:count]

    async def _tell(self, account: str, lane: str, admitted: Sequence[Entry], wake_in_ms: int) -> None:
        apart_ms = self._policy.starts_apart_ms
        bells = [Bell(f"{account}#{one.message_id}", at * apart_ms, one.timeout_ms) for at, one in enumerate(admitted)]
        if wake_in_ms and wake_in_ms <= LONGEST_BELL_MS:
            bells.append(Bell(lane_ref(account, lane), wake_in_ms))
        if bells:
            await self._ports.doorbell.ring(bells)
        if admitted:
            with contextlib.suppress(Busy, Unavailable):  # the next who reads the line takes them out
                await self._store.persist(lambda: self._take_out(account, lane, admitted))

    async def _take_out(self, account: str, lane: str, entries: Sequence[Entry]) -> None:
        await self._ports.table.write_many([Delete(entry_key(account, lane, one.entrant)) for one in entries])

    # Slots of which nothing is heard ----------------------------------------------------------------------------------

    async def _asked_after(self, account: str, standing: Lane, now: int, *, ask_all: bool) -> Lane:
        overdue = standing.overdue(now, ask_all=ask_all)
        answers = await some_at_once(lambda one: self._ask_after(account, standing, one, now), overdue)
        known = dict(zip(overdue, answers, strict=True))
        left = standing.without([one for one, until_ms in known.items() if until_ms is None])
        return left.asked({one: until_ms for one, until_ms in known.items() if until_ms is not None})

    async def _ask_after(self, account: str, standing: Lane, entrant: Entrant, now: int) -> int | None:
        """Until when a slot is left alone; None: it is free. A message that should be at work is told again."""
        message_id, held_place = entrant
        place = place_of(message_id)
        if place is None:
            return None
        message = Message.from_item(await self._ports.table.get(message_key(account, message_id, place)), now)
        if message is None:
            return None
        state = State.from_item(await self._ports.table.get(state_key(account, message_id, place)))
        if state.phase.final:
            waits = standing.holds_to_the_end and not await self._have_ended(account, state.callbacks)
            return now + ASKED_AFTER_MS if waits else None
        if place_in_line(message, state) != held_place:
            return None
        if state.phase is Phase.ACTIVE and not is_abandoned(state, now, self._policy.boot):
            if not standing.holds_to_the_end and not standing.limits_parallelism:
                return None
            return max(state.lease_ms, now + ASKED_AFTER_MS)
        if state.phase is Phase.RETRY and state.due_ms > now:
            return state.due_ms + ASKED_AFTER_MS
        if not standing.paused_ms:
            await self._ports.doorbell.ring([Bell(message.ref, 0, message.terms.timeout_ms)])
        return now + ASKED_AFTER_MS

    async def _have_ended(self, account: str, message_ids: Sequence[str]) -> bool:
        for one in message_ids:
            place = place_of(one)
            if place is None:
                continue
            state = State.from_item(await self._ports.table.get(state_key(account, one, place)))
            if not state.phase.final:
                now = self._ports.clock.now_ms()
                if Message.from_item(await self._ports.table.get(message_key(account, one, place)), now):
                    return False
        return True


def _noted(lane: Lane, callers: Sequence[_Caller]) -> Lane:
    of = {why: [one.who for one in callers if one.why is why] for why in _Why}
    lane = lane.begun(of[_Why.BEGINS]).without(of[_Why.GOES_BACK], for_good=False)
    return lane.without(of[_Why.LEAVES])


async def count_at_work(ports: Ports, account: str, message_ids: Sequence[str]) -> int:
    """How many of them have an attempt under way."""

    async def is_at_work(message_id: str) -> bool:
        place = place_of(message_id)
        item = await ports.table.get(state_key(account, message_id, place)) if place else None
        return State.from_item(item).phase is Phase.ACTIVE

    return sum(await some_at_once(is_at_work, message_ids))


async def who_stands_in_line(ports: Ports, pending: Sequence[Pending]) -> Collection[str]:
    """The ids of those that do. An entry may just have been taken out, or not be found yet."""
    keys: dict[str, Key] = {}
    for message, state in pending:
        place = place_in_line(message, state)
        if message.lane and place and state.phase in (Phase.CREATED, Phase.RETRY):
            keys[message.id] = entry_key(message.account, message.lane, (message.id, place))
    entries = await ports.table.get_many(list(keys.values())) if keys else []
    return {message_id for message_id, entry in zip(keys, entries, strict=True) if entry}


def _limits_of(in_lane: InLane) -> Limits:
    """Of a lane that is made by its first message."""
    return in_lane.limits or Limits(parallelism=1 if in_lane.kind is LaneKind.QUEUE else 0)


def _asked_of(in_lane: InLane, accepted_ms: int, place: int) -> Callable[[Lane, int], Lane]:
    """What a message changes about its lane. `accepted_ms` 0: it brings no limits."""
    limits, made = in_lane.limits, _limits_of(in_lane)

    def how(lane: Lane, now: int) -> Lane:
        if lane.gone and (place > lane.void_below or accepted_ms > lane.void_ms):
            lane = lane.made_again(made, now)
        return lane.asked_for(limits, accepted_ms) if limits and accepted_ms else lane

    return how
