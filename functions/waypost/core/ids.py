"""Message ids. An id says where its message lies: the minute in which it was accepted and the shard of that minute."""

from __future__ import annotations

import functools
from typing import NamedTuple

from waypost.core.ports import Randomness

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_PREFIX = "msg_"
#: 32 bits of minute, 8 of shard, 80 random: the 21 digits that 120 bits need in base 62.
_LENGTH = 21


class Place(NamedTuple):
    """Where a message lies. `minute` counts from the epoch."""

    minute: int
    shard: int


def make_message_id(place: Place, random: Randomness) -> str:
    number = (place.minute << 88) | (place.shard << 80) | int.from_bytes(random(10), "big")
    return _PREFIX + _base62(number, _LENGTH)


@functools.lru_cache(maxsize=4096)
def place_of(message_id: str) -> Place | None:
    """None if the text is no id of ours."""
    text = message_id[len(_PREFIX) :]
    if not message_id.startswith(_PREFIX) or len(text) != _LENGTH:
        return None
    number = 0
    for digit in text:
        value = _VALUES.get(digit)
        if value is None:
            return None
        number = number * 62 + value
    if number >> 120:
        return None
    return Place(number >> 88, (number >> 80) & 0xFF)


def random_name(random: Randomness) -> str:
    """A fresh name for a lease, a token's id or a blob: 96 bits."""
    return random(12).hex()


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
