"""Every engine passes the same suite. It speaks to the ports, and to an engine's `Harness` for what no port offers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.aws import MinistackHarness, MotoHarness
from contract.harness import Harness, SqliteHarness

_ENGINES: dict[str, Callable[[Path], Harness]] = {
    "sqlite": SqliteHarness,
    "moto": MotoHarness,
    "ministack": MinistackHarness,
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(feature): skipped, with the reason, where an engine lacks it")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Async tests run on a loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(params=sorted(_ENGINES))
def new_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Harness]]:
    """Makes engines, each with a world of its own."""
    made: list[Harness] = []

    def make() -> Harness:
        harness = _ENGINES[request.param](tmp_path / str(len(made)))
        made.append(harness)
        for mark in request.node.iter_markers("needs"):
            for feature in mark.args:
                if feature in harness.lacks:
                    pytest.skip(f"{feature}: {harness.lacks[feature]}")
        return harness

    yield make
    for harness in made:
        harness.close()


@pytest.fixture
def engine(new_engine: Callable[[], Harness]) -> Harness:
    return new_engine()
