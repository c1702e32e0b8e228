"""Events of attempts on their way to the table. They wait in memory for whoever runs the engine to flush them: an item
for many events costs a small part of one for each. A crash may lose some, and nothing waits for them."""

from __future__ import annotations

from collections import deque

from waypost.core.event import (
    ACTIVE,
    CANCEL_REQUESTED,
    CANCELED,
    RANKS,
    Told,
    end_of_attempt,
    segments,
    source_of,
    told_created,
)
from waypost.core.ids import random_name
from waypost.core.message import Message, State
from waypost.core.policy import Policy
from waypost.core.ports import Busy, Ports, Put, Unavailable

#: While the store takes nothing, the oldest make room beyond these.
_MOST_WAITING = 20_000
#: So many are encoded at a time, between which others get their turn.
_AT_ONCE = 2_000


class Log:
    def __init__(self, ports: Ports, policy: Policy) -> None:
        self._ports = ports
        self._policy = policy
        self._told: deque[Told] = deque(maxlen=_MOST_WAITING)
        self._unwritten: deque[Put] = deque()

    def created(self, message: Message) -> None:
        """Of a message that the look may have missed; those that it meets it tells of itself."""
        self._told.append(told_created(message))

    def active(self, message: Message, now_ms: int) -> None:
        self._told.append((now_ms, message.account, source_of(message), _ACTIVE, 0, None))

    def settled(self, message: Message, state: State, now_ms: int) -> None:
        source = source_of(message)
        for time_ms, name, next_ms, failure in end_of_attempt(state, now_ms):
            self._told.append((time_ms, message.account, source, RANKS[name], next_ms, failure))

    def cancel_requested(self, message: Message, now_ms: int) -> None:
        self._told.append((now_ms, message.account, source_of(message), RANKS[CANCEL_REQUESTED], 0, None))

    def canceled(self, message: Message, now_ms: int) -> None:
        self._told.append((now_ms, message.account, source_of(message), RANKS[CANCELED], 0, None))

    @property
    def is_much(self) -> bool:
        """Whether enough waits to be worth a write at once."""
        return len(self._told) >= _AT_ONCE

    async def flush(self) -> str:
        """Writes what waits, and never raises: nothing that logs say is worth a delivery. Returns why something was not
        written, empty if all was. What the store did not take is written, under the same name, with the next flush."""
        lost, left = "", len(self._told)
        while True:
            try:
                await self._write()
                if left <= 0 or not self._told:
                    return lost
                some = [self._told.popleft() for _ in range(min(_AT_ONCE, len(self._told)))]
                left -= len(some)
                self._unwritten.extend(segments(some, self._policy.log_retention_ms, self._name))
            except (Busy, Unavailable) as failed:
                return str(failed) or "the store is busy"
            except Exception as wrong:  # noqa: BLE001 - whatever it is, those who deliver must not hear of it
                lost = f"some events can't be stored: {wrong!r}"
                self._unwritten.clear()

    async def _write(self) -> None:
        while self._unwritten:
            put = self._unwritten[0]
            await self._ports.table.write(put)
            # Another flush may have written it meanwhile.
            if self._unwritten and self._unwritten[0] is put:
                self._unwritten.popleft()

    def _name(self, _: int) -> str:
        return random_name(self._ports.random)


_ACTIVE = RANKS[ACTIVE]
