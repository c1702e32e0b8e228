"""A message, its state, and the items they are stored as."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from waypost.core.ids import Place, place_of
from waypost.core.policy import DAY, Policy
from waypost.core.ports import Item, Key
from waypost.core.terms import LaneKind, Terms

#: What lanes are called by bells and reminders begins with this.
LANE = "lane"
#: Written into every item; readers understand the release before theirs.
VERSION = 1
#: A state outlives its message by this, so that no message is ever seen without the state it had.
STATE_OUTLIVES_MS = 7 * DAY
#: A lease outlasts the endpoint's timeout by this: time to claim and, at its end, to settle.
LEASE_MARGIN_MS = 30_000
#: The longest life a message is given at a time; what needs longer is extended by its reminder.
_LONGEST_LIFE_MS = 390 * DAY


class Phase(enum.StrEnum):
    """Where a message stands. CREATED is never stored: it is the absence of a state item."""

    CREATED = "CREATED"
    ACTIVE = "ACTIVE"
    RETRY = "RETRY"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    CANCELLED = "CANCELED"

    @property
    def final(self) -> bool:
        return self in (Phase.DELIVERED, Phase.FAILED, Phase.CANCELLED)


_PHASES = {phase.value: phase for phase in Phase}


class Via(Struct, frozen=True, array_like=True):
    """Through what a message came; all empty for one that was published to its URL. Logs hold it as an array: what is
    added stands at the end."""

    #: The URL group, and the name that its endpoint has there.
    topic: str = ""
    endpoint: str = ""
    api: str = ""
    #: The id of the schedule that made it.
    schedule: str = ""

    def to_item(self) -> dict[str, str]:
        """The attributes of a stored item; what is empty takes no room."""
        named = {"topic": self.topic, "endpoint": self.endpoint, "api": self.api, "schedule": self.schedule}
        return {name: text for name, text in named.items() if text}

    @staticmethod
    def from_item(item: Item) -> Via:
        if "topic" in item or "api" in item or "schedule" in item:
            return Via(item.get("topic", ""), item.get("endpoint", ""), item.get("api", ""), item.get("schedule", ""))
        return DIRECT


DIRECT = Via()


class Message(Struct, frozen=True):
    """What was accepted. Immutable, but for `ttl_ms`, which a reminder moves on while the message is unfinished."""

    id: str
    #: The partition it lies in.
    pk: str
    account: str
    url: str
    terms: Terms
    created_ms: int
    #: The first attempt starts no earlier.
    due_ms: int
    caller_ip: str
    #: How the body is stored: `core.body` reads it.
    body: Mapping[str, Any]
    #: After this the message is absent to every reader.
    ttl_ms: int
    via: Via = DIRECT
    #: Where it stands in its lane's line; 0: it takes a place when it is due.
    lane_place: int = 0
    #: A callback: the ref of the message whose queue waits until this has ended.
    holds_up: str = ""

    @property
    def place(self) -> Place:
        return _place(self.id)

    def under(self, message_id: str) -> Message:
        """The same message with an id of ours that is given already."""
        return replace(self, id=message_id, pk=partition_of(_place(message_id)))

    @property
    def ref(self) -> str:
        """What bells and reminders carry: enough to find the message."""
        return f"{self.account}#{self.id}"

    @property
    def lane(self) -> str:
        """The digest that its lane lies under; empty: it is in none."""
        lane = self.terms.lane
        return lane_digest(lane.kind, lane.name) if lane else ""

    @property
    def lane_ref(self) -> str:
        """What bells and reminders call its lane."""
        return f"{self.account}#{LANE}_{self.lane}"

    @property
    def key(self) -> Key:
        return Key(self.pk, f"{self.account}#{self.id}")

    @property
    def state_key(self) -> Key:
        return Key(self.pk, f"{self.account}#{self.id}#s")

    def to_item(self) -> dict[str, Any]:
        in_lane: dict[str, Any] = {"lp": self.lane_place} if self.lane_place else {}
        if self.holds_up:
            in_lane["holds"] = self.holds_up
        return in_lane | {
            "pk": self.pk,
            "sk": f"{self.account}#{self.id}",
            "v": VERSION,
            "id": self.id,
            "acct": self.account,
            "url": self.url,
            **self.terms.to_item(),
            **self.via.to_item(),
            "created": self.created_ms,
            "due": self.due_ms,
            "ip": self.caller_ip,
            "body": dict(self.body),
            "ttl": self.ttl_ms // 1000,
        }

    @staticmethod
    def from_item(item: Item | None, now_ms: int) -> Message | None:
        """None if there is no item, or one past its time."""
        if item is None or item["ttl"] * 1000 <= now_ms:
            return None
        return Message(
            id=item["id"],
            pk=item["pk"],
            account=item["acct"],
            url=item["url"],
            terms=Terms.from_item(item),
            created_ms=item["created"],
            due_ms=item["due"],
            caller_ip=item["ip"],
            body=item["body"],
            ttl_ms=item["ttl"] * 1000,
            via=Via.from_item(item),
            lane_place=item.get("lp", 0),
            holds_up=item.get("holds", ""),
        )


class State(Struct, frozen=True):
    """What has become of a message so far."""

    phase: Phase = Phase.CREATED
    #: How many attempts came back without success: what `Upstash-Retried` says.
    retried: int = 0
    #: How many attempts did not return at all.
    crashes: int = 0
    #: RETRY: the next attempt starts no earlier.
    due_ms: int = 0
    #: ACTIVE: until then the worker that holds `token` may be at work.
    lease_ms: int = 0
    token: str = ""
    #: The start of the worker process that took the lease; empty where leases end by time alone.
    boot: str = ""
    #: The place in its lane's line that it took when it was due; 0: none since it was made.
    lane_place: int = 0
    #: It has been claimed in its place, and must take another one to be claimed again.
    out_of_line: bool = False
    #: Its attempt was under way when its server stopped.
    given_back: bool = False
    #: The ids of its callbacks, if its queue waits for them.
    callbacks: tuple[str, ...] = ()
    #: When a cancel came while an attempt was under way; 0: none did.
    stop: int = 0
    ended_ms: int = 0
    #: Why it was cancelled, if nobody named it; empty: somebody did.
    why: str = ""
    #: The last attempt that came back: `at`, `ms`, `status` (0: no answer), `error`; of a failed one `next`, when the
    #: next attempt was due then (0: there is none), and the answer's `headers` and `body`, cut short; and
    #: the `window` that it counted in, if its lane has a rate.
    last: Mapping[str, Any] | None = None
    #: Those before it, the oldest first: `at`, `ms`, `status`, `error`, `next`, `window`.
    earlier: tuple[tuple[Any, ...], ...] = ()
    ttl_ms: int = 0
    #: Of an attempt under way: the start of the rate window that it counts in; 0: it counts in none.
    window_ms: int = 0

    @property
    def shown(self) -> str:
        """What readers are told."""
        if self.stop and not self.phase.final:
            return "CANCEL_REQUESTED"
        return (Phase.CREATED if self.is_untried else self.phase).value

    @property
    def is_untried(self) -> bool:
        """Who is made due, or takes a place in line, has a stored state before the first attempt."""
        attempted = self.retried or self.crashes or self.given_back
        return self.phase is Phase.CREATED or (self.phase is Phase.RETRY and not attempted)

    @staticmethod
    def from_item(item: Item | None) -> State:
        if item is None:
            return State()
        return State(
            phase=_PHASES[item["state"]],
            retried=item.get("retried", 0),
            crashes=item.get("crashes", 0),
            due_ms=item.get("due", 0),
            lease_ms=item.get("lease", 0),
            token=item.get("token", ""),
            boot=item.get("boot", ""),
            lane_place=item.get("lp", 0),
            out_of_line="out" in item,
            given_back="back" in item,
            callbacks=tuple(item.get("calls", ())),
            stop=int(item.get("stop", 0)),
            ended_ms=item.get("ended", 0),
            why=item.get("why", ""),
            last=item.get("last"),
            earlier=tuple(map(tuple, item.get("earlier", ()))),
            ttl_ms=item["ttl"] * 1000,
        )


def windows_of(state: State) -> list[int]:
    """The rate windows that its last attempts counted in, the oldest first."""
    earlier = [one[5] for one in state.earlier if len(one) > 5]  # fewer in what an older release has stored
    return [one for one in (*earlier, (state.last or {}).get("window", 0)) if one]


def lease_began_ms(message: Message, state: State) -> int:
    """When the attempt that is under way was claimed."""
    return state.lease_ms - message.terms.timeout_ms - LEASE_MARGIN_MS


def due_of(message: Message, state: State) -> int:
    """When a message that waits for an attempt is due."""
    return message.due_ms if state.phase is Phase.CREATED else state.due_ms


def place_in_line(message: Message, state: State) -> int:
    """0: it has none, and takes one when it is due."""
    return 0 if state.out_of_line else state.lane_place or message.lane_place


def _place(message_id: str) -> Place:
    place = place_of(message_id)
    if place is None:
        raise ValueError(f"not a message id: {message_id}")
    return place


def message_key(account: str, message_id: str, place: Place) -> Key:
    return Key(partition_of(place), f"{account}#{message_id}")


def state_key(account: str, message_id: str, place: Place) -> Key:
    return Key(partition_of(place), f"{account}#{message_id}#s")


def partition_of(place: Place) -> str:
    return f"m#{place.minute}#{place.shard}"


def life_ends_ms(policy: Policy, *, due_ms: int, retries_left: int, timeout_ms: int, now_ms: int) -> int:
    """Until when a message must be kept: each retry may wait a day, and after the end it can be read for a while, and
    be sent again from the dead letter queue; logs read it, too.

    Reckoned generously, a dedup window included; what it is too short for, the reminder extends.
    """
    horizon = retries_left * DAY + (retries_left + 1) * timeout_ms
    kept = max(policy.retention_ms, policy.dlq_retention_ms, policy.log_retention_ms, 14 * DAY) + DAY
    return min(max(due_ms, now_ms) + horizon + kept + policy.dedup_window_ms, now_ms + _LONGEST_LIFE_MS)


def parse_ref(ref: str) -> tuple[str, str]:
    account, _, message_id = ref.partition("#")
    return account, message_id


def digest(*parts: str) -> str:
    """A user-chosen text as a part of a key: its length and its `#` can't move a border."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]


def lane_digest(kind: LaneKind, name: str) -> str:
    return digest(kind.value, name)
