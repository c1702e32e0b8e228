"""Queues and flow-control keys under every fault that the simulator knows."""

from __future__ import annotations

import pytest

from simulator.enumeration import in_lanes
from simulator.history import MODES, run
from simulator.lane_scripts import LANE_SCRIPTS, arriving_as_others_leave, run_in_lanes
from simulator.lanes import Lanes

HISTORIES = 1_000
BLOCKS = 10


@pytest.mark.parametrize(("mode", "name"), [(mode, name) for mode in ("machine", "cloud") for name in LANE_SCRIPTS])
def test_no_promise_breaks_whatever_strikes_first_calls(mode: str, name: str) -> None:
    problems = []
    for words, history in in_lanes(name, mode, times=1):
        problems += [f"{words}: {problem}" for problem in history.check()]
    assert problems == []


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_promise_breaks_in_drawn_histories(block: int) -> None:
    each = HISTORIES // BLOCKS
    seeds = range(block * each + 1, (block + 1) * each + 1)
    assert {seed: found for seed in seeds if (found := run_in_lanes(seed).check())} == {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(1, 6))
def test_who_comes_as_another_leaves_is_not_overlooked(mode: str, seed: int) -> None:
    assert run(seed, arriving_as_others_leave, mode=mode, kind=Lanes).check() == []
