"""What paths, queries and headers may hold: schemas that say exactly what is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from waypost.core import limits
from waypost.core.duration import show_duration
from waypost.core.event import RANKS
from waypost.core.plain_name import pattern_of
from waypost.core.policy import SECOND, Policy
from waypost.openapi.patterns import (
    CRON,
    DESTINATION,
    DURATION,
    ENDPOINT_OR_NONE,
    FLOW_KEY,
    FLOW_LIMITS,
    GROUP_NAME,
    QUEUE_NAME,
    SPACES,
    TOKEN,
    Schema,
    any_case,
    up_to,
)
from waypost.openapi.schemas import EXAMPLE_ID

Parameter = dict[str, Any]

_LARGEST = 10**limits.NUMBER_DIGITS - 1


def in_path(name: str, description: str, example: str, **schema: Any) -> Parameter:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 1, **schema},
        "example": example,
    }


def _in_query(name: str, description: str, schema: Schema, **more: Any) -> Parameter:
    return {"name": name, "in": "query", "description": description, "schema": schema, **more}


def _header(name: str, description: str, schema: Schema, example: str) -> Parameter:
    return {"name": name, "in": "header", "description": description, "schema": schema, "example": example}


def _word(*words: str) -> Schema:
    """An empty header is none."""
    return {"type": "string", "pattern": f"^({any_case(*words)})?$"}


# Settings ------------------------------------------------------------------------------------------------------------


def settings(policy: Policy) -> Sequence[Parameter]:
    """Those that any message can have, and a retry can change."""
    longest_delay, longest_wait = show_duration(policy.max_delay_ms), show_duration(limits.WAIT_MS)
    default_timeout = show_duration(min(policy.default_timeout_ms, policy.max_timeout_ms))
    field = rf"({any_case('body')}|{any_case('header')}[sS]?(\[[{SPACES}]*{TOKEN}[{SPACES}]*\])?)"
    return [
        _header(
            "Upstash-Delay",
            f"A wait before the first attempt: `10s`, `1d10h30m`, `500ms`, or seconds alone; at most {longest_delay}.",
            DURATION,
            "1h30m",
        ),
        _header(
            "Upstash-Not-Before",
            f"The first attempt starts no earlier: Unix seconds, at most {longest_delay} ahead. Wins over a delay.",
            {"type": "string", "pattern": "^([0-9]{1,15})?$", "format": "waypost-seconds"},
            "1790000000",
        ),
        _header(
            "Upstash-Retries",
            f"Attempts after the first, {policy.max_retries} at most. Default: {policy.default_retries}.",
            {"type": "string", "pattern": f"^({up_to(policy.max_retries)})?$"},
            "5",
        ),
        _header(
            "Upstash-Timeout",
            f"How long the destination may take: more than nothing, at most {show_duration(policy.max_timeout_ms)}."
            f" Default: {default_timeout}.",
            DURATION,
            "30s",
        ),
        _header(
            "Upstash-Retry-Delay",
            "Milliseconds before each retry, as an expression: numbers, `retried` (0 before the first retry), `+ - *"
            f" / %`, and `pow sqrt exp abs floor ceil round min max`. To {limits.EXPRESSION_LENGTH} characters and"
            f" {limits.EXPRESSION_DEPTH} levels; the wait is {longest_wait} at most, and nothing where the expression"
            " is negative or no number. Not together with a backoff.",
            {
                "type": "string",
                "pattern": r"^[0-9A-Za-z.+\-*/%(), \t]*$",
                "maxLength": limits.EXPRESSION_LENGTH,
                "format": "waypost-expression",
            },
            "pow(2, retried) * 1000",
        ),
        _header(
            "Upstash-Backoff",
            f"`exponential`: 10 s before the first retry, then doubling to {longest_wait}. `fixed`: 10 s each time. Not"
            " together with a retry delay. This one is Waypost's own.",
            _word("exponential", "fixed"),
            "fixed",
        ),
        _header(
            "Upstash-Label",
            f"One or more labels, separated by commas; {limits.LABELS_LENGTH:,} characters in all. Lists filter by"
            " them.",
            {"type": "string", "maxLength": limits.LABELS_LENGTH},
            "orders, eu",
        ),
        _header(
            "Upstash-Redact-Fields",
            "`body`, `header` (all) or `header[Name]`, separated by commas: shown by every route as"
            " `REDACTED:<SHA-256>`, and sent as they are.",
            {
                "type": "string",
                "pattern": f"^([,{SPACES}]*{field}([{SPACES}]*,[,{SPACES}]*{field})*[,{SPACES}]*)?$",
            },
            "body, header[Authorization]",
        ),
        _header(
            "Upstash-Method",
            "How the destination is called: GET, POST (default), PUT, PATCH or DELETE.",
            _word("GET", "POST", "PUT", "PATCH", "DELETE"),
            "PUT",
        ),
        _header(
            "Upstash-Callback",
            "A URL that is told of every attempt that came back. See the section on callbacks.",
            ENDPOINT_OR_NONE,
            "https://example.com/done",
        ),
        _header(
            "Upstash-Failure-Callback",
            "A URL that is told once if the message fails for good.",
            ENDPOINT_OR_NONE,
            "https://example.com/failed",
        ),
        *_flow_control(),
    ]


def _flow_control() -> Sequence[Parameter]:
    longest = show_duration(limits.PERIOD_MS)
    return [
        _header(
            "Upstash-Flow-Control-Key",
            f"Messages that have the same one share its limits. Any text of {limits.FLOW_KEY_LENGTH} characters at"
            " most. Needs the limits.",
            {"type": "string", "maxLength": limits.FLOW_KEY_LENGTH},
            "customer-42",
        ),
        _header(
            "Upstash-Flow-Control-Value",
            "The key's limits from this message on: `parallelism`, requests at once, to"
            f" {limits.PARALLELISM:,}; `rate`, starts in a `period`, to {limits.RATE:,}; the period, 1 s if it is left"
            f" out, is whole seconds to {longest}. One of the first two at least; what is left out is no limit. If it"
            " is given and empty, the key's limits stay. Needs the key.",
            FLOW_LIMITS,
            "parallelism=5, rate=10, period=1m",
        ),
    ]


def queue_settings(policy: Policy) -> Sequence[Parameter]:
    """Of a message that is put into a queue: it waits in one line."""
    own = [one["name"] for one in _flow_control()]
    return [one for one in publish_settings(policy) if one["name"] not in own]


def publish_settings(policy: Policy) -> Sequence[Parameter]:
    return [
        *settings(policy),
        _header_forward(),
        _header(
            "Upstash-Deduplication-Id",
            f"One message per id in {show_duration(policy.dedup_window_ms)}, also if that one failed or was cancelled."
            " Without `:`.",
            {"type": "string", "pattern": "^[^:]*$"},
            "order-42",
        ),
        _header(
            "Upstash-Content-Based-Deduplication",
            "`true`: the id is made of destination, body, Content-Type and forwarded headers. An id that is given"
            " wins.",
            _FLAG,
            "true",
        ),
    ]


def schedule_settings(policy: Policy) -> Sequence[Parameter]:
    cron = _header(
        "Upstash-Cron",
        "When it fires: minute, hour, day of the month, month and day of the week, or `@hourly`, `@daily`"
        " (`@midnight`), `@weekly`, `@monthly` or `@yearly` (`@annually`). In UTC, unless `CRON_TZ=Area/City` stands"
        f" before it. To {limits.CRON_LENGTH} characters.",
        CRON,
        "CRON_TZ=Europe/Berlin 30 9 * * 1-5",
    )
    return [
        {**cron, "required": True},
        _header(
            "Upstash-Schedule-Id",
            "Its id; one is drawn if none is given. A schedule that has it is replaced.",
            {"type": "string", "pattern": f"^({pattern_of(limits.SCHEDULE_ID_LENGTH)})?$"},
            "report",
        ),
        _header(
            "Upstash-Queue-Name",
            "A queue that its messages go through. Not together with a flow-control key.",
            {**QUEUE_NAME, "pattern": f"^({QUEUE_NAME['pattern'][1:-1]})?$"},
            "orders",
        ),
        *(one for one in settings(policy) if one["name"] != "Upstash-Not-Before"),
        _header_forward(),
    ]


def _header_forward() -> Parameter:
    return _header(
        "Upstash-Header-Forward",
        "`true`: all headers of the request are forwarded, but for `Authorization`, those of the connection, and"
        " `Upstash-*`. For webhooks.",
        _FLAG,
        "true",
    )


_FLAG = _word("true", "false", "1", "0")


def group() -> Parameter:
    return in_path("name", "The group's name.", "everybody", **GROUP_NAME)


def queue() -> Parameter:
    return in_path("queue", "The queue's name.", "orders", **QUEUE_NAME)


def flow_key() -> Parameter:
    return in_path(
        "key", "The key. Slashes may stand in it as they are; it is percent-decoded.", "customer-42", **FLOW_KEY
    )


def pinned() -> Sequence[Parameter]:
    def up_to_most(most: int) -> Schema:
        return {"type": "integer", "minimum": 1, "maximum": most}

    return [
        _in_query("parallelism", "Requests at once.", up_to_most(limits.PARALLELISM), example=5),
        _in_query("rate", "Starts in a period.", up_to_most(limits.RATE), example=10),
        _in_query(
            "period",
            "Of the rate, in seconds; 1 if it is left out. Without a rate it says nothing.",
            up_to_most(limits.PERIOD_MS // SECOND),
            example=60,
        ),
    ]


def unpinned() -> Sequence[Parameter]:
    return [
        _in_query("parallelism", "`true`: it is unpinned.", {"type": "boolean"}, example=True),
        _in_query("rate", "`true`: it is unpinned, and its period.", {"type": "boolean"}, example=True),
    ]


def searched() -> Parameter:
    return _in_query("search", "A part of the keys that are wanted.", {"type": "string"}, example="customer")


def destination(name: str = "destination", route: str = "publish") -> Parameter:
    return in_path(
        name,
        f"The URL to deliver to, or the name of a URL group. A URL is all that follows `/v2/{route}/`, its query"
        " included. It may stand there as it is, byte for byte, or percent-encoded as a whole; `https:/` that lost a"
        f" slash is repaired. To {limits.URL_LENGTH:,} characters. `api/llm` is the model service that the operator has"
        " set (`WAYPOST_LLM_URL`), whose answer comes to `Upstash-Callback`.",
        "https://example.com/hook",
        **DESTINATION,
    )


# Filters -------------------------------------------------------------------------------------------------------------

_SOME_TEXT: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}}
_SOME_ID = f"[^,]*[^,{SPACES}][^,]*"
_SOME_IDS: Schema = {"type": "array", "items": {"type": "string", "pattern": f"^{_SOME_ID}(,{_SOME_ID})*$"}}
_TIME: Schema = {"type": "integer", "minimum": 0, "maximum": _LARGEST}
_COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": _LARGEST}
_WITH_COMMAS = "Several may stand with commas between them."


def _of_a_message() -> Sequence[Parameter]:
    """Filters that all lists have."""
    return [
        _in_query("url", "The destination.", _SOME_TEXT, example=["https://example.com/hook"]),
        _in_query("label", f"A label. {_WITH_COMMAS}", _SOME_TEXT, example=["orders"]),
        _in_query("callerIp", f"The address that published it. {_WITH_COMMAS}", _SOME_TEXT),
        _in_query("callerIP", "The same.", _SOME_TEXT),
        _in_query("topicName", f"The URL group that it was published to. {_WITH_COMMAS}", _SOME_TEXT),
        _in_query("api", "The api that it was published to: `llm`.", _SOME_TEXT),
        _in_query("scheduleId", f"The schedule that made it. {_WITH_COMMAS}", _SOME_TEXT),
        _in_query("queueName", f"The queue that it goes through. {_WITH_COMMAS}", _SOME_TEXT),
        _in_query("flowControlKey", "Its flow-control key.", _SOME_TEXT),
    ]


def _of_a_url() -> Sequence[Parameter]:
    return [
        _in_query("host", "The destination's host, with or without its port.", _SOME_TEXT, example=["example.com"]),
        _in_query("path", "The destination's path.", _SOME_TEXT, example=["/hook"]),
    ]


def _between(what: str) -> Sequence[Parameter]:
    return [
        _in_query("fromDate", f"{what} then or later, in milliseconds since 1970.", _TIME),
        _in_query("toDate", f"{what} then or earlier, in milliseconds since 1970.", _TIME),
    ]


def _page(most: int, cursor: str, pattern: str) -> Sequence[Parameter]:
    return [
        _in_query(
            "order",
            "Default: `latestFirst`.",
            {"type": "string", "enum": ["latestFirst", "earliestFirst"]},
            example="earliestFirst",
        ),
        _in_query(
            "count", f"At most so many; more than {most:,}, which is the default, are not given.", _COUNT, example=20
        ),
        _in_query("cursor", cursor, {"type": "string", "pattern": pattern}),
    ]


def letter_filters() -> Sequence[Parameter]:
    return [
        *_of_a_message(),
        _in_query("messageId", "The message's id.", _SOME_TEXT),
        _in_query(
            "responseStatus",
            "The status of the last answer; 0: there was none.",
            {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": _LARGEST}},
            example=[503],
        ),
        _in_query("dlqIds", f"These and no others, {limits.LETTER_IDS} at most. {_WITH_COMMAS}", _SOME_IDS),
        *_between("Failed"),
        *_page(limits.LETTERS, "Of the page before; an empty one begins anew.", "^([0-9]{16,30})?$"),
    ]


def cancel_filters() -> Sequence[Parameter]:
    return [
        *_of_a_message(),
        *_of_a_url(),
        _in_query(
            "messageIds",
            f"These, {limits.CANCEL_IDS:,} at most, whatever else is asked for. {_WITH_COMMAS}",
            _SOME_IDS,
            example=[EXAMPLE_ID],
        ),
        _in_query("messageId", "The same.", _SOME_IDS),
        *_between("Accepted"),
        _in_query("count", "At most so many. 100 is no limit.", _COUNT),
    ]


def log_filters() -> Sequence[Parameter]:
    return [
        *_of_a_message(),
        *_of_a_url(),
        _in_query("messageId", f"The message's id; with `messageIds` {limits.LOG_IDS} at most.", _SOME_TEXT),
        _in_query("messageIds", "The same.", _SOME_TEXT),
        _in_query(
            "state",
            "What happened. `IN_PROGRESS` is ACTIVE, RETRY or ERROR; `CANCELLED` is CANCELED.",
            {"type": "array", "items": {"type": "string", "enum": [*RANKS, "IN_PROGRESS", "CANCELLED"]}},
            example=["FAILED"],
        ),
        *_between("Happened"),
        *_page(
            limits.LOG_EVENTS,
            "Of the page before, or a time in milliseconds; an empty one begins anew.",
            "^([0-9]{1,15}|[0-9]{17,57})?$",
        ),
    ]
