from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from qstash import QStash, Receiver
from qstash.message import PublishResponse

from journey.harness import (
    CURRENT_KEY,
    DEV_TOKEN,
    LLM_KEY,
    NEXT_KEY,
    JavaScript,
    LongWaits,
    Server,
    SinkProcess,
    clean_environment,
    python_client,
)


@pytest.fixture(scope="session", autouse=True)
def _straight_to_the_server() -> Iterator[None]:
    """The Python client reads QSTASH_URL, and httpx the proxies, from this process's environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - clean_environment().keys():
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, sink: SinkProcess) -> Iterator[Server]:
    """The server as `make run` starts it, with a folder of its own, and a model service."""
    server = Server(
        tmp_path_factory.mktemp("journey") / "data", WAYPOST_LLM_URL=f"{sink.url}/ok/llm", WAYPOST_LLM_KEY=LLM_KEY
    ).start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def sink() -> Iterator[SinkProcess]:
    sink = SinkProcess()
    yield sink
    sink.stop()


@pytest.fixture(scope="session")
def javascript(server: Server) -> JavaScript:
    """The JavaScript client told where the server is, as for the hosted service."""
    return JavaScript(
        clean_environment(
            QSTASH_URL=server.url,
            QSTASH_TOKEN=DEV_TOKEN,
            QSTASH_CURRENT_SIGNING_KEY=CURRENT_KEY,
            QSTASH_NEXT_SIGNING_KEY=NEXT_KEY,
        )
    )


@pytest.fixture
def javascript_in_dev_mode(server: Server, tmp_path: Path) -> JavaScript:
    """The JavaScript client in its dev mode, with a home folder of its own: a server it downloads is kept there."""
    return JavaScript(clean_environment(QSTASH_DEV="true", QSTASH_DEV_PORT=str(server.port), HOME=str(tmp_path)))


@pytest.fixture(scope="session")
def python(server: Server) -> Iterator[QStash]:
    with python_client(server.url, DEV_TOKEN) as client:
        yield client


@pytest.fixture(scope="session")
def python_receiver() -> Receiver:
    return Receiver(CURRENT_KEY, NEXT_KEY)


@pytest.fixture(scope="session", autouse=True)
def long_waits(request: pytest.FixtureRequest, _straight_to_the_server: None) -> LongWaits | None:
    """Starts the long waits with the first journey, if this run has a test that awaits them."""
    if not any(item.get_closest_marker("awaited_last") for item in request.session.items):
        return None
    sink: SinkProcess = request.getfixturevalue("sink")
    client: QStash = request.getfixturevalue("python")
    retried, slow = sink.place("fail", times=1), sink.place("slow", seconds=65)
    retried_answer = client.message.publish_json(url=retried.url, body={})
    slow_answer = client.message.publish_json(url=slow.url, body={}, timeout="90s", retries=0)
    assert isinstance(retried_answer, PublishResponse)
    assert isinstance(slow_answer, PublishResponse)
    scheduled = sink.place("ok")
    schedule_id = client.schedule.create(destination=scheduled.url, cron="* * * * *", body="each minute")
    return LongWaits(retried, retried_answer.message_id, slow, slow_answer.message_id, scheduled, schedule_id)
