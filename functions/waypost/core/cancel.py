"""Cancelling many messages: by their ids, so many of those that fit, or all that fit.

All that fit is an order. It stands in the table before anything is cancelled, so that nothing it covers is sent from
then on, and it is carried out by whoever placed it, for a while, then by whoever hears its bell.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from waypost.core.cursor import read_cursor
from waypost.core.ids import Place, place_of, random_name
from waypost.core.log import Log
from waypost.core.message import Phase, parse_ref
from waypost.core.messages import Messages
from waypost.core.order import KNOWN_FOR_MS, ORDER, TURN_MS, OpenOrders, Order, Reached, Selection, order_key
from waypost.core.pending import Pending, in_minute, named
from waypost.core.policy import MINUTE, SECOND, Policy
from waypost.core.ports import Bell, Busy, ConditionFailed, Delete, Ports, Unavailable
from waypost.core.reminder import due_partition, reminder
from waypost.core.some_at_once import some_at_once

#: The caller waits this long for an order to be carried out; what is left then follows.
_ANSWER_MS = 2 * SECOND
#: Somebody who asks for so many waits this long at most.
_SOME_MS = 20 * SECOND
#: Whoever placed an order is at it alone for so long.
_FIRST_TURN_ENDS_MS = 10 * SECOND
#: Messages are covered by the time at which they were accepted: so far apart may the clocks of several processes be.
_CLOCKS_APART_MS = 50
#: A page's messages are stopped all at once: one after the other, each would wait for a commit of its own.
_PAGE = 100


class Cancelled(Struct, frozen=True):
    count: int
    #: What else the order covers follows; none of it is sent.
    more: bool = False


class Canceller:
    """Cancels many. As an errand: goes on with an order."""

    def __init__(self, ports: Ports, policy: Policy, messages: Messages, orders: OpenOrders, log: Log) -> None:
        self._ports = ports
        self._policy = policy
        self._messages = messages
        self._orders = orders
        self._log = log

    async def by_ids(self, account: str, ids: Sequence[str]) -> Cancelled:
        """How many of them were cancelled: neither unknown nor ended before."""
        done = await some_at_once(lambda one: self._messages.cancel(account, one), ids)
        return Cancelled(sum(one is True for one in done))

    async def some(self, account: str, selection: Selection, most: int) -> Cancelled:
        """At most so many of those that fit, before this returns; fewer if that takes too long."""
        seen = await read_cursor(self._ports)
        if seen is None:
            return Cancelled(0)
        sweep = _Sweep(self._order(account, selection, seen), most)
        until_ms = self._ports.clock.monotonic_ms() + _SOME_MS
        # Some of those that were chosen may have ended meanwhile, and leave room for others.
        while not (sweep.is_enough or sweep.done(self._policy.shards)):
            left_ms = until_ms - self._ports.clock.monotonic_ms()
            if left_ms <= 0:
                break
            await self._go_on(sweep, left_ms)
        return Cancelled(sweep.count)

    async def all(self, account: str, selection: Selection) -> Cancelled:
        """Nothing that is selected is claimed once this has returned."""
        seen = await read_cursor(self._ports)
        if seen is None:
            return Cancelled(0)
        clock = self._ports.clock
        apart_ms = 0 if self._policy.boot else _CLOCKS_APART_MS
        selection = replace(selection, at_ms=selection.at_ms + apart_ms)
        order = self._order(account, selection, seen)
        await self._ports.table.write_together(
            [
                replace(order, turn_until_ms=clock.now_ms() + _FIRST_TURN_ENDS_MS).to_item(),
                reminder(order.ref, selection.at_ms, self._policy.shards),
            ]
        )
        placed_ms = clock.monotonic_ms()
        self._orders.forget(account)
        sweep = _Sweep(order)
        more = not await self._take_turn(sweep, _ANSWER_MS)
        if more:
            await clock.sleep_ms(max(0, KNOWN_FOR_MS - (clock.monotonic_ms() - placed_ms)))
        # What is accepted after the answer is of a later time, whoever accepts it.
        await clock.sleep_ms(min(max(0, selection.at_ms + apart_ms + 1 - clock.now_ms()), 1 + 2 * apart_ms))
        return Cancelled(sweep.count, more)

    async def wake_at(self, account: str, name: str) -> int | None:
        item = await self._ports.table.get(order_key(account, name))
        return max(item["at"], item["turn"]) if item else None

    async def run(self, account: str, name: str) -> None:
        """Takes a turn, unless somebody has one, who rings when it is over."""
        item = await self._ports.table.get(order_key(account, name))
        if item is None:
            return
        order = Order.from_item(account, item)
        with contextlib.suppress(ConditionFailed):
            await self._ports.table.write(order.taken(self._ports.clock.now_ms()))
            await self._take_turn(_Sweep(order), TURN_MS)

    def _order(self, account: str, selection: Selection, seen: int) -> Order:
        last = max(selection.at_ms // MINUTE, seen + 1)
        return Order(f"{ORDER}_{random_name(self._ports.random)}", account, selection, seen, last)

    async def _take_turn(self, sweep: _Sweep, for_ms: int) -> bool:
        """True: all is done, and the order is gone. Else a bell goes on from here: the order stands, and what the store
        did not take now is taken later."""
        order, table = sweep.order, self._ports.table
        with contextlib.suppress(Busy, Unavailable):
            await self._go_on(sweep, for_ms)
        with contextlib.suppress(Busy, Unavailable, ConditionFailed):
            if sweep.done(self._policy.shards):
                await table.write(Delete(order.key))
                return True
            await table.write(order.given_back(sweep.reached))
        await self._ports.doorbell.ring([Bell(order.ref, 0)])
        return sweep.done(self._policy.shards)

    # Going through what may be unfinished: the minutes not yet looked at, and the reminders of those before -----------

    async def _go_on(self, sweep: _Sweep, for_ms: int) -> None:
        until_ms = self._ports.clock.monotonic_ms() + for_ms
        await some_at_once(lambda shard: self._go_through(sweep, shard, until_ms), range(self._policy.shards))

    async def _go_through(self, sweep: _Sweep, shard: int, until_ms: int) -> None:
        """Page by page, until the shard is done, enough are cancelled or it is time."""
        order = sweep.order
        for number in range(sweep.at(shard)[0], order.last_minute - order.seen_minute + 1):
            minute = order.seen_minute + 1 + number
            after = sweep.at(shard)[1] or None
            pages = (
                self._of_minute(Place(minute, shard), after)
                if minute <= order.last_minute
                else self._of_reminders(order, shard, after)
            )
            async for pending, last in pages:
                if sweep.is_enough or self._ports.clock.monotonic_ms() >= until_ms:
                    return
                if not await self._cancel(sweep, pending):
                    return
                sweep.reached[shard] = (number, last)
                if self._log.is_much:
                    await self._log.flush()
            sweep.reached[shard] = (number + 1, "")

    async def _of_minute(self, place: Place, after: str | None) -> AsyncIterator[tuple[Sequence[Pending], str]]:
        async for page in in_minute(self._ports, place, after):
            if page:
                yield page, page[-1][0].key.sk

    async def _of_reminders(
        self, order: Order, shard: int, after: str | None
    ) -> AsyncIterator[tuple[Sequence[Pending], str]]:
        """Reminders are moved ahead only, the new one first: whoever follows them in their order misses none."""
        while True:
            page = await self._ports.table.query(due_partition(shard), after=after)
            if page.items:
                refs = [item["ref"] for item in page.items if _may_be_of(item["ref"], order)]
                found = await named(self._ports, refs)
                yield (
                    [(m, state) for m, state in found if m and m.place.minute <= order.seen_minute],
                    page.items[-1]["sk"],
                )
            if page.next is None:
                return
            after = page.next

    async def _cancel(self, sweep: _Sweep, pending: Sequence[Pending]) -> bool:
        """False: there were enough before the last of them."""
        order = sweep.order
        fitting = [(m, state) for m, state in pending if m.account == order.account and order.selection.holds(m)]
        unfinished = [(m, state) for m, state in fitting if not state.phase.final]
        open_ones = sweep.take(unfinished)
        in_the_way = await some_at_once(lambda one: self._messages.stop(*one), open_ones, _PAGE)
        done = in_the_way.count(None)
        sweep.give_back(len(open_ones) - done)
        sweep.count += done
        if sweep.most is None:
            # Whoever was about to send one knew of the order, and was quicker.
            others = [*filter(None, in_the_way), *(state for _, state in fitting if state.phase.final)]
            sweep.count += sum(s.phase is Phase.CANCELLED and s.ended_ms > order.selection.at_ms for s in others)
        return len(open_ones) == len(unfinished)


class _Sweep:
    """One turn of an order, or of a cancel of so many."""

    def __init__(self, order: Order, most: int | None = None) -> None:
        self.order = order
        self.most = most
        self.reached: dict[int, Reached] = dict(order.reached)
        self.count = 0
        self._left = most

    def at(self, shard: int) -> Reached:
        return self.reached.get(shard, (0, ""))

    def done(self, shards: int) -> bool:
        partitions = self.order.last_minute - self.order.seen_minute + 1
        return all(self.at(shard)[0] == partitions for shard in range(shards))

    @property
    def is_enough(self) -> bool:
        return self._left == 0

    def take(self, pending: Sequence[Pending]) -> Sequence[Pending]:
        """As many as may still be cancelled; they count until they are given back."""
        if self._left is None:
            return pending
        taken = pending[: self._left]
        self._left -= len(taken)
        return taken

    def give_back(self, count: int) -> None:
        if self._left is not None:
            self._left += count


def _may_be_of(ref: str, order: Order) -> bool:
    account, name = parse_ref(ref)
    return account == order.account and place_of(name) is not None
