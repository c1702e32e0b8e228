"""What every engine takes, in DynamoDB's terms, so that no rule works on one engine and fails on another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from waypost.core.limits import ITEM
from waypost.core.ports import Item, Key, Write

#: In bytes.
MAX_ITEM = ITEM
MAX_PAGE = 1024 * 1024
MAX_PK = 2_048
MAX_SK = 1_024
MAX_TOGETHER = 100
MAX_INT = 2**63 - 1
MIN_INT = -(2**63)

_BLOB = re.compile(r"[1-9][0-9]{0,4}/([0-9]{8})(/[^/\\\0]{1,200})+")


def check_key(key: Key) -> None:
    """Raises ValueError for what is no key."""
    pk, sk = key
    if not 0 < len(pk.encode()) <= MAX_PK or not 0 < len(sk.encode()) <= MAX_SK:
        raise ValueError(f"{key} is no key")


def check_item(item: Item) -> None:
    """Raises TypeError for what a table cannot hold. A str's subclass, such as an enum's member, is stored as text."""
    for name, value in item.items():
        check_value({name: value})


def check_value(value: object) -> None:
    """Like check_item, for one attribute's value."""
    if isinstance(value, dict):
        if not all(type(name) is str for name in value):
            raise TypeError("names are text")
        for one in value.values():
            check_value(one)
    elif isinstance(value, list):
        for one in value:
            check_value(one)
    elif not isinstance(value, (str, bytes, int)) or (isinstance(value, int) and not MIN_INT <= value <= MAX_INT):
        raise TypeError(f"a table cannot hold {value!r}")


def check_distinct(writes: Sequence[Write]) -> None:
    """Raises ValueError for two writes of one key."""
    if len({one.key for one in writes}) != len(writes):
        raise ValueError("two writes of one key")


def check_together(writes: Sequence[Write]) -> None:
    """Raises ValueError for what cannot be one transaction."""
    if len(writes) > MAX_TOGETHER:
        raise ValueError(f"at most {MAX_TOGETHER} writes together")
    check_distinct(writes)


def check_many(writes: Sequence[Write]) -> None:
    """Raises ValueError for what cannot be written without a transaction."""
    check_distinct(writes)
    if any(one.when is not None for one in writes):
        raise ValueError("write_many takes no conditions")


def check_blob_name(name: str) -> None:
    """Raises ValueError for what is no `<class days>/<yyyymmdd>/<rest>`, or leads elsewhere as a path."""
    found = _BLOB.fullmatch(name)
    parts = name.split("/")
    if not found or "." in parts or ".." in parts or not _is_day(found[1]):
        raise ValueError(f"{name!r} names no blob")


def _is_day(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 - whether there is such a day, in no zone
    except ValueError:
        return False
    return True
