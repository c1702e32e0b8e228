"""Reminders: "look at this then". Every unfinished message whose minute has been looked at has one ahead of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from waypost.core.message import VERSION, Message, Phase, State, due_of
from waypost.core.policy import MINUTE
from waypost.core.ports import Clock, Key, Ports, Put

#: The tick rings what comes due within this, with the exact delay: two ticks and a half.
HORIZON_MS = 150_000
#: How long after its due time an unfinished message is looked at again: 2, 4, 8 and 16 minutes later, then each 30.
_STEPS_MS = (2 * MINUTE, 4 * MINUTE, 8 * MINUTE, 16 * MINUTE)
_LAST_STEP_MS = 30 * MINUTE
#: A reminder is never further ahead of now than this, unless its message is not due before.
LONGEST_STEP_MS = HORIZON_MS + _LAST_STEP_MS
#: A minute is looked at when it has been over for this long.
LOOK_AFTER_MS = 2 * MINUTE
#: Half of that: whoever finds a minute over for so long, or took so long himself, no longer relies on the look.
_TRUST_LOOK_MS = MINUTE // 2


@dataclass(slots=True)
class Looked:
    """Up to which minute this process knows the look to have come. Shared by everything in one process."""

    minute: int = 0

    def minute_for_new_id(self, now_ms: int) -> int:
        """Never a minute that has been looked at, even if the clock has stepped back."""
        return max(now_ms // MINUTE, self.minute + 1)

    def may_have_passed(self, minute: int, now_ms: int) -> bool:
        """Whether a write to this minute may come too late for its look."""
        return minute <= self.minute or now_ms >= (minute + 1) * MINUTE + _TRUST_LOOK_MS


class Stopwatch:
    """Tells whether so much time went by, or the clock jumped so far, that the look may have passed meanwhile."""

    def __init__(self, clock: Clock, now_ms: int) -> None:
        self._clock = clock
        self._wall_ms = now_ms
        self._start_ms = clock.monotonic_ms()

    def took_ms(self) -> int:
        return self._clock.monotonic_ms() - self._start_ms

    def late(self, now_ms: int) -> bool:
        took = self.took_ms()
        jumped = now_ms - self._wall_ms - took
        return took >= _TRUST_LOOK_MS or abs(jumped) >= _TRUST_LOOK_MS


def wake_at(message: Message, state: State, boot: str) -> int:
    """When there is next something to do for an unfinished message; 0: at once, its worker is gone."""
    if state.phase in (Phase.CREATED, Phase.RETRY):
        return due_of(message, state)
    return 0 if boot and state.boot != boot else state.lease_ms


def reminder_after(wake_ms: int, now_ms: int) -> int:
    """The time of the next reminder: the due time itself while that is beyond the horizon, then ever rarer.

    Depends only on the due time's own series, so that several reminders of one message soon fall on one key.
    """
    beyond = now_ms + HORIZON_MS
    return wake_ms if wake_ms > beyond else next(t for t in _series(max(wake_ms, now_ms)) if t > beyond)


def _series(wake_ms: int) -> Iterator[int]:
    # Whole half minutes, so that reminders of one message meet although they are reckoned at different times.
    at = -(-wake_ms // _TRUST_LOOK_MS) * _TRUST_LOOK_MS
    for step in _STEPS_MS:
        at += step
        yield at
    while True:
        at += _LAST_STEP_MS
        yield at


def due_partition(shard: int) -> str:
    return f"due#{shard}"


def due_bound(at_ms: int) -> str:
    """Sorts after every reminder up to and including this millisecond, and before all later ones."""
    return f"{at_ms:015d}~"


def reminder(ref: str, at_ms: int, shards: int) -> Put:
    at_ms = max(0, at_ms)
    key = Key(due_partition(zlib.crc32(ref.encode()) % shards), f"{at_ms:015d}#{ref}")
    return Put({"pk": key.pk, "sk": key.sk, "v": VERSION, "ref": ref, "at": at_ms})


async def remind(ports: Ports, ref: str, at_ms: int, shards: int) -> None:
    """Durable when this returns: the message will be looked at then."""
    await ports.table.write(reminder(ref, at_ms, shards))
