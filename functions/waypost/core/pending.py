"""Messages together with their states, as they lie in the minutes and as reminders name them: whatever is unfinished is
in a minute not yet looked at, or has a reminder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from waypost.core.ids import Place, place_of
from waypost.core.message import Message, State, message_key, parse_ref, partition_of, state_key
from waypost.core.ports import Item, Key, Ports

Pending = tuple[Message, State]


async def in_minute(ports: Ports, place: Place, after: str | None = None) -> AsyncIterator[Sequence[Pending]]:
    """All of one shard of a minute, a page at a time; `after`: the sort key of the message to go on after."""
    now = ports.clock.now_ms()
    message: Message | None = None
    while True:
        page = await ports.table.query(partition_of(place), after=after)
        found: list[Pending] = []
        for item in page.items:
            # An item of a message is followed by that of its state.
            if "url" in item:
                if message:
                    found.append((message, State()))
                message = Message.from_item(item, now)
            elif message and item["sk"] == message.state_key.sk:
                found.append((message, State.from_item(item)))
                message = None
        after = page.next
        if after is None and message:
            found.append((message, State()))
        yield found
        if after is None:
            return


async def named(ports: Ports, refs: Sequence[str]) -> Sequence[tuple[Message | None, State]]:
    """In order. A message that an eventual read did not find is asked for again; a state may be an older one."""
    keys: list[Key] = []
    for ref in refs:
        account, message_id = parse_ref(ref)
        place = place_of(message_id) or Place(0, 0)
        keys += [message_key(account, message_id, place), state_key(account, message_id, place)]
    items: Sequence[Item | None] = await ports.table.get_many(keys)
    now = ports.clock.now_ms()
    found = []
    for i in range(0, len(keys), 2):
        item = items[i] if items[i] is not None else await ports.table.get(keys[i])
        found.append((Message.from_item(item, now), State.from_item(items[i + 1])))
    return found
