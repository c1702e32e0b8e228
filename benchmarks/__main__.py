"""`make bench ARGS="startup|coldstart|speed|flat|logs|lanes"`: what was measured, printed. It is no part of tests."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import logs as pages
from benchmarks.coldstart import coldstart
from benchmarks.fill import OLDEST, fill
from benchmarks.lanes import drains, quiet_p99_ms, ratios
from benchmarks.load import ROOT, free_port, measure, process, wait_for


def startup() -> None:
    """How long a second start takes until it serves, with and without its imports."""
    imports_alone = [sys.executable, "-c", "import waypost.local.__main__"]
    environment = {"PYTHONPATH": str(ROOT / "functions")}
    with tempfile.TemporaryDirectory() as folder:
        takes, imports = [], []
        for _ in range(6):
            start = time.monotonic()
            subprocess.run(imports_alone, check=True, env=environment)
            imports.append(time.monotonic() - start)
            port, start = free_port(), time.monotonic()
            with process(sys.executable, "-m", "waypost.local", WAYPOST_DATA=folder, WAYPOST_PORT=str(port)):
                takes.append(wait_for(f"http://127.0.0.1:{port}/healthz") - start)
        whole, alone = statistics.median(takes[1:]), statistics.median(imports[1:])
        print(f"serves after {whole:.2f} s; interpreter and imports alone take {alone:.2f} s")


def speed(count: int = 10_000) -> None:
    for size in (256, 1024):
        with tempfile.TemporaryDirectory() as folder:
            runs = [measure(Path(folder), count, size=size) for _ in range(3)]
            print(f"{size} B: delivered/s {[round(run) for run in runs]}, median {statistics.median(runs):.0f}")


def flat(count: int = 10_000, pairs: int = 5, stored: int = 1_000_000) -> None:
    """Delivered a second with so many messages stored, over that with 1,000; alternating pairs."""
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        fill(Path(few), delivered=900, delayed=100)
        fill(Path(many), delivered=stored * 9 // 10, delayed=stored // 10)
        ratios = []
        for _ in range(pairs):
            low, high = measure(Path(few), count), measure(Path(many), count)
            ratios.append(high / low)
            print(f"with 1,000: {low:.0f}/s, with {stored:,}: {high:.0f}/s, ratio {high / low:.3f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.3f}")


def logs(stored: int = 1_000_000) -> None:
    """Log queries over so many delivered messages: each page takes 2 s and 50 MB at most."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), delivered=stored, delayed=0)
        queries = {
            "matches nothing": {"label": "none"},
            "matches nothing, earliest first": {"label": "none", "order": "earliestFirst"},
            "matches the oldest": {"label": OLDEST},
            "matches the oldest, created": {"label": OLDEST, "state": "CREATED"},
            "matches all of an hour": {"fromDate": str((time.time_ns() // 10**9 - 3600) * 1000)},
        }
        for name, walked in pages.walk(Path(folder), queries).items():
            print(
                f"{name}: {walked.events:,} events in {walked.pages} pages; a page takes {walked.median_s:.3f} s in the"
                f" median, {walked.longest_s:.3f} s and {walked.most_mb:.0f} MB at most"
            )


def lanes(pairs: int = 5, busy: int = 100_000, waiting: int = 1_000_000) -> None:
    """A quiet key's p99 beside a busy key, over that without one; and how fast a queue drains with a million waiting,
    over that with a hundred. Alternating pairs."""
    p99s = []
    for _ in range(pairs):
        with tempfile.TemporaryDirectory() as alone, tempfile.TemporaryDirectory() as beside:
            p99s.append((quiet_p99_ms(Path(alone), 0), quiet_p99_ms(Path(beside), busy)))
            print(f"p99 alone {p99s[-1][0]:.1f} ms, beside {busy:,} {p99s[-1][1]:.1f} ms", flush=True)
    print(f"quiet key, beside over alone: {ratios(p99s)}", flush=True)
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        speeds = drains(Path(few), Path(many), waiting, pairs)
    for low, high in speeds:
        print(f"drains with 100 waiting {low:.0f}/s, with {waiting:,} {high:.0f}/s")
    print(f"drain, many over few: {ratios(speeds)}")


if __name__ == "__main__":
    known = {"startup": startup, "coldstart": coldstart, "speed": speed, "flat": flat, "logs": logs, "lanes": lanes}
    for name in sys.argv[1:] or known:
        known[name]()
