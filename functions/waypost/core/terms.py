"""On which terms something is delivered: what a publisher may choose about it besides where, what and when."""

from __future__ import annotations

import enum
import hashlib
from typing import Any

from msgspec import Struct

from waypost.core.ports import Item


class LaneKind(enum.StrEnum):
    QUEUE = "queue"
    KEY = "key"


class Limits(Struct, frozen=True):
    """So many at once, and so many starts in a period; 0: any number."""

    parallelism: int = 0
    rate: int = 0
    period_ms: int = 1_000

    def as_tuple(self) -> tuple[int, int, int]:
        return self.parallelism, self.rate, self.period_ms


class InLane(Struct, frozen=True):
    """The queue that a message goes through, or its flow-control key, with the limits that it asks for; None: as they
    are."""

    kind: LaneKind
    name: str
    limits: Limits | None = None

    def to_item(self) -> list[Any]:
        return [self.kind.value, self.name, *(self.limits.as_tuple() if self.limits else ())]

    @staticmethod
    def from_item(item: Any) -> InLane:
        kind, name, *limits = item
        return InLane(LaneKind(kind), name, Limits(*limits) if limits else None)


class Terms(Struct, frozen=True):
    method: str
    #: What the destination gets, names in canonical case, values latin-1 text.
    headers: tuple[tuple[str, str], ...]
    retries: int
    timeout_ms: int
    #: An expression for the waits between attempts (`core.expression`); empty: the backoff's.
    retry_delay: str = ""
    #: `exponential` or `fixed`; empty: the service's own.
    backoff: str = ""
    labels: tuple[str, ...] = ()
    #: What no reader may see: `body`, `header`, or `header[<name in lower case>]`.
    redacted: tuple[str, ...] = ()
    #: Told of every attempt.
    callback: Callback | None = None
    #: Told of the end, if it is a failure.
    failure_callback: Callback | None = None
    lane: InLane | None = None

    @property
    def queue(self) -> str:
        """Empty: it goes through none."""
        return self.lane.name if self.lane and self.lane.kind is LaneKind.QUEUE else ""

    @property
    def flow_key(self) -> str:
        """Empty: it has none."""
        return self.lane.name if self.lane and self.lane.kind is LaneKind.KEY else ""

    def to_item(self) -> dict[str, Any]:
        """The attributes of a stored item; what was not chosen takes no room."""
        item: dict[str, Any] = {
            "method": self.method,
            "headers": [list(pair) for pair in self.headers],
            "retries": self.retries,
            "timeout": self.timeout_ms,
        }
        if self.retry_delay:
            item["wait"] = self.retry_delay
        if self.backoff:
            item["backoff"] = self.backoff
        if self.labels:
            item["labels"] = list(self.labels)
        if self.redacted:
            item["redacted"] = list(self.redacted)
        if self.callback:
            item["cb"] = self.callback.to_item()
        if self.failure_callback:
            item["fcb"] = self.failure_callback.to_item()
        if self.lane:
            item["lane"] = self.lane.to_item()
        return item

    @staticmethod
    def from_item(item: Item) -> Terms:
        callback, failure_callback = item.get("cb"), item.get("fcb")
        return Terms(
            method=item["method"],
            headers=tuple([(name, value) for name, value in item["headers"]]),
            retries=item["retries"],
            timeout_ms=item["timeout"],
            retry_delay=item.get("wait", ""),
            backoff=item.get("backoff", ""),
            labels=tuple(item.get("labels", ())),
            redacted=tuple(item.get("redacted", ())),
            callback=Callback.from_item(callback) if callback else None,
            failure_callback=Callback.from_item(failure_callback) if failure_callback else None,
            lane=InLane.from_item(item["lane"]) if "lane" in item else None,
        )


def hidden(value: bytes) -> str:
    """What readers see instead: two of the same are seen to be the same, and no more."""
    return f"REDACTED:{hashlib.sha256(value).hexdigest()}"


class Callback(Struct, frozen=True):
    """A message that is still to be made."""

    url: str
    delay_ms: int
    terms: Terms

    def to_item(self) -> dict[str, Any]:
        return {"url": self.url, "delay": self.delay_ms, **self.terms.to_item()}

    @staticmethod
    def from_item(item: Item) -> Callback:
        return Callback(item["url"], item["delay"], Terms.from_item(item))
