"""What decides who may start, against a model of it: any operations in any order, at any times."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from waypost.core.lane import Entry, Lane, Turn
from waypost.core.terms import LaneKind, Limits

_NOW_MS = 1_790_000_000_000
_LIMITS = st.builds(Limits, st.sampled_from([0, 1, 2, 5]), st.sampled_from([0, 1, 3]), st.sampled_from([1_000, 10_000]))


class OneLane(RuleBasedStateMachine):
    """The lane is changed as visitors change it; the model remembers who was let in, in what order and when."""

    @initialize(kind=st.sampled_from(LaneKind), limits=_LIMITS)
    def open(self, kind: LaneKind, limits: Limits) -> None:
        self.now_ms = _NOW_MS
        self.lane = Lane(kind, "l", self.now_ms, self.now_ms, limits)
        self.given = 0
        self.line: list[Entry] = []
        self.starts: Counter[int] = Counter()
        self.most: dict[int, int] = {}

    @rule(count=st.integers(1, 4))
    def arrive(self, count: int) -> None:
        for _ in range(count):
            self.given += 1
            self.line.append(Entry(self.given, f"m{self.given}", 60_000))

    @rule()
    def visit(self) -> None:
        room, before = self.lane.room(self.now_ms), self.lane
        self.lane, admitted = self.lane.letting_in(self.line, self.now_ms)
        assert list(admitted) == self.line[:room], "the first in line, and as many as there is room for"
        self.line = self.line[len(admitted) :]
        limits = self.lane.limits
        if limits.parallelism and admitted:
            assert len(self.lane.held) <= limits.parallelism
        if admitted:
            assert not before.paused_ms
        for one in admitted:
            assert self.lane.turn(*one.entrant, self.now_ms) is Turn.NOW

    @rule(number=st.integers(0, 9))
    def begin(self, number: int) -> None:
        """Whoever was let in, when its bell comes, and may have to count anew."""
        held = [(one, slot.place) for one, slot in self.lane.held.items() if slot.window_ms]
        entrant = held[number % len(held)] if held else ("", 0)
        if held and self.lane.turn(*entrant, self.now_ms) is Turn.LATE:
            self.lane = self.lane.renewed(entrant, self.now_ms) or self.lane
        if held and self.lane.turn(*entrant, self.now_ms) is Turn.NOW:
            self._count(self.lane.held[entrant[0]].window_ms)
            self.lane = self.lane.begun([entrant])

    @rule()
    def see_to_the_late(self) -> None:
        self.lane = self.lane.for_the_late(self.now_ms)

    @rule(number=st.integers(0, 9))
    def leave(self, number: int) -> None:
        held = [(one, slot.place) for one, slot in self.lane.held.items()]
        if held:
            entrant = held[number % len(held)]
            self.lane = self.lane.without([entrant, entrant, ("m0", 1)])
            assert not self.lane.holds(entrant)

    @rule(ms=st.sampled_from([1, 400, 999, 1_000, 9_999, 10_001]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule(limits=_LIMITS)
    def a_message_brings_limits(self, limits: Limits) -> None:
        self.given += 1
        before = self.lane
        self._note_rate()
        self.lane = before.asked_for(limits, self.given)
        if before.pinned_parallelism:
            assert self.lane.limits.parallelism == before.limits.parallelism
        else:
            assert self.lane.limits.parallelism == limits.parallelism

    @rule(parallelism=st.booleans(), rate=st.booleans())
    def pin(self, parallelism: bool, rate: bool) -> None:
        self.lane = replace(self.lane, pinned_parallelism=parallelism, pinned_rate=rate)

    @rule()
    def pause_or_resume(self) -> None:
        self.lane = replace(self.lane, paused_ms=0 if self.lane.paused_ms else self.now_ms)

    @rule()
    def delete(self) -> None:
        self.lane = replace(self.lane, void_below=self.given, gone=True)
        for one, slot in self.lane.held.items():
            assert self.lane.turn(one, slot.place, self.now_ms) is Turn.NEVER
        self.line.clear()
        self.lane = self.lane.made_again(Limits(parallelism=1), self.now_ms)

    @invariant()
    def a_window_has_no_more_starts_than_its_rate(self) -> None:
        for window, count in getattr(self, "starts", {}).items():
            assert count <= self.most[window]

    @invariant()
    def it_is_stored_as_it_is(self) -> None:
        if hasattr(self, "lane"):
            assert Lane.from_item(self.lane.to_item("account")) == self.lane

    @invariant()
    def whoever_could_start_is_seen_or_waits_for_a_bell(self) -> None:
        if hasattr(self, "lane") and not self.lane.paused_ms:
            lane = self.lane.for_the_late(self.now_ms)  # as every visitor begins
            is_full = 0 < lane.limits.parallelism <= len(lane.held) or len(lane.held) >= 100
            assert lane.room(self.now_ms) or is_full or lane.is_full_until(self.now_ms) > self.now_ms

    def _count(self, window_ms: int) -> None:
        if self.lane.limits.rate:
            self.starts[window_ms] += 1
            self._note_rate()

    def _note_rate(self) -> None:
        """Whoever was let in before its window's rate was lowered begins all the same."""
        window = self.lane.window_ms
        self.most[window] = max(self.most.get(window, 0), self.lane.limits.rate)


TestOneLane = OneLane.TestCase
TestOneLane.settings = settings(max_examples=200, stateful_step_count=40, deadline=None, derandomize=True)
