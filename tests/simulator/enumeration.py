"""Every fault at every port call of every short history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from simulator.history import run
from simulator.scripts import SCRIPTS
from simulator.world import Mode, faults_of

SEED = 7


def baseline(name: str, mode: Mode) -> list[str]:
    """The sites of the port calls that the history makes without a fault, until all is settled."""
    history = run(SEED, SCRIPTS[name], mode=mode)
    problems = history.check()
    if problems:
        raise AssertionError(f"{name} fails without any fault: {problems}")
    return history.world.sites


def plans(sites: list[str], mode: Mode) -> Iterator[tuple[int, str]]:
    """Each fault at each call; of calls that a history repeats over and over, the first few."""
    seen: Counter[str] = Counter()
    for number, site in enumerate(sites):
        seen[site] += 1
        if seen[site] <= 4:
            for fault in faults_of(mode, site):
                yield number, fault


def enumerate_faults(name: str, mode: Mode) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Returns how often each (port call, fault) was struck, and what went wrong, in words that reproduce it."""
    struck: Counter[tuple[str, str]] = Counter()
    problems: list[str] = []
    for number, fault in plans(baseline(name, mode), mode):
        history = run(SEED, SCRIPTS[name], mode=mode, plan={number: fault})
        struck += history.world.injected
        problems += [f"{name} {mode} {fault} at call {number}: {p}" for p in history.check()]
    return struck, problems
