"""What the rules need of the world: a table, a doorbell, blobs, a sender, a clock and randomness.

Rules live above these ports and adapters below them. An adapter may be slow, may refuse and may lose an answer;
it may not decide anything that a rule decides. All times are integer milliseconds since the epoch unless a name says
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias, final

from msgspec import Struct

#: Attribute values are str, int (64 bits), bytes, bool, and lists and string-keyed maps of these: no floats, no null.
#: An item that a table returned is shared, so it is never changed in place.
Item: TypeAlias = Mapping[str, Any]

#: The longest sort key that matters: every real one sorts before it.
MAX = "\U0010ffff"

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Key(NamedTuple):
    pk: str
    sk: str


# Conditions: a closed set. A missing attribute (or item) satisfies Absent only. ---------------------------------------


@final
class Absent(Struct, frozen=True):
    name: str


@final
class Present(Struct, frozen=True):
    name: str


@final
class Equals(Struct, frozen=True):
    name: str
    value: str | int


@final
class AtMost(Struct, frozen=True):
    name: str
    value: int


@final
class AllOf(Struct, frozen=True):
    conditions: tuple[Condition, ...]


@final
class AnyOf(Struct, frozen=True):
    conditions: tuple[Condition, ...]


Condition: TypeAlias = Absent | Present | Equals | AtMost | AllOf | AnyOf


# Writes --------------------------------------------------------------------------------------------------------------


class Put(Struct, frozen=True):
    """Replaces the whole item; its `pk` and `sk` attributes are its key."""

    item: Item
    when: Condition | None = None
    #: Keys that the writer knows to have never existed, which spares an engine with a cache from looking.
    unborn: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        return Key(self.item["pk"], self.item["sk"])


class Change(Struct, frozen=True):
    """Changes single attributes; makes the item if it does not exist and the condition allows that.

    What is added may be added twice, if the answer was lost and somebody wrote before the repeat.
    """

    key: Key
    set: Item = _NOTHING
    add: Mapping[str, int] = _NOTHING
    remove: tuple[str, ...] = ()
    when: Condition | None = None


class Delete(Struct, frozen=True):
    """Removes the item; removing what is not there is no error."""

    key: Key
    when: Condition | None = None


Write: TypeAlias = Put | Change | Delete


class ConditionFailed(Exception):
    """The condition did not hold, and nothing was written; `item` is what stands in the way (None: no item)."""

    def __init__(self, key: Key, item: Item | None) -> None:
        super().__init__(f"condition failed at {key}")
        self.key = key
        self.item = item


class Busy(Exception):
    """Throttled, or in somebody else's transaction: repeat later. This try wrote nothing; whether an earlier one did,
    whose answer was lost, is as open as after Unavailable."""


class Unavailable(Exception):
    """The store did not answer or could not write: what was asked may or may not stand. The text says why."""


class TooLarge(Exception):
    """An item over 400 KB: nothing was written."""


class Page(Struct, frozen=True):
    """Some items in order of sort key. `next` goes on after them; None: there are no more. A page may be empty."""

    items: Sequence[Item]
    next: str | None


class Table(Protocol):
    """Strongly consistent unless said; a write that returned is durable. Any call may raise Busy or Unavailable."""

    async def get(self, key: Key) -> Item | None: ...

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        """Any number of keys, answered in their order. Eventually consistent."""
        ...

    async def write(self, one: Write, *, relaxed: bool = False) -> Item | None:
        """Returns the item as it now stands (None: deleted). `relaxed` may return before the write is durable; whatever
        is decided after it is never durable without it."""
        ...

    async def write_many(self, writes: Sequence[Put | Delete]) -> None:
        """Any number of puts and deletes of distinct keys, without conditions, not atomic."""
        ...

    async def write_together(self, writes: Sequence[Write]) -> None:
        """At most 100 writes of distinct keys, all or none. ConditionFailed names the first refused."""
        ...

    async def query(
        self,
        pk: str,
        *,
        first: str = "",
        last: str = MAX,
        limit: int = 100,
        newest_first: bool = False,
        after: str | None = None,
    ) -> Page:
        """Items of one partition with sort keys from `first` to `last`, both inclusive; `after` is a page's `next`."""
        ...


# The doorbell --------------------------------------------------------------------------------------------------------


class Bell(NamedTuple):
    """ "Look at this then". A hint: it may be lost, late, early or doubled."""

    ref: str
    delay_ms: int
    #: How long the destination may take: a doorbell may keep slow deliveries apart. 0: not known.
    timeout_ms: int = 0


#: The longest delay that every doorbell carries (SQS: 15 minutes). A later due time is left to the reminders.
LONGEST_BELL_MS = 900_000


class Doorbell(Protocol):
    async def ring(self, bells: Sequence[Bell]) -> int:
        """Returns how many bells were NOT taken. Never raises."""
        ...

    async def backlog(self) -> int:
        """How many bells are due and wait to be heard."""
        ...


class Blobs(Protocol):
    """Bytes too large for the table. A name begins with its retention class and day; see `core.body`."""

    async def put(self, name: str, data: bytes) -> None: ...

    async def get(self, name: str) -> bytes | None: ...


# The sender ----------------------------------------------------------------------------------------------------------


class Outgoing(Struct, frozen=True):
    """One request to a destination. Header values are latin-1 text; `timeout_ms` bounds everything from name look-up
    to the last byte of the answer."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    timeout_ms: int


class Answer(Struct, frozen=True):
    """What the destination answered: header names in lower case, the body raw and cut at the sender's cap."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


class NoAnswer(Struct, frozen=True):
    """No complete answer came, or the request was not allowed to leave. `reason` is one sentence for the user."""

    reason: str


class Sender(Protocol):
    async def send(self, request: Outgoing) -> Answer | NoAnswer:
        """Never raises, never follows a redirect, never reaches an address that the guard refuses."""
        ...


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall-clock time; it may jump either way."""
        ...

    def monotonic_ms(self) -> int:
        """Time that only moves forward, from an arbitrary start."""
        ...

    async def sleep_ms(self, ms: int) -> None: ...


#: n unpredictable bytes.
Randomness: TypeAlias = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Ports:
    """One process's view of the world, put together by `wiring`."""

    table: Table
    doorbell: Doorbell
    blobs: Blobs
    sender: Sender
    clock: Clock
    random: Randomness
