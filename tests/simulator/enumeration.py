"""Every fault at every port call of every short history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

from simulator.history import H, History, run
from simulator.lane_scripts import LANE_SCRIPTS
from simulator.lanes import Lanes
from simulator.scripts import SCRIPTS
from simulator.world import World

SEED = 7


#: Of calls that a history repeats over and over, the first few are struck.
_TIMES = 3


def plans(world: World, times: int = _TIMES) -> Iterator[tuple[int, str]]:
    """Each fault at each call."""
    seen: Counter[str] = Counter()
    for number, site in enumerate(world.sites):
        seen[site] += 1
        if seen[site] <= times:
            for fault in world.faults_of(site):
                yield number, fault


def histories(name: str, mode: str) -> Iterator[tuple[str, History]]:
    """The history as it is, then struck by each fault, with words that reproduce it."""
    return struck(name, SCRIPTS[mode][name], mode, History)


def in_lanes(name: str, mode: str, times: int = _TIMES) -> Iterator[tuple[str, Lanes]]:
    """Likewise for one of the lanes'."""
    return struck(name, LANE_SCRIPTS[name], mode, Lanes, times)


def struck(
    name: str, script: Callable[[H], Awaitable[None]], mode: str, kind: type[H], times: int = _TIMES
) -> Iterator[tuple[str, H]]:
    whole = run(SEED, script, mode=mode, kind=kind)
    yield f"{name} {mode}", whole
    for number, fault in plans(whole.world, times):
        plan = {number: fault}
        yield f"{name} {mode} {fault} at call {number}", run(SEED, script, mode=mode, plan=plan, kind=kind)
