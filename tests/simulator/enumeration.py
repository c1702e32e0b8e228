"""Every fault at every port call of every short history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from simulator.history import History, run
from simulator.scripts import SCRIPTS
from simulator.world import World

SEED = 7


def plans(world: World) -> Iterator[tuple[int, str]]:
    """Each fault at each call; of calls that a history repeats over and over, the first few."""
    seen: Counter[str] = Counter()
    for number, site in enumerate(world.sites):
        seen[site] += 1
        if seen[site] <= 4:
            for fault in world.faults_of(site):
                yield number, fault


def histories(name: str, mode: str) -> Iterator[tuple[str, History]]:
    """The history as it is, then struck by each fault, with words that reproduce it."""
    script = SCRIPTS[mode][name]
    whole = run(SEED, script, mode=mode)
    yield f"{name} {mode}", whole
    for number, fault in plans(whole.world):
        yield f"{name} {mode} {fault} at call {number}", run(SEED, script, mode=mode, plan={number: fault})
