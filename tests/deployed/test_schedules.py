"""Schedules of the deployed stack. Nothing waits for a minute: stored times are rewritten, and the tick is called."""

from __future__ import annotations

import shutil
import time
import zlib
from pathlib import Path

from deployed.deployment import Deployment
from journey.harness import ROOT, Client, Place, SinkProcess
from journey.test_schedules import *  # noqa: F403
from waypost.core.schedule import errand_of

_MINUTE = 60_000
_SHARDS = 32


def make(server: Client, url: str, name: str, cron: str) -> None:
    reply = server.post(f"/v2/schedules/{url}", {"Upstash-Cron": cron, "Upstash-Schedule-Id": name})
    assert reply.status == 201, reply


def make_due(server: Deployment, name: str, at_ms: int) -> None:
    """Its next occurrence is that, and so is its reminder."""
    ref = f"main#{errand_of(name)}"
    server.set_number("main#schedules", errand_of(name), "next", at_ms)
    shard = zlib.crc32(ref.encode()) % _SHARDS
    server.put({"pk": f"due#{shard}", "sk": f"{at_ms:015d}#{ref}", "v": 1, "ref": ref, "at": at_ms})


def ids(place: Place) -> list[str | None]:
    return [one.header("Upstash-Message-Id") for one in place.deliveries()]


def test_the_tick_fires_what_is_due_and_what_comes_due(server: Deployment, sink: SinkProcess) -> None:
    due, soon = sink.place("ok"), sink.place("ok")
    for place, name in ((due, "is-due"), (soon, "comes-due")):
        make(server, place.url, name, "0 0 1 1 *")
    now = time.time_ns() // 1_000_000
    make_due(server, "is-due", now - _MINUTE)
    make_due(server, "comes-due", now + 5_000)

    for _ in range(2):
        server.tick()

    [delivery] = due.wait_for(1, 5)
    assert delivery.header("Upstash-Schedule-Id") == "is-due"
    [delivery] = soon.wait_for(1, 10)
    assert server.message(str(delivery.header("Upstash-Message-Id")))["createdAt"] >= now + 5_000
    assert (len(ids(due)), len(ids(soon))) == (1, 1)
    for name in ("is-due", "comes-due"):
        shape = server.get(f"/v2/schedules/{name}").json()
        assert shape["nextScheduleTime"] > now + _MINUTE, "the first of January"


def test_a_deploy_of_changed_code_between_two_occurrences(
    server: Deployment, sink: SinkProcess, tmp_path: Path
) -> None:
    place = sink.place("ok")
    make(server, place.url, "across", "0 0 1 1 *")
    make_due(server, "across", time.time_ns() // 1_000_000 - 3 * _MINUTE)
    server.tick()
    place.wait_for(1, 5)

    before = code_of(server)
    server.source = changed(tmp_path)
    try:
        server.deploy()
    finally:
        server.source = ROOT
    assert code_of(server) != before

    make_due(server, "across", time.time_ns() // 1_000_000 - _MINUTE)
    for _ in range(2):
        server.tick()
    place.wait_for(2, 5)
    server.tick()
    assert len(set(ids(place))) == len(ids(place)) == 2


def code_of(server: Deployment) -> str:
    found = server.functions.get_function_configuration(FunctionName=server.names["deliver"])
    return str(found["CodeSha256"])


def changed(folder: Path) -> Path:
    """The project with another line of code."""
    source = folder / "source"
    source.mkdir()
    for name in ("functions", "infra"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("app.py", "cdk.json"):
        shutil.copy(ROOT / name, source / name)
    (source / ".venv").symlink_to((ROOT / ".venv").resolve())
    with (source / "functions/waypost/on_queue.py").open("a") as code:
        code.write("\n_CHANGED = True\n")
    return source
