"""The real server against its own description: Schemathesis, with all of its checks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from journey.harness import DEV_TOKEN, FUNCTIONS, HERE, Server, SinkProcess, clean_environment, request, wait_until


@pytest.fixture
def described(tmp_path: Path, sink: SinkProcess) -> Iterator[Server]:
    """A server of its own: what is drawn deletes everything, and more than once."""
    server = Server(tmp_path / "data", WAYPOST_LLM_URL=f"{sink.url}/ok").start()
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize(
    "drawn",
    [
        pytest.param((), id="calls"),
        # Alone: where lists give ids, whole stories begin with these, and none with a publish.
        pytest.param(("--phases", "stateful", "--include-path-regex", "^/v2/(publish|messages)"), id="lives"),
    ],
)
def test_all_that_can_be_drawn_is_answered_as_described(
    drawn: tuple[str, ...], described: Server, sink: SinkProcess, tmp_path: Path
) -> None:
    ok, bad = f"{sink.url}/ok/described", f"{sink.url}/always/described"
    publish_some_of_everything(described, ok, bad)
    letters = wait_until(lambda: found if len(found := letters_of(described)) >= 6 else None, 5)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml"),
            *("run", f"{described.url}/openapi.json", *drawn),
        ],
        env=clean_environment(
            PYTHONPATH=str(FUNCTIONS),
            SCHEMATHESIS_HOOKS_FILE=str(HERE / "schemathesis_hooks.py"),
            WAYPOST_TOKEN=DEV_TOKEN,
            DESTINATIONS=f"{ok} {bad}",
            LETTERS=" ".join(letters or ()),
        ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{described.log()[-4000:]}"
    assert "Traceback" not in described.log()


def letters_of(server: Server) -> list[str]:
    return [one["dlqId"] for one in server.get("/v2/dlq").json()["messages"]]


def publish_some_of_everything(server: Server, ok: str, bad: str) -> None:
    """So that lists have all that their entries can hold."""
    everything = {
        "Upstash-Forward-X": "y",
        "Upstash-Label": "a, b",
        "Upstash-Callback": ok,
        "Upstash-Callback-Forward-X": "y",
        "Upstash-Failure-Callback": ok,
        "Upstash-Failure-Callback-Forward-X": "y",
        "Upstash-Retries": "0",
    }
    for destination in (ok, bad, "api/llm"):
        for more in ({"Upstash-Retry-Delay": "1000"}, {"Upstash-Backoff": "fixed", "Upstash-Redact-Fields": "body"}):
            for body in (b"text", b"\xff\xfe", b"\xff" * 20_000):
                headers = {"Authorization": f"Bearer {DEV_TOKEN}", **everything, **more}
                assert request("POST", f"{server.url}/v2/publish/{destination}", headers, body=body).status == 201
