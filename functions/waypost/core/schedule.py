"""A schedule: what is published whenever its cron expression says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from waypost.core.message import VERSION, digest
from waypost.core.policy import DAY
from waypost.core.ports import Item, Key
from waypost.core.terms import Terms

SCHEDULE = "schedule"
#: Bodies that are blobs are dropped by age: a schedule's is stored for so long, and anew long before that.
BODY_LIVES_MS = 390 * DAY
BODY_RENEWED_MS = 180 * DAY


class Firing(Struct, frozen=True):
    """What became of an occurrence."""

    at_ms: int = 0
    #: The first ones of the messages that it made.
    message_ids: tuple[str, ...] = ()
    #: Why it made none.
    error: str = ""


class Schedule(Struct, frozen=True):
    id: str
    account: str
    #: A URL, the name of a URL group, or an api, as `core.destination` reads them.
    destination: str
    cron: str
    terms: Terms
    #: Of each message, before its first attempt.
    delay_ms: int
    #: How the body is stored: `core.body` reads it.
    body: Mapping[str, Any]
    created_ms: int
    caller_ip: str
    #: The occurrence that comes next, or is due and has not been fired.
    next_ms: int
    paused: bool = False
    #: When the body has to be stored anew; 0: never, it stands in the item.
    renew_ms: int = 0
    last: Firing | None = None
    #: Drawn anew at each change.
    version: str = ""

    @property
    def key(self) -> Key:
        return schedule_key(self.account, errand_of(self.id))

    @property
    def ref(self) -> str:
        """What bells and reminders carry."""
        return f"{self.account}#{errand_of(self.id)}"

    @property
    def wake_ms(self) -> int | None:
        """When there is next something to do; None: there never is again, unless it is changed."""
        times = [self.renew_ms] if self.renew_ms else []
        if not self.paused:
            times.append(self.next_ms)
        return min(times, default=None)

    def to_item(self) -> dict[str, Any]:
        item = {
            "pk": self.key.pk,
            "sk": self.key.sk,
            "v": VERSION,
            "id": self.id,
            "destination": self.destination,
            "cron": self.cron,
            **self.terms.to_item(),
            "delay": self.delay_ms,
            "body": dict(self.body),
            "created": self.created_ms,
            "ip": self.caller_ip,
            "next": self.next_ms,
            "paused": self.paused,
            "renew": self.renew_ms,
            "version": self.version,
        }
        if self.last:
            item["last"] = [self.last.at_ms, list(self.last.message_ids), self.last.error]
        return item

    @staticmethod
    def from_item(account: str, item: Item | None) -> Schedule | None:
        if item is None:
            return None
        last = item.get("last")
        return Schedule(
            id=item["id"],
            account=account,
            destination=item["destination"],
            cron=item["cron"],
            terms=Terms.from_item(item),
            delay_ms=item["delay"],
            body=item["body"],
            created_ms=item["created"],
            caller_ip=item["ip"],
            next_ms=item["next"],
            paused=item["paused"],
            renew_ms=item["renew"],
            last=Firing(last[0], tuple(last[1]), last[2]) if last else None,
            version=item["version"],
        )


def schedules_partition(account: str) -> str:
    return f"{account}#schedules"


def errand_of(schedule_id: str) -> str:
    return f"{SCHEDULE}_{digest(schedule_id)}"


def schedule_key(account: str, errand: str) -> Key:
    return Key(schedules_partition(account), errand)
