"""How the tests are shared out over processes: those that talk over sockets, and mostly wait, in one; all others beside
it."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

#: They share servers, and await others' answers.
_OVER_SOCKETS = {"deployed", "journey"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("awaited_last") is not None)


class _Shares(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        """What is run by one process."""
        file = nodeid.partition("::")[0]
        return "over sockets" if _OVER_SOCKETS.intersection(PurePath(file).parts) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Shares:
    return _Shares(config, log)
