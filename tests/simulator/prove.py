"""`make prove`: fresh seeds, printed when they fail. `python -m simulator.prove [count] [first seed]`"""

from __future__ import annotations

import random
import sys
from concurrent.futures import ProcessPoolExecutor

from simulator.lane_scripts import run_in_lanes
from simulator.test_simulator import run_seed

#: Those of lanes are short: so many of them to each other one.
_LANES = 5


def problems_of(seed: int) -> list[str]:
    in_lanes = [f"in lanes, seed {n}: {one}" for n in range(seed * _LANES, (seed + 1) * _LANES) for one in _in_lanes(n)]
    return run_seed(seed).check() + in_lanes


def _in_lanes(seed: int) -> list[str]:
    return run_in_lanes(seed).check()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1_000, 10**9)
    failed = 0
    with ProcessPoolExecutor() as pool:
        seeds = range(first, first + count)
        for seed, problems in zip(seeds, pool.map(problems_of, seeds, chunksize=20), strict=True):
            if problems:
                failed += 1
                print(f"seed {seed}: {problems}", flush=True)
    print(f"{count - failed} of {count} histories kept every promise (seeds {first} to {first + count - 1})")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
