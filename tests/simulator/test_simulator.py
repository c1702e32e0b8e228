"""The real core under every fault that the simulator knows."""

from __future__ import annotations

from collections import Counter

import pytest

from simulator.enumeration import enumerate_faults
from simulator.history import History, run
from simulator.scripts import SCRIPTS, drawn, drawn_faults
from simulator.world import MODES, Mode, faults_of

SEEDS = range(1, 301)
FAULTS_EACH = 5
_struck: dict[Mode, Counter[tuple[str, str]]] = {mode: Counter() for mode in MODES}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SCRIPTS)
def test_no_promise_breaks_whatever_strikes_at_whatever_call(name: str, mode: Mode) -> None:
    struck, problems = enumerate_faults(name, mode)
    _struck[mode].update(struck)
    assert problems == []


@pytest.mark.parametrize("block", range(6))
def test_no_promise_breaks_in_drawn_histories(block: int) -> None:
    assert problems_of(SEEDS[block * 50 : (block + 1) * 50], "machine", "fleet") == {}


@pytest.mark.parametrize("block", range(3))
def test_no_promise_breaks_in_drawn_histories_of_functions(block: int) -> None:
    assert problems_of(SEEDS[block * 50 : (block + 1) * 50], "cloud") == {}


@pytest.mark.parametrize("mode", MODES)
def test_a_seed_reproduces_exactly(mode: Mode) -> None:
    first, second = run_seed(11, mode), run_seed(11, mode)
    assert first.world.sites == second.world.sites
    assert [(a.at_ms, a.message_id, a.status) for a in first.world.arrivals] == [
        (a.at_ms, a.message_id, a.status) for a in second.world.arrivals
    ]


@pytest.mark.parametrize("modes", [("machine", "fleet"), ("cloud",)], ids=" ".join)
def test_every_reachable_port_call_was_struck_by_every_fault(modes: tuple[Mode, ...]) -> None:
    struck = sum((_struck[mode] for mode in modes), Counter())
    if len(struck) == 0:
        pytest.skip("the enumeration did not run this time")
    drawn_sites = {site for seed in SEEDS[:60] for site in run_seed(seed, *modes).world.sites}
    sites = sorted(site for site in drawn_sites | {s for s, _ in struck} if not site.startswith("store"))
    table = [(site, fault) for site in sites for fault in faults_of(modes[0], site)]
    print("\n".join(f"{struck[site, fault]:5} {fault:14} {site}" for site, fault in table))
    assert [one for one in table if not struck[one]] == []


def problems_of(seeds: range, *modes: Mode) -> dict[int, list[str]]:
    problems = {}
    for seed in seeds:
        history = run_seed(seed, *modes)
        assert sum(history.world.injected.values()) == FAULTS_EACH
        if found := history.check():
            problems[seed] = found
    return problems


def run_seed(seed: int, *modes: Mode) -> History:
    """The modes take turns."""
    mode = modes[seed % len(modes)]
    return run(seed, drawn(seed), mode=mode, plan=drawn_faults(seed, FAULTS_EACH, mode))
