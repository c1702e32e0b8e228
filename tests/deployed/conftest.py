"""The journeys' fixtures, with the deployed stack in the place of the local server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deployed.deployment import LOOPBACK, Deployment
from emulator import Emulator
from journey.conftest import (  # noqa: F401 - fixtures
    _straight_to_the_server,
    javascript,
    long_waits,
    python,
    python_receiver,
    sink,
)
from journey.harness import LLM_KEY, SinkProcess


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    emulator = Emulator()
    yield emulator
    emulator.stop()


@pytest.fixture(scope="session")
def server(
    emulator: Emulator,
    tmp_path_factory: pytest.TempPathFactory,
    sink: SinkProcess,  # noqa: F811 - the fixture
) -> Iterator[Deployment]:
    deployment = Deployment(
        emulator, tmp_path_factory.mktemp("deployed"), {**LOOPBACK, "WAYPOST_LLM_URL": f"{sink.url}/ok/llm"}, LLM_KEY
    )
    yield deployment
    deployment.close()
