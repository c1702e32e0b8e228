"""Durations as headers write them: `10s`, `1d10h30m`, `1.5s`, `500ms`, or bare seconds."""

from __future__ import annotations

import re
from decimal import Decimal

from waypost.core.policy import DAY, HOUR, MINUTE, SECOND

_UNITS = {"ms": 1, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_BARE = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")


def parse_duration(text: str) -> int | None:
    """Returns milliseconds, or None if `text` is no duration. A number without a unit is seconds."""
    text = text.strip().lower()
    if _BARE.fullmatch(text):
        return int(Decimal(text) * SECOND)
    if not _WHOLE.fullmatch(text):
        return None
    return int(sum(Decimal(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def show_duration(ms: int) -> str:
    """The largest parts first: 90000 -> `1m30s`."""
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, ms = divmod(ms, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
