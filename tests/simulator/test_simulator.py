"""The real core under every fault that the simulator knows."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from simulator.enumeration import histories
from simulator.history import MODES, History, run
from simulator.scripts import SCRIPTS, drawn, drawn_faults

SEEDS = range(1, 301)
FAULTS_EACH = 5
_struck: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)


@pytest.mark.parametrize(("mode", "name"), [(mode, name) for mode in MODES for name in SCRIPTS[mode]])
def test_no_promise_breaks_whatever_strikes_at_whatever_call(mode: str, name: str) -> None:
    problems = []
    for words, history in histories(name, mode):
        _struck[mode].update(history.world.injected)
        problems += [f"{words}: {problem}" for problem in history.check()]
    assert problems == []


@pytest.mark.parametrize("block", range(6))
def test_no_promise_breaks_in_drawn_histories(block: int) -> None:
    problems, struck = {}, 0
    for seed in SEEDS[block * 50 : (block + 1) * 50]:
        history = run_seed(seed)
        struck += history.world.injected.total()
        if found := history.check():
            problems[seed] = found
    assert problems == {}
    # Without ticks some faults find no call.
    assert struck > 0.9 * 50 * FAULTS_EACH


def test_a_seed_reproduces_exactly() -> None:
    first, second = run_seed(11), run_seed(11)
    assert first.world.sites == second.world.sites
    assert [(a.at_ms, a.message_id, a.status) for a in first.world.arrivals] == [
        (a.at_ms, a.message_id, a.status) for a in second.world.arrivals
    ]


@pytest.mark.parametrize("mode", MODES)
def test_every_reachable_port_call_was_struck_by_every_fault(mode: str) -> None:
    struck = _struck[mode]
    if not struck:
        pytest.skip("the enumeration did not run this time")
    worlds = [run_seed(seed).world for seed in SEEDS[:60] if mode_of(seed) == mode]
    sites = sorted({site for world in worlds for site in world.sites} | {site for site, _ in struck})
    pairs = [(site, fault) for site in sites if site != "store commit" for fault in worlds[0].faults_of(site)]
    print("\n".join(f"{struck[pair]:5} {pair[1]:14} {pair[0]}" for pair in pairs))
    assert [pair for pair in pairs if not struck[pair]] == []


def mode_of(seed: int) -> str:
    return list(MODES)[seed % len(MODES)]


def run_seed(seed: int) -> History:
    mode = mode_of(seed)
    return run(seed, drawn(seed), mode=mode, plan=drawn_faults(seed, mode, FAULTS_EACH))
