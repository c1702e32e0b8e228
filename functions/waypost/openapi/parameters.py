"""What paths, queries and headers may hold: schemas that say exactly what is accepted.

Where a pattern can't say it all, a format of ours has a name for the rest, and the description the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from waypost.core import limits
from waypost.core.duration import show_duration
from waypost.core.event import RANKS
from waypost.core.policy import Policy
from waypost.openapi.schemas import Schema

Parameter = dict[str, Any]

_LARGEST = 10**limits.NUMBER_DIGITS - 1
#: What is left out at both ends of a value, for a class of characters.
_SPACES = r"\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - of a header's name


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


def _any_case(*words: str) -> str:
    """The pattern of these words, however they are capitalised."""
    return "|".join(
        "".join(f"[{letter.upper()}{letter.lower()}]" if letter.isalpha() else letter for letter in word)
        for word in words
    )


def _word(*words: str) -> Schema:
    """An empty header is none."""
    return {"type": "string", "pattern": f"^({_any_case(*words)})?$"}


def _up_to(most: int) -> str:
    """The pattern of whole numbers that are no larger, as headers have them: of 15 digits at most."""
    digits = str(most)
    smaller = [
        f"{digits[:at]}[0-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if digit != "0"
    ]
    shorter = [f"[0-9]{{1,{len(digits) - 1}}}"] if len(digits) > 1 else []
    return f"0{{0,{15 - len(digits)}}}({'|'.join([digits, *smaller, *shorter])})"


# Settings ------------------------------------------------------------------------------------------------------------

_NUMBER = r"[0-9]{1,15}(\.[0-9]{1,9})?"
_DURATION: Schema = {
    "type": "string",
    "pattern": f"^({_NUMBER}|({_NUMBER}({_any_case('ms', 's', 'm', 'h', 'd')}))+)?$",
    "format": "waypost-duration",
}
_ENDPOINT: Schema = {
    "type": "string",
    "pattern": f"^(({_any_case('https', 'http')})://.+)?$",
    "format": "waypost-endpoint",
}


def settings(policy: Policy) -> Sequence[Parameter]:
    """Those that any message can have, and a retry can change."""
    longest_delay, longest_wait = show_duration(policy.max_delay_ms), show_duration(limits.WAIT_MS)
    default_timeout = show_duration(min(policy.default_timeout_ms, policy.max_timeout_ms))
    field = rf"({_any_case('body')}|{_any_case('header')}[sS]?(\[[{_SPACES}]*{_TOKEN}[{_SPACES}]*\])?)"
    return [
        _header(
            "Upstash-Delay",
            f"A wait before the first attempt: `10s`, `1d10h30m`, `500ms`, or seconds alone; at most {longest_delay}.",
            _DURATION,
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
            {"type": "string", "pattern": f"^({_up_to(policy.max_retries)})?$"},
            "5",
        ),
        _header(
            "Upstash-Timeout",
            f"How long the destination may take: more than nothing, at most {show_duration(policy.max_timeout_ms)}."
            f" Default: {default_timeout}.",
            _DURATION,
            "30s",
        ),
        _header(
            "Upstash-Retry-Delay",
            "Milliseconds before each retry, as an expression: numbers, `retried` (0 before the first retry),"
            " `+ - * / %`, and `pow sqrt exp abs floor ceil round min max`. To"
            f" {limits.EXPRESSION_LENGTH} characters and {limits.EXPRESSION_DEPTH} levels; the wait is {longest_wait}"
            " at"
            " most, and nothing where the expression is negative or no number. Not together with a backoff.",
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
                "pattern": f"^([,{_SPACES}]*{field}([{_SPACES}]*,[,{_SPACES}]*{field})*[,{_SPACES}]*)?$",
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
            _ENDPOINT,
            "https://example.com/done",
        ),
        _header(
            "Upstash-Failure-Callback",
            "A URL that is told once if the message fails for good.",
            _ENDPOINT,
            "https://example.com/failed",
        ),
    ]


def publish_settings(policy: Policy) -> Sequence[Parameter]:
    return [
        *settings(policy),
        _header(
            "Upstash-Header-Forward",
            "`true`: all headers of the request are forwarded, but for `Authorization`, those of the connection, and"
            " `Upstash-*`. For webhooks.",
            _FLAG,
            "true",
        ),
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


_FLAG = _word("true", "false", "1", "0")


def destination() -> Parameter:
    return in_path(
        "destination",
        "The URL to deliver to: all that follows `/v2/publish/`, its query included. It may stand there as it is, byte"
        " for byte, or percent-encoded as a whole; `https:/` that lost a slash is repaired. To"
        f" {limits.URL_LENGTH:,} characters.",
        "https://example.com/hook",
        pattern=f"^({_any_case('https', 'http')}):/.+$",
        format="waypost-endpoint",
    )


# Filters -------------------------------------------------------------------------------------------------------------

_SOME_TEXT: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}}
_TIME: Schema = {"type": "integer", "minimum": 0, "maximum": _LARGEST}
_NEVER_YET = "Known, but no message has one yet: it finds nothing."


def _page(most: int, what: str, cursor_is: str, cursor: str) -> Sequence[Parameter]:
    return [
        _in_query("fromDate", f"{what} then or later, in milliseconds since 1970.", _TIME),
        _in_query("toDate", f"{what} then or earlier, in milliseconds since 1970.", _TIME),
        _in_query(
            "order",
            "Default: `latestFirst`.",
            {"type": "string", "enum": ["latestFirst", "earliestFirst"]},
            example="earliestFirst",
        ),
        _in_query(
            "count",
            f"At most so many; more than {most:,}, which is the default, are not given.",
            {"type": "integer", "minimum": 1, "maximum": _LARGEST},
            example=20,
        ),
        _in_query("cursor", cursor_is, {"type": "string", "pattern": cursor}),
    ]


def _shared() -> Sequence[Parameter]:
    return [
        _in_query("url", "The destination.", _SOME_TEXT, example=["https://example.com/hook"]),
        _in_query("label", "A label.", _SOME_TEXT, example=["orders"]),
        _in_query("callerIp", "The address that published it.", _SOME_TEXT),
        _in_query("callerIP", "The same.", _SOME_TEXT),
        *(
            _in_query(name, _NEVER_YET, _SOME_TEXT)
            for name in ("topicName", "queueName", "scheduleId", "flowControlKey", "api")
        ),
        _in_query("messageId", "The message's id.", _SOME_TEXT),
    ]


def letter_filters() -> Sequence[Parameter]:
    some_id = f"[^,]*[^,{_SPACES}][^,]*"
    return [
        *_shared(),
        _in_query(
            "responseStatus",
            "The status of the last answer; 0: there was none.",
            {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": _LARGEST}},
            example=[503],
        ),
        _in_query(
            "dlqIds",
            f"These and no others: repeated, or with commas between them; {limits.LETTER_IDS} at most.",
            {
                "type": "array",
                "items": {"type": "string", "pattern": f"^{some_id}(,{some_id})*$"},
            },
        ),
        *_page(limits.LETTERS, "Failed", "Of the page before; an empty one begins anew.", "^([0-9]{16,30})?$"),
    ]


def log_filters() -> Sequence[Parameter]:
    return [
        *(one for one in _shared() if one["name"] != "messageId"),
        _in_query("messageId", f"The message's id; with `messageIds` {limits.LOG_IDS} at most.", _SOME_TEXT),
        _in_query("messageIds", "The same.", _SOME_TEXT),
        _in_query("host", "The destination's host, with or without its port.", _SOME_TEXT, example=["example.com"]),
        _in_query("path", "The destination's path.", _SOME_TEXT, example=["/hook"]),
        _in_query(
            "state",
            "What happened. `IN_PROGRESS` is ACTIVE, RETRY or ERROR; `CANCELLED` is CANCELED.",
            {"type": "array", "items": {"type": "string", "enum": [*RANKS, "IN_PROGRESS", "CANCELLED"]}},
            example=["FAILED"],
        ),
        *_page(
            limits.LOG_EVENTS,
            "Happened",
            "Of the page before, or a time in milliseconds; an empty one begins anew.",
            "^([0-9]{1,15}|[0-9]{17,57})?$",
        ),
    ]
