"""What callers say of flow-control keys: a message's limits, and what an operator does about a key.

What is done about a key is a change of its lane, pure: whoever stores it may have to ask again.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec.structs import replace

from waypost.core import limits
from waypost.core.duration import parse_duration, show_duration
from waypost.core.errors import BadRequest, shown
from waypost.core.lane import Lane
from waypost.core.policy import SECOND
from waypost.core.query import Query, as_number
from waypost.core.terms import Limits

#: What a lane becomes at that time.
Change = Callable[[Lane, int], Lane]

_PART = re.compile(r"[ \t]*(parallelism|rate|period)[ \t]*=[ \t]*([0-9A-Za-z.]+)[ \t]*")
_NUMBER = re.compile(r"[0-9]{1,15}")
_HOW = "write it like parallelism=5, rate=10, period=1m"


class LimitsError(ValueError):
    """Why a text is no limits; it goes on from `can't be used: `."""


def read_limits(text: str) -> Limits:
    """Raises LimitsError."""
    given: dict[str, str] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if not match:
            raise LimitsError(f"{shown(part.strip())} is none of its parts, {_HOW}")
        if match[1] in given:
            raise LimitsError(f"{match[1]} is given twice, give it once")
        given[match[1]] = match[2]
    if "parallelism" not in given and "rate" not in given:
        raise LimitsError("it has neither parallelism nor rate, give one of them")
    return Limits(
        _figure("parallelism", given, limits.PARALLELISM),
        _figure("rate", given, limits.RATE),
        _period(given["period"]) if "period" in given else SECOND,
    )


def _figure(name: str, given: dict[str, str], most: int) -> int:
    if name not in given:
        return 0
    text = given[name]
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        raise LimitsError(f"{name}={text} is out of range, write 1 to {most}")
    return int(text)


def _period(text: str) -> int:
    period_ms = parse_duration(text)
    if period_ms is None or not SECOND <= period_ms <= limits.PERIOD_MS or period_ms % SECOND:
        raise LimitsError(
            f"period={text} is out of range, write 1s to {show_duration(limits.PERIOD_MS)}, in whole seconds"
        )
    return period_ms


def check_key(key: str) -> str:
    """Raises BadRequest."""
    if len(key) > limits.FLOW_KEY_LENGTH:
        raise BadRequest(
            f"flow-control key {shown(key)} is longer than {limits.FLOW_KEY_LENGTH} characters, shorten it"
        )
    return key


# What is done about a key --------------------------------------------------------------------------------------------


def read_pin(raw: str) -> tuple[Limits, Change]:
    """The limits that are pinned, 0 where none is, and what becomes of the key. Raises BadRequest. `raw` is a query."""
    query = Query(raw, ("parallelism", "rate", "period"), "a pin", word="limit")
    if "parallelism" not in query and "rate" not in query:
        raise BadRequest("parallelism and rate are missing, give one of them to be pinned")
    period_ms = _between(query, "period", limits.PERIOD_MS // SECOND) * SECOND
    pinned = Limits(
        _between(query, "parallelism", limits.PARALLELISM),
        _between(query, "rate", limits.RATE),
        period_ms or SECOND,
    )

    def change(lane: Lane, now_ms: int) -> Lane:
        parallelism = pinned.parallelism or lane.limits.parallelism
        rate = pinned.rate or lane.limits.rate
        return replace(
            reset_rate(lane, now_ms),
            limits=Limits(parallelism, rate, (pinned.rate and period_ms) or lane.limits.period_ms),
            pinned_parallelism=lane.pinned_parallelism or pinned.parallelism > 0,
            pinned_rate=lane.pinned_rate or pinned.rate > 0,
        )

    return pinned, change


def _between(query: Query, name: str, most: int) -> int:
    if name not in query:
        return 0
    text, what = query.one(name), f"a whole number from 1 to {most}"
    number = as_number(name, text, what)
    if not 1 <= number <= most:
        raise BadRequest(f"{name}: {shown(text)} can't be used, write {what}")
    return number


def read_unpin(raw: str) -> Change:
    """Limits that are unpinned stay until a message brings others that is accepted from then on. Raises BadRequest."""
    query = Query(raw, ("parallelism", "rate"), "a pin", word="limit")
    parallelism, rate = _flag(query, "parallelism"), _flag(query, "rate")

    def change(lane: Lane, now_ms: int) -> Lane:
        return replace(
            lane,
            pinned_parallelism=lane.pinned_parallelism and not parallelism,
            pinned_rate=lane.pinned_rate and not rate,
            set_by_ms=now_ms,
        )

    return change


def _flag(query: Query, name: str) -> bool:
    text = query.one(name, "false")
    if text not in ("true", "false"):
        raise BadRequest(f"{name}: {shown(text)} is neither true nor false, write true to unpin it")
    return text == "true"


def reset_rate(lane: Lane, now_ms: int) -> Lane:
    """A new window begins. It has another name than the one before, by which starts are counted."""
    return replace(lane, window_ms=now_ms if now_ms != lane.window_ms else now_ms + 1, used=0)


def paused(lane: Lane, now_ms: int) -> Lane:
    return replace(lane, paused_ms=lane.paused_ms or now_ms)


def resumed(lane: Lane, now_ms: int) -> Lane:
    return replace(lane, paused_ms=0)
