"""Reading JSON that a caller sent."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from waypost.core.errors import BadRequest

T = TypeVar("T")


def read_json(body: bytes, decoder: msgspec.json.Decoder[T], expected: str) -> T:
    """Raises BadRequest, which says what is expected, and why this is not it."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        reason = str(wrong)
    except RecursionError:
        reason = "it is nested too deeply"
    raise BadRequest(f"the body must be {expected} ({reason})")
