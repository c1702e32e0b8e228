"""Pages of logs over many messages: how long each takes, and how far the server's memory rises for it."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from benchmarks.load import TOKEN, free_port, process, wait_for


class Walked(NamedTuple):
    pages: int
    events: int
    longest_s: float
    median_s: float
    most_mb: float


def walk(data: Path, queries: dict[str, dict[str, str]]) -> dict[str, Walked]:
    """All the pages of each query, by the query's name."""
    port = free_port()
    with process(sys.executable, "-m", "waypost.local", WAYPOST_DATA=str(data), WAYPOST_PORT=str(port)) as server:
        wait_for(f"http://127.0.0.1:{port}/healthz")
        time.sleep(3)  # recovery is over
        return {name: _walk(port, server.pid, query) for name, query in queries.items()}


def _walk(port: int, pid: int, query: dict[str, str]) -> Walked:
    cursor: str | None = ""
    takes, rises, events = [], [], 0
    while cursor is not None:
        asked = urlencode({**query, **({"cursor": cursor} if cursor else {})})
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v2/events?{asked}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        # From here on the kernel keeps the highest value anew.
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before, start = _kilobytes(pid, "VmRSS"), time.monotonic()
        with urllib.request.urlopen(request, timeout=60) as answer:
            page = json.loads(answer.read())
        takes.append(time.monotonic() - start)
        rises.append((_kilobytes(pid, "VmHWM") - before) / 1024)
        events += len(page["events"])
        cursor = page.get("cursor")
    return Walked(len(takes), events, max(takes), sorted(takes)[len(takes) // 2], max(rises))


def _kilobytes(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
