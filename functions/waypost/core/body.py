"""How a message's body is stored: inside its item, compressed where that is smaller, or as a blob."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from waypost.core import limits
from waypost.core.ids import random_name
from waypost.core.policy import DAY
from waypost.core.ports import Blobs, Randomness, Unavailable

#: Blobs are dropped by age, a class of days each; a body takes the shortest class that outlives its message.
RETENTION_CLASSES = (30, 60, 120, 400)
#: Added to a message's life, so that clocks and sweeps a little apart never take a body early.
_MARGIN_MS = 2 * DAY


class BodyMissing(Unavailable):
    """The blob is not there: it was removed, or its folder was not restored with the table."""


async def store_body(
    data: bytes,
    *,
    account: str,
    ttl_ms: int,
    now_ms: int,
    compress_from: int,
    blobs: Blobs,
    random: Randomness,
) -> dict[str, Any]:
    """Returns what stands in the message's item; a blob is durable when this returns."""
    packed: dict[str, Any] = {"raw": data}
    if len(data) >= compress_from:
        smaller = zlib.compress(data, 1)
        if len(smaller) < len(data):
            packed = {"zip": smaller}
    stored: bytes = packed.get("zip", data)
    if len(stored) <= limits.BODY_AT_HAND:
        return packed
    name = _blob_name(account, ttl_ms - now_ms, now_ms, random)
    await blobs.put(name, stored)
    return {"blob": name, "zipped": "zip" in packed}


def body_at_hand(stored: Mapping[str, Any]) -> bytes | None:
    """The body if it stands in the item itself; None: it is a blob."""
    if "raw" in stored:
        return bytes(stored["raw"])
    return zlib.decompress(stored["zip"]) if "zip" in stored else None


async def load_body(stored: Mapping[str, Any], blobs: Blobs) -> bytes:
    """Raises BodyMissing if the blob is not there (any more)."""
    at_hand = body_at_hand(stored)
    if at_hand is not None:
        return at_hand
    data = await _fetch(stored["blob"], blobs)
    return zlib.decompress(data) if stored["zipped"] else data


async def prolong_body(
    stored: Mapping[str, Any], *, account: str, ttl_ms: int, now_ms: int, blobs: Blobs, random: Randomness
) -> Mapping[str, Any]:
    """Copies a blob into a class that outlives `ttl_ms`, if its own does not; returns what the item must now hold."""
    if "blob" not in stored:
        return stored
    days, day, *_ = stored["blob"].split("/")
    written_ms = int(datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).timestamp() * 1000)
    if written_ms + int(days) * DAY >= ttl_ms + _MARGIN_MS:
        return stored
    data = await _fetch(stored["blob"], blobs)
    name = _blob_name(account, ttl_ms - now_ms, now_ms, random)
    await blobs.put(name, data)
    return {**stored, "blob": name}


async def _fetch(name: str, blobs: Blobs) -> bytes:
    data = await blobs.get(name)
    if data is None:
        raise BodyMissing(f"the body {name} is missing from the blob store")
    return data


def _blob_name(account: str, life_ms: int, now_ms: int, random: Randomness) -> str:
    days = next((d for d in RETENTION_CLASSES if d * DAY >= life_ms + _MARGIN_MS), RETENTION_CLASSES[-1])
    return f"{days}/{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%d}/{account}/{random_name(random)}"
