"""The journeys' fixtures, with the deployed stack in the place of the local server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deployed.deployment import Deployment
from emulator import Emulator
from journey.conftest import (  # noqa: F401 - fixtures
    _straight_to_the_server,
    javascript,
    long_waits,
    python,
    python_receiver,
    sink,
)


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    emulator = Emulator()
    yield emulator
    emulator.stop()


@pytest.fixture(scope="session")
def server(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(emulator, tmp_path_factory.mktemp("deployed"))
    yield deployment
    deployment.close()
