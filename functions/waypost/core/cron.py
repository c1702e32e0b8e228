"""Cron expressions: five fields or a macro, in UTC or in a named zone, with daylight saving as Debian's cron has it.

`cronsim` reads the fields and walks the wall clock. What the zone makes of a wall-clock time is decided here: its own
walk loses occurrences where clocks are moved by less than an hour.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from waypost.core.errors import shown
from waypost.core.remembered import remembered

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_IN_ZONE = re.compile(r"CRON_TZ=(\S*)\s+(.+)", re.DOTALL)
#: Names of zones, and not of other files that lie beside them.
_ZONE = re.compile(r"(?!posix|right/|localtime)[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_EXAMPLE = "write five fields, such as 30 9 * * 1-5, or CRON_TZ=Europe/Berlin 30 9 * * 1-5"
_RANGE_OF_ONE = re.compile(r"(?<![^,])([0-9A-Za-z]+)-\1/[1-9][0-9]*(?![^,])")
_RANGES = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, and a day that one of its months has",
    "month": "1 to 12 or JAN to DEC",
    "day-of-week": "0 to 7 or SUN to SAT",
}
_SECOND, _MINUTE = timedelta(seconds=1), timedelta(minutes=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CronError(Exception):
    """It can't be used; the text says why, and what would be right."""


class Cron:
    """When something recurs. A job at fixed hours and minutes, none of the two beginning with `*`, runs once a day
    whatever the clocks do: right after a gap that swallows its time, and in the first pass of an hour that comes twice.
    Any other runs whenever the wall clock shows its time."""

    def __init__(self, text: str) -> None:
        """Raises CronError."""
        in_zone = _IN_ZONE.fullmatch(text)
        self._zone = _zone(in_zone[1]) if in_zone else UTC
        self._fields = _fields(in_zone[2] if in_zone else text)
        minute, hour, *_ = self._fields.split()
        self._fixed = not minute.startswith("*") and not hour.startswith("*")
        try:
            CronSim(self._fields, _EPOCH)
        except CronSimError as wrong:
            raise CronError(f"{_wrong_field(str(wrong), self._fields)}; {_EXAMPLE}") from None

    def after(self, ms: int) -> int | None:
        """The first occurrence later than that; None: there is none in fifty years."""
        start = datetime.fromtimestamp(ms // 1000, self._zone)
        passes = (0,) if self._fixed or self._zone is UTC else (0, 1)
        found = [next((at for at in self._from(start, fold) if at > ms), None) for fold in passes]
        return min(filter(None, found), default=None)

    def latest(self, first_ms: int, now_ms: int) -> int:
        """The most recent occurrence that has come since `first_ms`, which is one itself."""
        found, until = first_ms, now_ms
        while (following := self.after(found)) is not None and following <= until:
            middle = (found + until) // 2
            later = self.after(middle)
            if later is not None and later <= until:
                found = later
            else:
                found, until = following, middle
        return found

    def _from(self, start: datetime, fold: int) -> Iterator[int]:
        """Occurrences in ascending order, beginning before the first one later than `start`; those of the first or the
        second pass of an hour that comes twice."""
        offset = min(_offset(start), _offset(start.replace(fold=fold)))
        for wall in CronSim(self._fields, (start.astimezone(UTC) + offset).replace(tzinfo=None)):
            at = self._at(wall, fold)
            while at is None and self._fixed:
                wall += _MINUTE
                at = self._at(wall, fold)
            if at is not None:
                yield at

    def _at(self, wall: datetime, fold: int) -> int | None:
        """None: the clocks skip it."""
        at = wall.replace(tzinfo=self._zone, fold=fold).astimezone(UTC)
        if at.astimezone(self._zone).replace(tzinfo=None) != wall:
            return None
        return (at - _EPOCH) // _SECOND * 1000


@remembered(longest=256)
def read_cron(text: str) -> Cron:
    """Raises CronError."""
    return Cron(text)


def _fields(text: str) -> str:
    text = text.strip()
    if text.startswith("@"):
        if text not in _MACROS:
            raise CronError(f"{shown(text)} is none of {', '.join(_MACROS)}")
        return _MACROS[text]
    fields = text.split()
    count = len(fields)
    if count != 5:
        raise CronError(f"it has {count} {'field' if count == 1 else 'fields'}; {_EXAMPLE}")
    # Some crons write any day as `?`; and of a range of one, `cronsim` steps on to the end.
    return " ".join(["*" if field == "?" else _RANGE_OF_ONE.sub(r"\1", field) for field in fields])


def _wrong_field(said: str, fields: str) -> str:
    """What `cronsim` says is `Bad` and a field's name."""
    for (name, range_), field in zip(_RANGES.items(), fields.split(), strict=True):
        if said.lower() == f"bad {name}":
            return f"bad {name} {shown(field)}, it is {range_}"
    return said


def _zone(name: str) -> tzinfo:
    try:
        if not _ZONE.fullmatch(name):
            raise ValueError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CronError(
            f"there is no time zone {shown(name)}; write CRON_TZ=Area/City, such as Europe/Berlin"
        ) from None


def _offset(at: datetime) -> timedelta:
    return at.utcoffset() or timedelta()
