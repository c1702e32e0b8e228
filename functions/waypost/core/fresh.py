"""Messages that this process has just stored: its own worker, who hears of them first, need not read them back."""

from __future__ import annotations

from waypost.core.message import Message


class Fresh:
    """Holds a few; the oldest make room. A message is immutable, so having it at hand is as good as reading it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._messages: dict[str, Message] = {}

    def keep(self, message: Message) -> None:
        if not self._capacity:
            return
        if len(self._messages) >= self._capacity:
            del self._messages[next(iter(self._messages))]
        self._messages[message.ref] = message

    def take(self, ref: str) -> Message | None:
        return self._messages.pop(ref, None)
