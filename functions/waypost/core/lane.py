"""A lane: all that decides who of its messages may start. Queues and flow-control keys are both lanes, and differ in
how long a slot is held: in a queue until its message has ended and its callbacks too, under a key while a request is
out.

Everything here is pure. A lane is one item that is replaced as a whole under the condition that nobody has replaced it
since it was read; its line lies beside it, one item a place, and only says who asks to be let in.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from waypost.core.message import LANE, VERSION, lane_digest
from waypost.core.policy import SECOND
from waypost.core.ports import Item, Key
from waypost.core.terms import LaneKind, Limits

#: A slot that was given is asked after when it has been unused for so long.
ASKED_AFTER_MS = 30 * SECOND
#: So many are let in by one write, whatever the limits.
_MOST_AT_ONCE = 100
#: How far the clocks of two visitors may be apart before the end of a window is doubted.
_LONGEST_STEP_MS = 5 * SECOND

#: Why a message is cancelled that was in a queue which is deleted.
QUEUE_DELETED = "its queue was deleted"

#: A message in a place: whoever comes again comes in another one.
Entrant = tuple[str, int]


class Held(Struct, frozen=True, array_like=True):
    """A slot. Its message may start, once, while it is held in this place."""

    place: int
    #: When somebody asks what has become of it.
    ask_ms: int
    #: The start of the window that its start counts in; 0: it has begun, or nothing counts.
    window_ms: int = 0


class Entry(Struct, frozen=True):
    """Who stands in line."""

    place: int
    message_id: str
    #: How long the destination may take, for its bell.
    timeout_ms: int

    @property
    def entrant(self) -> Entrant:
        return self.message_id, self.place


class Turn(enum.Enum):
    """Whether a message that stands in a place may start."""

    NOW = enum.auto()
    #: It holds no slot.
    IN_LINE = enum.auto()
    PAUSED = enum.auto()
    #: It holds a slot, and came too late for the window that its start counts in.
    LATE = enum.auto()
    #: It holds a slot that there is no more: its parallelism was lowered.
    SURPLUS = enum.auto()
    #: It holds one of the slots that there still are, and enough others are at work.
    CROWDED = enum.auto()
    #: Its queue was deleted.
    NEVER = enum.auto()


class Lane(Struct, frozen=True):
    kind: LaneKind
    name: str
    created_ms: int
    updated_ms: int
    limits: Limits
    #: Limits that were set by an operator, whatever messages say.
    pinned_parallelism: bool = False
    pinned_rate: bool = False
    #: Since when; 0: it is not.
    paused_ms: int = 0
    #: Whoever stands up to here is cancelled: the queue was deleted. So is who was accepted until then.
    void_below: int = 0
    void_ms: int = 0
    #: A queue that was deleted, and not used since.
    gone: bool = False
    held: Mapping[str, Held] = {}
    window_ms: int = 0
    used: int = 0
    #: A bell for the end of a full window is under way until then.
    wake_ms: int = 0
    #: How many places were left for good.
    left: int = 0
    #: When the message whose limits these are was accepted.
    set_by_ms: int = 0
    #: The start of the process that wrote it last, where slots don't outlive it.
    boot: str = ""
    version: int = 0

    # What stands ------------------------------------------------------------------------------------------------------

    @property
    def holds_to_the_end(self) -> bool:
        """Whether a slot is held through retries and callbacks."""
        return self.kind is LaneKind.QUEUE

    @property
    def shown(self) -> str:
        return f"{'queue' if self.kind is LaneKind.QUEUE else 'key'} {self.name}"

    @property
    def limits_parallelism(self) -> bool:
        return self.limits.parallelism > 0

    @property
    def window_ends_ms(self) -> int:
        return self.window_ms + self.limits.period_ms

    def room(self, now_ms: int) -> int:
        """How many more may be let in now."""
        return 0 if self.paused_ms else min(self._free_slots, self.starts_left(now_ms))

    @property
    def _free_slots(self) -> int:
        """A rate alone gives out no more slots than are soon used: each takes room in the lane's item."""
        most = self.limits.parallelism or _MOST_AT_ONCE
        return max(0, min(most - len(self.held), _MOST_AT_ONCE))

    def starts_left(self, now_ms: int) -> int:
        if not self.limits.rate:
            return _MOST_AT_ONCE
        used = len(self._not_begun) if self._window_is_over(now_ms) else self.used
        return max(0, self.limits.rate - used)

    @property
    def _not_begun(self) -> Sequence[Entrant]:
        """Who was let in, and counts in a window, in the order of their places."""
        return sorted([(one, held.place) for one, held in self.held.items() if held.window_ms], key=lambda one: one[1])

    def is_full_until(self, now_ms: int) -> int:
        """The end of a window in which nobody may start any more; 0: somebody may, or it isn't up to the window."""
        is_full = not self.paused_ms and self._free_slots > 0 and self.starts_left(now_ms) == 0
        return self.window_ends_ms if is_full else 0

    def waits_for_a_bell(self, now_ms: int) -> bool:
        """Whether the end of a full window would pass unnoticed, if somebody stood in line."""
        return self.is_full_until(now_ms) > 0 and not now_ms < self.wake_ms <= self.window_ends_ms

    def turn(self, message_id: str, place: int, now_ms: int) -> Turn:
        if place <= self.void_below:
            return Turn.NEVER
        if not self.holds((message_id, place)):
            return Turn.IN_LINE
        held = self.held[message_id]
        if self.paused_ms:
            return Turn.PAUSED
        if self.is_crowded and sum(one.place < place for one in self.held.values()) >= self.limits.parallelism:
            return Turn.SURPLUS
        if held.window_ms and self.limits.rate and now_ms >= held.window_ms + self.limits.period_ms:
            return Turn.LATE
        return Turn.NOW

    @property
    def is_crowded(self) -> bool:
        """Whether more were let in than its parallelism is now."""
        return 0 < self.limits.parallelism < len(self.held)

    def is_void(self, place: int, accepted_ms: int) -> bool:
        """Whether who stands in that place, 0: in none, was in the queue when it was deleted."""
        return place <= self.void_below if place else accepted_ms <= self.void_ms

    def holds(self, entrant: Entrant) -> bool:
        message_id, place = entrant
        held = self.held.get(message_id)
        return held is not None and held.place == place

    def overdue(self, now_ms: int, *, ask_all: bool = False) -> Sequence[Entrant]:
        """Slots that somebody must ask after: nothing was heard of them for long, or not since a restart."""
        return [(one, held.place) for one, held in self.held.items() if ask_all or held.ask_ms <= now_ms]

    def wake_at(self, now_ms: int) -> int:
        """When there is something to do at the latest if nobody comes; the line is not empty."""
        times = [held.ask_ms for held in self.held.values()]
        if self.room(now_ms):
            times.append(now_ms)
        elif full_until := self.is_full_until(now_ms):
            times.append(full_until)
        return min(times, default=now_ms + ASKED_AFTER_MS)

    def as_seen_from(self, boot: str) -> Lane:
        """By the process of that start: bells of another one are gone, and nobody knows what has become of slots. Where
        processes share a lane none of them has a name."""
        if self.boot == boot:
            return self
        return replace(
            self, boot=boot, wake_ms=0, held={one: replace(slot, ask_ms=0) for one, slot in self.held.items()}
        )

    # What may become of it --------------------------------------------------------------------------------------------

    def in_window(self, now_ms: int) -> Lane:
        """With a new window if the last one is over. Whoever was let in before, and has not begun, counts in it first:
        if bells take longer than a period, those that they are rung for begin all the same."""
        if not self.limits.rate or not self._window_is_over(now_ms):
            return self
        held = dict(self.held)
        late = self._not_begun[: self.limits.rate]
        for message_id, _ in late:
            held[message_id] = replace(held[message_id], window_ms=now_ms)
        return replace(self, window_ms=now_ms, used=len(late), held=held)

    def for_the_late(self, now_ms: int) -> Lane:
        """Likewise, but only if there are any."""
        return self.in_window(now_ms) if self._not_begun else self

    def begun(self, entrants: Iterable[Entrant]) -> Lane:
        """Those have begun. Where a rate alone is limited that gives back their slots."""
        if not self.limits_parallelism:
            return self.without(entrants)
        held = dict(self.held)
        for message_id, place in entrants:
            if self.holds((message_id, place)):
                held[message_id] = replace(held[message_id], window_ms=0)
        return self if held == self.held else replace(self, held=held)

    def without(self, done: Iterable[Entrant], *, for_good: bool = True) -> Lane:
        """Those have left their slots, and their places too if it is for good. A message that has ended has left any
        place, which is then called 0."""
        held, left = dict(self.held), self.left
        for message_id, place in done:
            slot = held.get(message_id)
            if slot and place in (0, slot.place):
                del held[message_id]
                left += for_good and slot.place > self.void_below
        return self if len(held) == len(self.held) else replace(self, held=held, left=left)

    def asked(self, answers: Mapping[Entrant, int]) -> Lane:
        """What is known of these slots is good until then."""
        held = dict(self.held)
        for (message_id, place), until_ms in answers.items():
            if self.holds((message_id, place)):
                held[message_id] = replace(held[message_id], ask_ms=until_ms)
        return self if held == self.held else replace(self, held=held)

    def letting_in(self, entries: Sequence[Entry], now_ms: int) -> tuple[Lane, Sequence[Entry]]:
        """As many of those as there is room for, in their order, and who they are."""
        lane = self.in_window(now_ms)
        admitted = [one for one in entries if one.message_id not in lane.held][: lane.room(now_ms)]
        if not admitted:
            return self, ()
        window_ms = lane.window_ms if lane.limits.rate else 0
        held = dict(lane.held) | {
            one.message_id: Held(one.place, now_ms + ASKED_AFTER_MS, window_ms) for one in admitted
        }
        used = lane.used + (len(admitted) if lane.limits.rate else 0)
        return replace(lane, held=held, used=used), admitted

    def renewed(self, entrant: Entrant, now_ms: int) -> Lane | None:
        """Its start counts in the window that is open now; None: that is full."""
        lane = self.in_window(now_ms)
        message_id, _ = entrant
        if not lane.holds(entrant) or lane.paused_ms:
            return None
        if lane.held[message_id].window_ms == lane.window_ms:
            return lane
        if not lane.starts_left(now_ms):
            return None
        slot = replace(lane.held[message_id], window_ms=lane.window_ms)
        return replace(lane, held=dict(lane.held) | {message_id: slot}, used=lane.used + 1)

    def asked_for(self, limits: Limits, accepted_ms: int) -> Lane:
        """With the limits of the message that was accepted then, if it is the newest so far and none are pinned."""
        if accepted_ms < self.set_by_ms:
            return self
        parallelism = self.limits.parallelism if self.pinned_parallelism else limits.parallelism
        rate = (self.limits.rate, self.limits.period_ms) if self.pinned_rate else (limits.rate, limits.period_ms)
        wanted = Limits(parallelism, *rate)
        is_known = wanted == self.limits and self.set_by_ms
        return self if is_known else replace(self, limits=wanted, set_by_ms=accepted_ms)

    def _window_is_over(self, now_ms: int) -> bool:
        """Also one that begins far ahead: then a clock has stepped back."""
        return now_ms >= self.window_ends_ms or self.window_ms - now_ms > max(self.limits.period_ms, _LONGEST_STEP_MS)

    def made_again(self, limits: Limits, now_ms: int) -> Lane:
        """A queue that was deleted, and whose messages may not all have been cancelled yet."""
        return replace(self, gone=False, limits=limits, created_ms=now_ms, paused_ms=0)

    # As it is stored --------------------------------------------------------------------------------------------------

    def to_item(self, account: str) -> dict[str, Any]:
        """What is as usual takes no room: each change is paid by the size of the whole."""
        key = lane_key(account, lane_digest(self.kind, self.name))
        item: dict[str, Any] = {
            "pk": key.pk,
            "sk": key.sk,
            "v": VERSION,
            "kind": self.kind.value,
            "name": self.name,
            "created": self.created_ms,
            "updated": self.updated_ms,
            "limits": list(self.limits.as_tuple()),
            "held": {one: _stored(held) for one, held in self.held.items()},
            "ver": self.version,
        }
        usual = {
            "pinp": self.pinned_parallelism,
            "pinr": self.pinned_rate,
            "paused": self.paused_ms,
            "void": self.void_below,
            "voidms": self.void_ms,
            "gone": self.gone,
            "window": self.window_ms,
            "used": self.used,
            "wake": self.wake_ms,
            "left": self.left,
            "by": self.set_by_ms,
            "boot": self.boot,
        }
        return item | {name: value for name, value in usual.items() if value}

    @staticmethod
    def from_item(item: Item) -> Lane:
        return Lane(
            kind=LaneKind(item["kind"]),
            name=item["name"],
            created_ms=item["created"],
            updated_ms=item["updated"],
            limits=Limits(*item["limits"]),
            pinned_parallelism=item.get("pinp", False),
            pinned_rate=item.get("pinr", False),
            paused_ms=item.get("paused", 0),
            void_below=item.get("void", 0),
            void_ms=item.get("voidms", 0),
            gone=item.get("gone", False),
            held={one: Held(*held) for one, held in item["held"].items()},
            window_ms=item.get("window", 0),
            used=item.get("used", 0),
            wake_ms=item.get("wake", 0),
            left=item.get("left", 0),
            set_by_ms=item.get("by", 0),
            boot=item.get("boot", ""),
            version=item["ver"],
        )


