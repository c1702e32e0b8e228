"""What a caller did wrong, as types that carry facts. `api` alone knows their status codes."""

from __future__ import annotations


class Refused(Exception):
    """The request can't be carried out as it stands; the text names the field, the value and the remedy."""


class BadRequest(Refused):
    """A field has a value that can't be used."""


class TooMuch(Refused):
    """The body is larger than the limit."""


class NotFound(Refused):
    """There is no such thing, or it belongs to somebody else."""


class Conflict(Refused):
    """What it is asked of is in no state for it."""


class Unauthorized(Refused):
    """No token, or none that is known."""


def shown(value: str) -> str:
    """A caller's value as an error quotes it: short and printable."""
    text = "".join(c if c.isprintable() else "?" for c in value)
    return f'"{text[:100]}..."' if len(text) > 100 else f'"{text}"'
