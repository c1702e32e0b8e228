"""What callers say of queues."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from waypost.core import limits
from waypost.core.errors import BadRequest, shown
from waypost.core.json_body import read_json
from waypost.core.lane import Lane
from waypost.core.plain_name import is_plain, remedy


class _Given(Struct, rename="camel"):
    queue_name: str
    parallelism: int | float | None = None
    paused: bool | None = None


_decoder = msgspec.json.Decoder(_Given)


class WantedQueue(Struct, frozen=True):
    """A queue as it shall be."""

    name: str
    #: 0: as it is, and 1 of one that is made.
    parallelism: int
    paused: bool

    def of(self, lane: Lane, now_ms: int) -> Lane:
        """The lane of that queue so."""
        parallelism = self.parallelism or lane.limits.parallelism
        return replace(
            lane,
            limits=replace(lane.limits, parallelism=parallelism),
            paused_ms=(lane.paused_ms or now_ms) if self.paused else 0,
        )


def check_queue_name(name: str) -> str:
    """Raises BadRequest."""
    if not is_plain(name, limits.QUEUE_NAME_LENGTH):
        raise BadRequest(f"{shown(name)} can't be the name of a queue, {remedy(limits.QUEUE_NAME_LENGTH)}")
    return name


def read_queue(body: bytes) -> WantedQueue:
    """What an upsert says. Raises BadRequest."""
    given = read_json(body, _decoder, 'JSON like {"queueName": "orders", "parallelism": 1}')
    try:
        name = check_queue_name(given.queue_name)
    except BadRequest as wrong:
        raise BadRequest(f"queueName: {wrong}") from None
    wanted = given.parallelism or 0
    if given.parallelism is not None and not (1 <= wanted <= limits.PARALLELISM and wanted == int(wanted)):
        raise BadRequest(f"parallelism: {given.parallelism} is out of range, write 1 to {limits.PARALLELISM}")
    return WantedQueue(name, int(wanted), given.paused or False)
