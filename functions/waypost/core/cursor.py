"""How far the look has come: the one item that says so."""

from __future__ import annotations

from waypost.core.policy import MINUTE
from waypost.core.ports import Absent, ConditionFailed, Equals, Key, Ports, Put
from waypost.core.reminder import Looked

_CURSOR = Key("cursor", "look")


async def open_cursor(ports: Ports, looked: Looked) -> None:
    """Learns how far the look has come. Where it has never been, it begins with this minute: so this comes before the
    first message is accepted, or the look would begin after it."""
    minute = ports.clock.now_ms() // MINUTE - 1
    try:
        await ports.table.write(_cursor_at(minute, when=Absent("minute")))
    except ConditionFailed as standing:
        minute = standing.item["minute"] if standing.item else minute
    looked.minute = max(looked.minute, minute)


async def read_cursor(ports: Ports) -> int | None:
    """The last minute that was looked at. None: there has been no first."""
    item = await ports.table.get(_CURSOR)
    return item["minute"] if item else None


async def move_cursor(ports: Ports, seen: int, last: int) -> bool:
    """False: another tick is at work, and further."""
    try:
        await ports.table.write(_cursor_at(last, when=Equals("minute", seen)))
    except ConditionFailed:
        return False
    return True


def _cursor_at(minute: int, when: Absent | Equals) -> Put:
    return Put({"pk": _CURSOR.pk, "sk": _CURSOR.sk, "v": 1, "minute": minute}, when=when)
