"""When the next attempt is due, and whether there is one. Pure."""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC

from waypost.core import limits
from waypost.core.expression import evaluate
from waypost.core.policy import SECOND
from waypost.core.ports import Answer, NoAnswer
from waypost.core.terms import Terms

#: The first four waits; each later one doubles the one before, up to a day.
_STANDARD_MS = (10 * SECOND, 30 * SECOND, 60 * SECOND, 120 * SECOND)
_FIRST_MS = _STANDARD_MS[0]

#: Answer headers that say when to come back, in the order in which they are asked.
_ADVICE = ("retry-after", "x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")
#: This status with the header below means: don't try again.
_FINAL_STATUS, _FINAL_HEADER = 489, "upstash-nonretryable-error"


@dataclass(frozen=True, slots=True)
class Delivered:
    pass


@dataclass(frozen=True, slots=True)
class RetryAt:
    due_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    pass


def backoff_ms(backoff: str, retried: int) -> int:
    """The wait before retry number `retried + 1`, in milliseconds. `backoff` is one of the service's own, `standard` or
    `qstash`, or of those that a message may choose, `exponential` or `fixed`."""
    if backoff == "fixed":
        return _FIRST_MS
    if backoff == "exponential":
        return min(limits.WAIT_MS, _FIRST_MS << min(retried, 20))
    if backoff == "qstash":
        exponent = 2.5 * (retried + 1)
        return limits.WAIT_MS if exponent > 12 else min(limits.WAIT_MS, int(math.exp(exponent) * SECOND))
    if retried < len(_STANDARD_MS):
        return _STANDARD_MS[retried]
    doublings = min(retried - len(_STANDARD_MS) + 1, 20)
    return min(limits.WAIT_MS, _STANDARD_MS[-1] << doublings)


def after_attempt(
    outcome: Answer | NoAnswer, terms: Terms, *, retried: int, backoff: str, now_ms: int
) -> Delivered | RetryAt | GiveUp:
    """What follows an attempt that came back. `retried` is how many attempts came back before it, `backoff` the
    service's own. What the destination asks for goes before what the publisher chose."""
    if is_success(outcome):
        return Delivered()
    if retried >= terms.retries or _says_final(outcome):
        return GiveUp()
    advised = _advised_ms(outcome.headers, now_ms) if isinstance(outcome, Answer) else None
    if advised is not None:
        return RetryAt(now_ms + advised)
    if terms.retry_delay:
        return RetryAt(now_ms + evaluate(terms.retry_delay, retried, limits.WAIT_MS))
    return RetryAt(now_ms + backoff_ms(terms.backoff or backoff, retried))


def is_success(outcome: Answer | NoAnswer) -> bool:
    return isinstance(outcome, Answer) and 200 <= outcome.status < 300


def _says_final(outcome: Answer | NoAnswer) -> bool:
    return (
        isinstance(outcome, Answer)
        and outcome.status == _FINAL_STATUS
        and any(name == _FINAL_HEADER and value.strip().lower() == "true" for name, value in outcome.headers)
    )


def _advised_ms(headers: Sequence[tuple[str, str]], now_ms: int) -> int | None:
    """The wait that the destination asks for; None if it asks for none, or for more than a day."""
    for wanted in _ADVICE:
        for name, value in headers:
            if name == wanted:
                wait = parse_retry_after(value, now_ms)
                if wait is not None and wait <= limits.WAIT_MS:
                    return wait
    return None


_GO_UNITS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}
_GO_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(ns|us|µs|μs|ms|s|m|h)")
_GO_WHOLE = re.compile(rf"\+?(?:{_GO_PART.pattern})+")


def parse_retry_after(text: str, now_ms: int) -> int | None:
    """Milliseconds to wait: from whole seconds, an HTTP date or a Go duration (`6m5s`). None if it is none of these."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,15}", text):
        return int(text) * SECOND
    # Header values arrive as latin-1; a micro sign in UTF-8 is two of its characters.
    text = text.replace("Âµ", "µ").replace("Î¼", "μ")
    if _GO_WHOLE.fullmatch(text):
        return math.ceil(sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_PART.findall(text)))
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    # `-0000` and a missing zone parse as naive; HTTP dates are UTC.
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    try:
        return max(0, int(date.timestamp() * 1000) - now_ms)
    except (ValueError, OverflowError):
        return None
