"""Every fault at every port call of every short history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from simulator.history import run
from simulator.scripts import SCRIPTS
from simulator.world import faults_of

SEED = 7


def baseline(name: str, machine: bool) -> list[str]:
    """The sites of the port calls that the history makes without a fault, until all is settled."""
    history = run(SEED, SCRIPTS[name], machine=machine)
    problems = history.check()
    if problems:
        raise AssertionError(f"{name} fails without any fault: {problems}")
    return history.world.sites


def plans(sites: list[str]) -> Iterator[tuple[int, str]]:
    """Each fault at each call; of calls that a history repeats over and over, the first few."""
    seen: Counter[str] = Counter()
    for number, site in enumerate(sites):
        seen[site] += 1
        if seen[site] <= 4:
            for fault in faults_of(site):
                yield number, fault


def enumerate_faults(name: str, machine: bool) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Returns how often each (port call, fault) was struck, and what went wrong, in words that reproduce it."""
    struck: Counter[tuple[str, str]] = Counter()
    problems: list[str] = []
    for number, fault in plans(baseline(name, machine)):
        history = run(SEED, SCRIPTS[name], machine=machine, plan={number: fault})
        struck += history.world.injected
        problems += [f"{name} machine={machine} {fault} at call {number}: {p}" for p in history.check()]
    return struck, problems
