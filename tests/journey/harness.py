"""What the journeys drive: the real server and the sink as processes, and the JavaScript client in Node."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlencode

from qstash import QStash

ROOT = Path(__file__).parents[2]
FUNCTIONS = ROOT / "functions"
HERE = Path(__file__).parent

#: What the development profile is known by; public, and fixed by the JavaScript SDK's dev mode.
DEV_TOKEN = "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0="
CURRENT_KEY = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r"
NEXT_KEY = "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"
#: Of the stand-in for a model service.
LLM_KEY = "key-of-the-model-service"

#: What the clocks of two processes and the rounding to milliseconds may differ by.
CLOCKS_S = 0.01

_START_S = 10
_STOP_S = 10
_T = TypeVar("_T")


def wait_until(predicate: Callable[[], _T], bound_s: float) -> _T:
    """Polls until the predicate gives something true, and returns that.

    `bound_s` is how long it should take. Three times as long is allowed, since a test machine may be slow; more fails.
    """
    deadline = time.monotonic() + 3 * bound_s
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within 3 x {bound_s} s, last seen: {found!r}")
        time.sleep(0.02)


def free_port() -> int:
    """A port outside the range that outgoing connections take theirs from.

    Inside it, a port whose server is down for a second may be taken, or a client that polls it may meet itself.
    """
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port between 20000 and 32000")


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without what would steer a client or server elsewhere, and `settings`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("QSTASH_", "WAYPOST_", "UPSTASH_"))
        and not name.lower().endswith("_proxy")
        and name not in {"NODE_ENV", "NEXT_PHASE"}  # in production the JavaScript client has no dev mode
    }
    return {**kept, **settings}


class Reply(NamedTuple):
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    method: str, url: str, headers: dict[str, str] | None = None, timeout_s: float = 10, body: bytes | None = None
) -> Reply:
    asked = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=timeout_s) as answer:
            return Reply(answer.status, answer.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return Reply(refused.code, refused.read())


class Client:
    """What a journey asks a server on this machine, besides what the SDKs ask."""

    #: How soon logs tell of an event.
    logs_within_s = 2
    #: How many messages are a great many to it.
    many = 100_000
    #: How many messages it delivers in a second at least.
    delivers_a_second = 500
    #: How many messages it is given to bring through a lane, and how many of them it starts in a second at least.
    in_a_lane = 2_000
    starts_a_second = 20
    #: How late a schedule may fire.
    fires_within_s = 1

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, token: str = DEV_TOKEN) -> Reply:
        return request("GET", f"{self.url}{path}", {"Authorization": f"Bearer {token}"})

    def post(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        return request(
            "POST", f"{self.url}{path}", {"Authorization": f"Bearer {DEV_TOKEN}", **(headers or {})}, body=b""
        )

    def message(self, message_id: str) -> dict[str, Any]:
        """As `GET /v2/messages/{id}` answers, `state` included, which the SDKs' types don't have."""
        reply = self.get(f"/v2/messages/{message_id}")
        assert reply.status == 200, reply
        found: dict[str, Any] = reply.json()
        return found

    def wait_for_state(self, message_id: str, state: str, bound_s: float) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            found = self.message(message_id)
            return found if found["state"] == state else None

        try:
            return wait_until(there, bound_s)
        except AssertionError:
            raise AssertionError(f"{message_id} is not {state} but {self.message(message_id)}") from None


class Server(Client):
    """`python -m waypost.local` on a data folder and a port that outlive its processes."""

    def __init__(self, data: Path, **settings: str) -> None:
        super().__init__(free_port())
        self.data = data
        self._log = data.with_name(data.name + ".log")
        self._environment = clean_environment(
            PYTHONPATH=str(FUNCTIONS),
            WAYPOST_PORT=str(self.port),
            WAYPOST_DATA=str(data),
            **{"WAYPOST_PROFILE": "development", **settings},
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "waypost.local"],
                env=self._environment,
                stdout=log,
                stderr=log,
                cwd=self.data.parent,
            )
        try:
            wait_until(self._serves, _START_S)
        except BaseException:
            self.kill()
            raise
        return self

    def _serves(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended with {self._process.returncode}:\n{self.log()[-4000:]}")
        try:
            return request("GET", f"{self.url}/healthz", timeout_s=2).status == 200
        except OSError:
            return False

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Asks it to end, as a service manager does, and returns its exit code."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout=3 * _STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop on SIGTERM:\n{self.log()[-4000:]}") from None

    def log(self) -> str:
        return self._log.read_text(errors="replace")


class Delivery(NamedTuple):
    """One request as the sink saw it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    arrived: float
    answered: float | None
    status: int | None

    def header(self, name: str) -> str | None:
        """The value of a header that may stand there once at most."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, (name, values)
        return values[0] if values else None


class Place(NamedTuple):
    """A destination at the sink that nothing else is sent to."""

    sink: SinkProcess
    url: str
    prefix: str

    def deliveries(self) -> list[Delivery]:
        return self.sink.deliveries(self.prefix)

    def wait_for(self, count: int, bound_s: float) -> list[Delivery]:
        """At least `count` requests, in order of arrival."""
        return wait_until(lambda: found if len(found := self.deliveries()) >= count else None, bound_s) or []


class SinkProcess:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "sink.py")], env=clean_environment(), stdout=subprocess.PIPE
        )
        assert self._process.stdout
        with self._process.stdout as out:
            self.port = json.loads(out.readline())["port"]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def place(self, behaviour: str, **query: str | float) -> Place:
        prefix = f"/{behaviour}/{uuid.uuid4().hex}"
        return Place(self, f"{self.url}{prefix}" + (f"?{urlencode(query)}" if query else ""), prefix)

    def deliveries(self, prefix: str) -> list[Delivery]:
        found = request("GET", f"{self.url}/__journal?{urlencode({'path_prefix': prefix})}").json()
        return [
            Delivery(
                r["method"],
                r["target"],
                [(name, value) for name, value in r["headers"]],
                base64.b64decode(r["body"]),
                r["arrived"],
                r["answered"],
                r["status"],
            )
            for r in found
        ]

    def events(self, since: int) -> list[list[Any]]:
        found: list[list[Any]] = request("GET", f"{self.url}/__events?since={since}").json()
        return found


class LongWaits(NamedTuple):
    """Messages that nobody waits for yet, and a schedule that fires in the next minute."""

    retried: Place
    retried_id: str
    slow: Place
    slow_id: str
    scheduled: Place
    schedule_id: str


@contextmanager
def python_client(url: str, token: str) -> Iterator[QStash]:
    """The official Python client; it has no way of its own to close its connections."""
    client = QStash(token, base_url=url)
    try:
        yield client
    finally:
        client.http._client.close()


class JavaScript(NamedTuple):
    """The official JavaScript client, unchanged, one Node process a call."""

    environment: dict[str, str]

    def __call__(self, scenario: str, /, **arguments: Any) -> Any:
        return self.run(scenario, **arguments)[0]

    def run(self, scenario: str, /, **arguments: Any) -> tuple[Any, str]:
        """The result, and what the client itself printed."""
        done = subprocess.run(
            ["node", str(HERE / "journey.mjs"), scenario, json.dumps(arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{scenario} {arguments}:\n{done.stdout}\n{done.stderr}"
        *said, result = done.stdout.splitlines()
        return json.loads(result), "\n".join([*said, done.stderr])
