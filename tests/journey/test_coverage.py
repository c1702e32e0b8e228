"""Every method of both official clients is driven by a journey, or named here as not served: so a client that learns a
new one fails this until somebody has looked at it."""

from __future__ import annotations

import inspect
import json
import subprocess
from pathlib import Path

from qstash import QStash

HERE = Path(__file__).parent
#: No requests of their own.
_NO_REQUESTS = {"queue", "chat"}
#: Of services that are not this one: a model service that has ended, and workflows, which are refused by name.
_ELSEWHERE = {"chat.getAuthorizationToken", "workflow.cancel"}


def test_every_method_of_the_python_client_has_its_journey() -> None:
    journeys = "".join(path.read_text() for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)
    client = QStash("none")
    found = {
        f"{part}.{name}"
        for part, resource in vars(client).items()
        if part != "http"
        for name, _ in inspect.getmembers(resource, inspect.ismethod)
        if not name.startswith("_")
    }
    for method in sorted(found):
        assert f".{method}(" in journeys, method


def test_every_method_of_the_javascript_client_has_its_journey() -> None:
    scenarios = (HERE / "journey.mjs").read_text()
    journeys = "".join(
        (HERE / name).read_text() for name in ("test_javascript.py", "test_schedules.py", "test_lanes.py")
    )
    done = subprocess.run(["node", HERE / "methods.mjs"], capture_output=True, text=True, check=True)
    found = set(json.loads(done.stdout.splitlines()[-1]))
    assert found >= _NO_REQUESTS | _ELSEWHERE
    for method in sorted(found - _NO_REQUESTS - _ELSEWHERE):
        resource, _, name = method.rpartition(".")
        by_name = f'"{resource}", method="{name}"' in journeys
        assert f".{method}(" in scenarios or by_name, method
