"""Every number that the rules use, with the setting that changes it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def _setting(default: Any, name: str, *, least: int = 0, choices: tuple[str, ...] = ()) -> Any:
    """A figure that the environment variable `name` changes: to `least` or more, or to one of the choices."""
    return field(default=default, metadata={"setting": name, "least": least, "choices": choices})


@dataclass(frozen=True, slots=True)
class Policy:
    """The service's figures. Times are milliseconds, sizes bytes; the names are what errors and documents call them."""

    default_retries: int = _setting(3, "WAYPOST_DEFAULT_RETRIES")
    default_timeout_ms: int = _setting(60 * SECOND, "WAYPOST_DEFAULT_TIMEOUT", least=1)
    dedup_window_ms: int = _setting(15 * MINUTE, "WAYPOST_DEDUP_WINDOW", least=1)
    #: `standard` is 10 s, 30 s, 1 min, 2 min, then doubling; `qstash` is e^(2.5 n) seconds. Both end at a day.
    backoff: str = _setting("standard", "WAYPOST_BACKOFF", choices=("standard", "qstash"))
    max_delay_ms: int = _setting(365 * DAY, "WAYPOST_MAX_DELAY")
    max_retries: int = _setting(100, "WAYPOST_MAX_RETRIES")
    max_timeout_ms: int = _setting(14 * MINUTE, "WAYPOST_MAX_TIMEOUT", least=1)
    max_body: int = _setting(1_000_000, "WAYPOST_MAX_BODY", least=1)
    #: Of all bodies of a batch together.
    max_batch: int = _setting(32 * 1024 * 1024, "WAYPOST_MAX_BATCH", least=1)
    max_headers: int = _setting(65_536, "WAYPOST_MAX_HEADERS", least=1)
    max_in_flight: int = _setting(512, "WAYPOST_MAX_IN_FLIGHT", least=1)
    #: How long a message can be read after it ended.
    retention_ms: int = _setting(14 * DAY, "WAYPOST_RETENTION")
    #: How long a dead letter is kept.
    dlq_retention_ms: int = _setting(30 * DAY, "WAYPOST_DLQ_RETENTION")
    #: How long logs tell of an event.
    log_retention_ms: int = _setting(14 * DAY, "WAYPOST_LOG_RETENTION", least=1)
    #: The SDKs know these two alone.
    region: str = _setting("US-EAST-1", "WAYPOST_REGION", choices=("US-EAST-1", "EU-CENTRAL-1"))
    #: Bodies from this size on are compressed: late where that costs time, early where a write costs by the kilobyte.
    compress_from: int = 8_193
    #: Partitions a minute of messages, or the reminders, are spread over.
    shards: int = 1
    #: Names this start of a sole worker; leases of other boots are dead. Empty where several workers share a table.
    boot: str = ""
    #: So many messages just stored are kept at hand for this process's own worker; 0 where others deliver.
    fresh: int = 1_024
    #: Those who are let in together begin so long after each other, and leave others time in between; 0 where bells
    #: count whole seconds.
    starts_apart_ms: int = 4
    #: The most bells one tick rings.
    rings_per_tick: int = 10_000

    def setting(self, name: str) -> str:
        """The environment variable that changes the figure `name`."""
        return str(_SETTINGS[name])


_SETTINGS = {f.name: f.metadata["setting"] for f in fields(Policy) if "setting" in f.metadata}


def body_too_large(policy: Policy) -> str:
    return (
        f"quota maxMessageSize exceeded, current limit: {policy.max_body} (the body is larger than so many bytes;"
        f" the setting {policy.setting('max_body')} changes the limit)"
    )


def batch_json_limit(policy: Policy) -> int:
    """Of a batch as JSON, in which a body may be twice as long, or longer where much of it is escaped."""
    return 2 * policy.max_batch + 1_000_000


def batch_json_too_large(policy: Policy) -> str:
    return (
        f"quota maxBatchSize exceeded, current limit: {batch_json_limit(policy)} (the JSON of a batch has more than so"
        f" many bytes; send it in parts, or change the setting {policy.setting('max_batch')}, half of that)"
    )


def batch_too_large(policy: Policy) -> str:
    return (
        f"quota maxBatchSize exceeded, current limit: {policy.max_batch} (the bodies of a batch have more than so many"
        f" bytes together; send it in parts, or change the setting {policy.setting('max_batch')})"
    )
