"""Orders to cancel: durable until all that they cover is stopped, and asked by whoever is about to send.

An attempt asks after its claim, and may rely on what was read up to `KNOWN_FOR_MS` before. So once an order has stood
for so long, whatever it covers has either been claimed before the order or is not sent: no clocks are compared.

What it covers is told by when it was accepted. For that clocks may be a little apart; one that steps back in between
may hide a message from the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from waypost.core.event import source_of
from waypost.core.message import VERSION, Message
from waypost.core.policy import SECOND
from waypost.core.ports import AllOf, AtMost, Change, Item, Key, Ports, Present, Put
from waypost.core.query import END_OF_TIME
from waypost.core.source_filter import SourceFilter, fits

ORDER = "order"
#: How old the knowledge of open orders may be when an attempt has been claimed.
KNOWN_FOR_MS = 1_000
#: A turn at an order: who has one works on it alone, and a while longer than he may.
TURN_MS = 20 * SECOND
_TURN_ENDS_MS = TURN_MS + 10 * SECOND
#: A shard's partition, by its number in the order's list, and the sort key in it that was looked at last.
Reached = tuple[int, str]


class Selection(Struct, frozen=True):
    """The messages that were accepted until `at_ms`, within both times, and fit."""

    at_ms: int
    source: SourceFilter = {}
    from_ms: int = 0
    to_ms: int = END_OF_TIME

    def holds(self, message: Message) -> bool:
        accepted_ms = message.created_ms
        return (
            accepted_ms <= self.at_ms
            and self.from_ms <= accepted_ms <= self.to_ms
            and fits(self.source, source_of(message))
        )


class Order(Struct, frozen=True):
    name: str
    account: str
    selection: Selection
    #: The last minute that had been looked at, and the last in which what it covers may lie.
    seen_minute: int
    last_minute: int
    #: How far each shard has been gone through.
    reached: Mapping[int, Reached] = {}
    #: Until then somebody is at it.
    turn_until_ms: int = 0

    @property
    def ref(self) -> str:
        return f"{self.account}#{self.name}"

    @property
    def key(self) -> Key:
        return Key(_partition(self.account), self.name)

    def to_item(self) -> Put:
        selection = self.selection
        return Put(
            {
                "pk": self.key.pk,
                "sk": self.key.sk,
                "v": VERSION,
                "at": selection.at_ms,
                "from": selection.from_ms,
                "to": selection.to_ms,
                "source": {name: sorted(values) for name, values in selection.source.items()},
                "seen": self.seen_minute,
                "last": self.last_minute,
                "reached": stored(self.reached),
                "turn": self.turn_until_ms,
            }
        )

    def taken(self, now_ms: int) -> Change:
        """The write by which somebody takes a turn, if nobody has one."""
        free = AllOf((Present("at"), AtMost("turn", now_ms)))
        return Change(self.key, set={"turn": now_ms + _TURN_ENDS_MS}, when=free)

    def given_back(self, reached: Mapping[int, Reached]) -> Change:
        """Whoever comes next goes on from there."""
        return Change(self.key, set={"reached": stored(reached), "turn": 0}, when=Present("at"))

    @staticmethod
    def from_item(account: str, item: Item) -> Order:
        return Order(
            name=item["sk"],
            account=account,
            selection=_selection(item),
            seen_minute=item["seen"],
            last_minute=item["last"],
            reached={int(shard): (number, after) for shard, (number, after) in item["reached"].items()},
            turn_until_ms=item["turn"],
        )


def stored(reached: Mapping[int, Reached]) -> dict[str, list[int | str]]:
    return {str(shard): [*where] for shard, where in reached.items()}


def order_key(account: str, name: str) -> Key:
    return Key(_partition(account), name)


class OpenOrders:
    """What a process knows of the orders that are open."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._known: dict[str, tuple[int, Sequence[Selection]]] = {}

    async def cover(self, message: Message) -> bool:
        """Whether an order covers a message that has just been claimed, or whose attempt has failed."""
        read_ms, orders = self._known.get(message.account, (0, None))
        if orders is None or self._ports.clock.monotonic_ms() - read_ms > KNOWN_FOR_MS:
            orders = await self.read(message.account)
        return any(order.holds(message) for order in orders)

    async def read(self, account: str) -> Sequence[Selection]:
        began_ms = self._ports.clock.monotonic_ms()
        orders: list[Selection] = []
        after: str | None = None
        while True:
            page = await self._ports.table.query(_partition(account), after=after)
            orders += [_selection(item) for item in page.items]
            if page.next is None:
                break
            after = page.next
        if self._known.get(account, (0, None))[0] <= began_ms:
            self._known[account] = (began_ms, orders)
        return orders

    def forget(self, account: str) -> None:
        """What is known is no longer to be relied on."""
        self._known.pop(account, None)


def _selection(item: Item) -> Selection:
    source = {name: frozenset(values) for name, values in item["source"].items()}
    return Selection(item["at"], source, item["from"], item["to"])


def _partition(account: str) -> str:
    return f"{account}#orders"
