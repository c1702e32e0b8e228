"""Who may send next: at most so many at once, and no host more than half of them while others wait."""

from __future__ import annotations

from collections import Counter, deque


class FairSlots:
    """Slots for requests in flight. What has to wait is kept by its reference alone, in line behind its host."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._used: Counter[str] = Counter()
        self._in_flight = 0
        self._lines: dict[str, deque[str]] = {}
        #: How many wait.
        self.waiting = 0

    def take(self, host: str) -> bool:
        """True: the slot is taken, give it back with `free`."""
        if self._in_flight >= self._slots:
            return False
        self._used[host] += 1
        self._in_flight += 1
        return True

    def wait(self, host: str, ref: str) -> None:
        self._lines.setdefault(host, deque()).append(ref)
        self.waiting += 1

    def free(self, host: str) -> None:
        self._used[host] -= 1
        self._in_flight -= 1
        if not self._used[host]:
            del self._used[host]

    def next(self) -> tuple[str, str] | None:
        """The host and reference that may go now, its slot taken; None: no slot is free, or nobody waits.

        Hosts take turns; one over its half goes only if nobody below waits.
        """
        if self._in_flight >= self._slots or not self.waiting:
            return None
        host = next((h for h in self._lines if self._within_share(h)), next(iter(self._lines)))
        line = self._lines.pop(host)
        ref = line.popleft()
        if line:
            self._lines[host] = line
        self.waiting -= 1
        self._used[host] += 1
        self._in_flight += 1
        return host, ref

    def _within_share(self, host: str) -> bool:
        return self._used[host] < max(1, self._slots // 2)
