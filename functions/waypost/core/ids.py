"""Message ids. An id says where its message lies: the minute in which it was accepted and the shard of that minute.

Within its minute, ids follow the clock: what is accepted together lies together, and a store of pages touches few.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from waypost.core.ports import Randomness

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: Two digits at a time: half the divisions.
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_VALUES = {pair: value for value, pair in enumerate(_PAIRS)}
_PREFIX = "msg_"
#: 32 bits of minute, 8 of shard.
_PLACE_DIGITS = 8
#: More than 80 bits, although the first eight digits of the alphabet come a little more often than the rest.
_RANDOM_DIGITS = 15
_LENGTH = len(_PREFIX) + _PLACE_DIGITS + len("xyz") + _RANDOM_DIGITS
_DIGIT_OF_BYTE = bytes(ord(_DIGITS[byte % 62]) for byte in range(256))


class Place(NamedTuple):
    """Where a message lies. `minute` counts from the epoch."""

    minute: int
    shard: int


def make_message_id(place: Place, now_ms: int, random: Randomness) -> str:
    drawn = random(_RANDOM_DIGITS).translate(_DIGIT_OF_BYTE).decode("ascii")
    return first_id(place, now_ms % 60_000) + drawn


@functools.lru_cache(maxsize=256)
def _start_of_id(minute: int, shard: int) -> str:
    number = (minute << 8) | shard
    pairs = []
    for _ in range(_PLACE_DIGITS // 2):
        number, pair = divmod(number, 3844)
        pairs.append(_PAIRS[pair])
    return _PREFIX + "".join(reversed(pairs))


def place_of(message_id: str) -> Place | None:
    """None if the text is no id of ours."""
    # Asked before the cache, which would keep a caller's text of any length.
    return _place_of(message_id) if len(message_id) == _LENGTH else None


@functools.lru_cache(maxsize=4096)
def _place_of(message_id: str) -> Place | None:
    if not message_id.startswith(_PREFIX):
        return None
    digits = message_id[len(_PREFIX) :]
    if not (digits.isascii() and digits.isalnum()):
        return None
    number = 0
    for at in range(0, _PLACE_DIGITS, 2):
        number = number * 3844 + _VALUES[digits[at : at + 2]]
    return None if number >> 40 else Place(number >> 8, number & 0xFF)


def first_id(place: Place, ms: int) -> str:
    """Sorts before all ids that this place gives from that millisecond of its minute on, and after all before."""
    coarse, rest = divmod(ms, 62)
    return f"{_start_of_id(*place)}{_PAIRS[coarse]}{_DIGITS[rest]}"


def number_of(message_id: str) -> str:
    """An id as decimal digits, for what may hold digits only."""
    number = 0
    for digit in message_id[len(_PREFIX) :]:
        number = number * 62 + _DIGITS.index(digit)
    return str(number)


def with_number(digits: str) -> str | None:
    """The id whose number that is, though there need not be such a message. None: there can't be one."""
    length = _LENGTH - len(_PREFIX)
    number = int(digits) if len(digits) <= 2 * length else 62**length
    if number >= 62**length:
        return None
    found = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        found.append(_DIGITS[digit])
    return _PREFIX + "".join(reversed(found))


def random_name(random: Randomness) -> str:
    """A fresh name for a lease, a token's id or a blob: 96 bits."""
    return random(12).hex()
