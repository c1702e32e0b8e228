"""What a condition and a write mean, on plain values, as DynamoDB means them."""

from __future__ import annotations

from typing import Any

from waypost.core.ports import Absent, AllOf, AnyOf, Change, Condition, Equals, Item, Present, Put, Write


def holds(condition: Condition, item: Item | None) -> bool:
    """Whether the item (None: there is none) meets the condition. Values of another type are never equal or at most."""
    if type(condition) is AllOf:
        for one in condition.conditions:  # noqa: SIM110 - a generator costs more than what it asks
            if not holds(one, item):
                return False
        return True
    if type(condition) is AnyOf:
        for one in condition.conditions:  # noqa: SIM110
            if holds(one, item):
                return True
        return False
    if item is None or condition.name not in item:
        return type(condition) is Absent
    if type(condition) is Absent:
        return False
    if type(condition) is Present:
        return True
    have = item[condition.name]
    if type(condition) is Equals:
        # Python's True equals 1; no other two types of the port are ever equal.
        return bool(have == condition.value) and isinstance(have, bool) == isinstance(condition.value, bool)
    return _is_int(have) and have <= condition.value


def outcome(write: Write, item: Item | None) -> Item | None:
    """The item that the write makes of `item`, its condition aside. None: no item.

    Raises ValueError for a Change of the key or of one attribute in two ways, TypeError for adding to no number.
    """
    if isinstance(write, Put):
        return write.item
    if not isinstance(write, Change):
        return None
    key = write.key
    new: dict[str, Any] = {"pk": key.pk, "sk": key.sk} if item is None else dict(item)
    new.update(write.set)
    for name, number in write.add.items() if write.add else ():
        if name in write.set:
            raise ValueError(f"{name} is both set and added to")
        have = new.get(name, 0)
        if not _is_int(have):
            raise TypeError(f"{name} is no number to add to")
        new[name] = have + number
    for name in write.remove:
        if name in write.set or name in write.add:
            raise ValueError(f"{name} is both changed and removed")
        new.pop(name, None)
    if new.get("pk") != key.pk or new.get("sk") != key.sk:
        raise ValueError("a Change cannot change its item's key")
    return new


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
