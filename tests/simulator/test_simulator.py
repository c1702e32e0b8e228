"""The real core under every fault that the simulator knows."""

from __future__ import annotations

from collections import Counter

import pytest

from simulator.enumeration import enumerate_faults
from simulator.history import History, run
from simulator.scripts import SCRIPTS, drawn, drawn_faults
from simulator.world import faults_of

SEEDS = range(1, 301)
FAULTS_EACH = 5
_struck: Counter[tuple[str, str]] = Counter()


@pytest.mark.parametrize("machine", [True, False], ids=["machine", "fleet"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_no_promise_breaks_whatever_strikes_at_whatever_call(name: str, machine: bool) -> None:
    struck, problems = enumerate_faults(name, machine)
    _struck.update(struck)
    assert problems == []


@pytest.mark.parametrize("block", range(6))
def test_no_promise_breaks_in_drawn_histories(block: int) -> None:
    problems = {}
    for seed in SEEDS[block * 50 : (block + 1) * 50]:
        history = run_seed(seed)
        assert sum(history.world.injected.values()) == FAULTS_EACH
        if found := history.check():
            problems[seed] = found
    assert problems == {}


def test_a_seed_reproduces_exactly() -> None:
    first, second = run_seed(11), run_seed(11)
    assert first.world.sites == second.world.sites
    assert [(a.at_ms, a.message_id, a.status) for a in first.world.arrivals] == [
        (a.at_ms, a.message_id, a.status) for a in second.world.arrivals
    ]


def test_every_reachable_port_call_was_struck_by_every_fault(request: pytest.FixtureRequest) -> None:
    if len(_struck) == 0:
        pytest.skip("the enumeration did not run this time")
    sites = sorted({site for seed in SEEDS[:60] for site in run_seed(seed).world.sites} | {s for s, _ in _struck})
    sites = [site for site in sites if not site.startswith("store")]
    table = [f"{_struck[site, fault]:5} {fault:14} {site}" for site in sites for fault in faults_of(site)]
    print("\n".join(table))
    missed = [(site, fault) for site in sites for fault in faults_of(site) if not _struck[site, fault]]
    assert missed == []


def run_seed(seed: int) -> History:
    return run(seed, drawn(seed), machine=seed % 2 == 0, plan=drawn_faults(seed, FAULTS_EACH))