def _stored(held: Held) -> list[int]:
    return [held.place, held.ask_ms, held.window_ms] if held.window_ms else [held.place, held.ask_ms]


# Where they lie ------------------------------------------------------------------------------------------------------


def lane_ref(account: str, lane: str) -> str:
    """What bells and reminders call the lane of this digest."""
    return f"{account}#{LANE}_{lane}"


def lane_key(account: str, lane: str) -> Key:
    return Key(f"{account}#lane#{lane}", "lane")


def counter_key(account: str, lane: str) -> Key:
    """How many places were given out, and how many of them were left without a change of the lane."""
    return Key(f"{account}#lane#{lane}", "places")


def line_of(account: str, lane: str) -> str:
    """The partition of those who stand in line."""
    return f"{account}#line#{lane}"


def place_bound(place: int) -> str:
    """Sorts before whoever stands in this place, and after all before it."""
    return f"{place:015d}"


def entry_key(account: str, lane: str, entrant: Entrant) -> Key:
    message_id, place = entrant
    return Key(line_of(account, lane), f"{place_bound(place)}#{message_id}")


def entry_item(account: str, lane: str, entry: Entry) -> dict[str, Any]:
    key = entry_key(account, lane, entry.entrant)
    return {"pk": key.pk, "sk": key.sk, "v": VERSION, "timeout": entry.timeout_ms}


def entry_from(item: Item) -> Entry:
    place, _, message_id = item["sk"].partition("#")
    return Entry(int(place), message_id, item["timeout"])
