"""What a list is asked for: names and values of a query, checked. Lists of dead letters and of logs are asked alike."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl

import msgspec

from waypost.core import limits
from waypost.core.destination import split_control_keys
from waypost.core.errors import BadRequest, shown
from waypost.core.json_body import read_json

#: In milliseconds, as all times; whatever lies beyond is as good.
END_OF_TIME = 10**14
_lists = msgspec.json.Decoder(dict[str, list[str]])
_NUMBER = re.compile(rf"[0-9]{{1,{limits.NUMBER_DIGITS}}}")
#: Whose values hold no comma, so that one may stand between several.
_SPLIT = frozenset({"label", "topicName", "queueName", "scheduleId", "callerIp"})
#: Then it is as if it were not there.
_MAY_BE_EMPTY = frozenset({"cursor", "search"})
_ORDERS = ("latestFirst", "earliestFirst")


class Query:
    def __init__(
        self, raw: str, known: Collection[str], of: str, spelt: Mapping[str, str] | None = None, *, word: str = "filter"
    ) -> None:
        """`of`: what is listed, for errors, and `word`: what its names are. `spelt`: other spellings of known names.

        Raises BadRequest for a name that is not known, which must not be taken for no filter at all: that would mean
        everything.
        """
        self._values: dict[str, list[str]] = {}
        for given, value in parse_qsl(split_control_keys(raw)[0], keep_blank_values=True):
            name = spelt.get(given, given) if spelt else given
            if name not in known:
                raise BadRequest(f"{shown(given)} is no {word} of {of}, the {word}s are {', '.join(known)}")
            if name in _MAY_BE_EMPTY and not value:
                continue
            if not value:
                raise BadRequest(f"{given} is empty, give it a value or leave it out")
            self._values.setdefault(name, []).extend(value.split(",") if name in _SPLIT else [value])

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def all(self, name: str) -> Sequence[str]:
        return self._values.get(name, ())

    def one(self, name: str, default: str = "") -> str:
        texts = self.all(name) or (default,)
        if len(set(texts)) > 1:
            raise BadRequest(f"{name} is given twice, as {shown(texts[0])} and {shown(texts[1])}; give it once")
        return texts[0]

    def ids(self, name: str, body: bytes, most: int) -> tuple[str, ...] | None:
        """Those named in the query, repeated or with commas, and in a JSON body. None: none are asked for. An empty
        list asks for nothing, as whoever acts on what was selected means it."""
        if name not in self and not body.strip():
            return None
        named = [one.strip() for text in self.all(name) for one in text.split(",")]
        if not all(named):
            raise BadRequest(f"{name} names an empty id, leave it out")
        if body.strip():
            named += _ids_in(name, body)
        found = tuple(dict.fromkeys(named))
        if len(found) > most:
            raise BadRequest(f"{name} has {len(found)} ids, the limit is {most} at once; name fewer")
        return found

    def time(self, name: str, default: int) -> int:
        text = self.one(name, str(default))
        return min(as_number(name, text, "a time in milliseconds since 1970"), END_OF_TIME)

    def count(self, most: int) -> int:
        what = "a number, 1 or more"
        text = self.one("count", str(most))
        count = as_number("count", text, what)
        if not count:
            raise _unusable("count", text, what)
        return min(count, most)

    @property
    def newest_first(self) -> bool:
        order = self.one("order", _ORDERS[0])
        if order not in _ORDERS:
            raise BadRequest(f"order: {shown(order)} is no order, write {' or '.join(_ORDERS)}")
        return order == _ORDERS[0]

    def bad_cursor(self) -> BadRequest:
        cursor = self.one("cursor")
        return BadRequest(f"cursor: {shown(cursor)} is none that was given out, leave it out to begin anew")


def _ids_in(name: str, body: bytes) -> Sequence[str]:
    expected = f'JSON like {{"{name}": ["..."]}}, or be left out'
    found = read_json(body, _lists, expected)
    if found.keys() != {name}:
        keys = ", ".join(map(shown, found)) or "none"
        raise BadRequest(f"the body must be {expected} (its keys are {keys})")
    return found[name]


def as_number(name: str, text: str, what: str = "a whole number") -> int:
    if not _NUMBER.fullmatch(text):
        raise _unusable(name, text, what)
    return int(text)


def _unusable(name: str, text: str, what: str) -> BadRequest:
    return BadRequest(f"{name}: {shown(text)} can't be used, write {what}")
