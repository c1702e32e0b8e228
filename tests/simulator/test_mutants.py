"""Broken rules that the simulator must notice: each is a mistake that a change could make."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.enumeration import enumerate_faults
from waypost.core import deliver, look, publish
from waypost.core.cursor import move_cursor
from waypost.core.look import Look
from waypost.core.ports import Delete, Present
from waypost.engines.embedded.table import EmbeddedTable


def objections(*names: str, machine: bool = False) -> list[str]:
    found: list[str] = []
    for name in names:
        try:
            found += enumerate_faults(name, machine)[1]
        except AssertionError as wrong:
            found.append(str(wrong))
        if found:
            break
    return found


def test_a_settle_without_the_token_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "settle_condition", lambda state: Present("state"))
    assert objections("retried", "cancelled_between_retries")


def test_a_dedup_loser_that_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: object, message: object, watch: object) -> None:
        pass

    monkeypatch.setattr(publish.Publisher, "_help", nothing)
    assert objections("dedup")


def test_a_reminder_deleted_before_the_new_one_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async def delete_first(self: Look, moves: list[tuple[Any, Any]], bells: list[Any]) -> None:
        moved = [(item, new) for item, new in moves if look._key(item) != new.key]
        if moved:
            await self._ports.table.write_many([Delete(look._key(item)) for item, _ in moved])
            await self._ports.table.write_many([new for _, new in moved])
        if bells:
            await self._ports.doorbell.ring(bells)

    monkeypatch.setattr(Look, "_move_reminders", delete_first)
    assert objections("farther_delay")


def test_a_cursor_moved_before_the_reminders(monkeypatch: pytest.MonkeyPatch) -> None:
    async def cursor_first(self: Look, seen: int, last: int) -> bool:
        self._looked.minute = max(self._looked.minute, last)
        if not await move_cursor(self._ports, seen, last):
            return False
        for minute in range(seen + 1, last + 1):
            await self._remind_unfinished(minute)
        return True

    monkeypatch.setattr(Look, "_advance", cursor_first)
    assert objections("far_delay")


def test_no_reminder_before_a_late_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "needs_reminder", lambda *facts: False)
    assert objections("retried_after_the_look")


def test_an_answer_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    write = EmbeddedTable.write

    async def relaxed(self: EmbeddedTable, one: Any, *, relaxed: bool = False) -> Any:
        return await write(self, one, relaxed=True)

    monkeypatch.setattr(EmbeddedTable, "write", relaxed)
    assert objections("plain", machine=True)
