"""Every limit that callers and endpoints meet: `python -m waypost.openapi.limit_table` writes docs/limits.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from waypost.core import limits
from waypost.core.duration import show_duration
from waypost.core.policy import Policy

FIXED = "fixed"


class Limit(NamedTuple):
    what: str
    figure: str
    #: The setting that changes it, or FIXED.
    setting: str
    #: What comes of more.
    beyond: str


def limits_of(policy: Policy) -> Sequence[Limit]:
    def changeable(what: str, name: str, figure: str, beyond: str) -> Limit:
        return Limit(what, figure, policy.setting(name), beyond)

    def fixed(what: str, figure: str, beyond: str) -> Limit:
        return Limit(what, figure, FIXED, beyond)

    return [
        # Of a request
        changeable("a body", "max_body", _bytes(policy.max_body), "413"),
        changeable("the bodies of a batch", "max_batch", _bytes(policy.max_batch), "413"),
        fixed("a body on AWS, whatever is set", _bytes(limits.BODY_ON_AWS), "the deployment is refused"),
        fixed("the bodies of a batch on AWS, whatever is set", _bytes(limits.BODY_ON_AWS), "413"),
        fixed("messages of a batch, or to a URL group", f"{limits.BATCH_MESSAGES:,}", "400"),
        fixed("a request besides its body: its first line, its headers", _bytes(limits.REQUEST_HEAD), "431"),
        changeable("forwarded headers of a message", "max_headers", _bytes(policy.max_headers), "400"),
        fixed("a destination, or a callback's URL", _characters(limits.URL_LENGTH), "400"),
        fixed("a host's name", _characters(limits.HOST_LENGTH), "400"),
        fixed("labels of a message, commas included", _characters(limits.LABELS_LENGTH), "400"),
        fixed("endpoints of a URL group", f"{limits.GROUP_ENDPOINTS:,}", "400"),
        fixed("the name of a URL group, or of its endpoint", _characters(limits.GROUP_NAME_LENGTH), "400"),
        fixed("a cron expression, its zone included", _characters(limits.CRON_LENGTH), "400"),
        fixed("a schedule's id", _characters(limits.SCHEDULE_ID_LENGTH), "400"),
        fixed("the name of a queue", _characters(limits.QUEUE_NAME_LENGTH), "400"),
        fixed("a flow-control key", _characters(limits.FLOW_KEY_LENGTH), "400"),
        fixed("parallelism of a queue or a flow-control key", f"{limits.PARALLELISM:,}", "400"),
        fixed("starts in a period of a flow-control key", f"{limits.RATE:,}", "400"),
        fixed("a period of a flow-control key", show_duration(limits.PERIOD_MS), "400"),
        fixed("a URL group, or a message or schedule but for its body, stored", _bytes(limits.ITEM), "413"),
        fixed("a retry delay expression", _characters(limits.EXPRESSION_LENGTH), "400"),
        fixed("levels of a retry delay expression", f"{limits.EXPRESSION_DEPTH}", "400"),
        fixed("a number, or a time, in a query", f"{limits.NUMBER_DIGITS} digits", "400"),
        fixed("a request's headers to arrive", f"{limits.HEAD_S} s", "the connection is closed"),
        fixed("a request's body to arrive", f"{limits.BODY_S} s", "400"),
        fixed("a connection without a request", f"{limits.IDLE_S} s", "it is closed"),
        fixed("requests in line on one connection", f"{limits.IN_LINE}", "they are read later"),
        # Of a message
        changeable("retries", "max_retries", f"{policy.max_retries}", "400"),
        changeable("retries, if none are given", "default_retries", f"{policy.default_retries}", "-"),
        changeable("a timeout", "max_timeout_ms", show_duration(policy.max_timeout_ms), "400"),
        changeable("a timeout, if none is given", "default_timeout_ms", show_duration(policy.default_timeout_ms), "-"),
        fixed(
            "a timeout on AWS, whatever is set", show_duration(limits.TIMEOUT_ON_AWS_MS), "the deployment is refused"
        ),
        changeable("a delay", "max_delay_ms", show_duration(policy.max_delay_ms), "400"),
        fixed("a wait before a retry", show_duration(limits.WAIT_MS), "it is so long; longer advice is not followed"),
        fixed("attempts that never returned", f"{limits.CRASHES}", "the message fails"),
        changeable(
            "a deduplication id holds",
            "dedup_window_ms",
            show_duration(policy.dedup_window_ms),
            "a new message is made",
        ),
        changeable("requests to destinations at once", "max_in_flight", f"{policy.max_in_flight}", "others wait"),
        # Of an endpoint's answer
        fixed("an answer's body", _bytes(limits.ANSWER_BODY), "the rest is not read; the status counts"),
        fixed("an answer's headers", _bytes(limits.ANSWER_HEAD), "the attempt failed"),
        # What is kept
        changeable("an ended message can be read", "retention_ms", show_duration(policy.retention_ms), "404"),
        changeable("a dead letter is kept", "dlq_retention_ms", show_duration(policy.dlq_retention_ms), "404"),
        changeable(
            "logs tell of an event", "log_retention_ms", show_duration(policy.log_retention_ms), "it is left out"
        ),
        fixed("an answer's body in a dead letter", _bytes(limits.LETTER_ANSWER), "it is cut short"),
        fixed(
            "an answer's headers in a dead letter", _characters(limits.LETTER_ANSWER_HEADERS), "later ones are left out"
        ),
        fixed("a message's body in logs, as it is stored", _bytes(limits.BODY_AT_HAND), "it is left out"),
        fixed("an answer's body in logs", _bytes(limits.ATTEMPT_ANSWER), "it is cut short"),
        fixed("an answer's headers in logs", _characters(limits.ATTEMPT_ANSWER_HEADERS), "later ones are left out"),
        fixed("an attempt's error", _characters(limits.ERROR_LENGTH), "it is cut short"),
        fixed("callbacks of one message that its queue waits for", f"{limits.AWAITED_CALLBACKS}", "the last ones"),
        fixed("attempts that a message tells of", f"{limits.ATTEMPTS_BEFORE_LAST + 1}", "the oldest are left out"),
        fixed(
            "messages of its last firing that a schedule tells of", f"{limits.FIRED_MESSAGES}", "others are left out"
        ),
        # Of lists
        fixed("dead letters of a page (`count`)", f"{limits.LETTERS}", "the page has a cursor"),
        fixed("dead letters asked for by id (`dlqIds`)", f"{limits.LETTER_IDS}", "400"),
        fixed("dead letters that one call looks at", f"{limits.LETTERS_LOOKED_AT:,}", "the page has a cursor"),
        fixed("a page of dead letters", _bytes(limits.LETTER_BYTES), "it has a cursor"),
        fixed("dead letters asked for by id, with bodies", _bytes(limits.LETTER_BYTES_WHOLE), "bodies are left out"),
        fixed("all URL groups, queues or flow-control keys together, to be listed", _bytes(limits.LIST_BYTES), "409"),
        fixed("messages cancelled by id at once (`messageIds`)", f"{limits.CANCEL_IDS:,}", "400"),
        fixed("bodies in a list of schedules", _bytes(limits.SCHEDULE_BODIES), "the other bodies are left out"),
        fixed("events of a page of logs (`count`)", f"{limits.LOG_EVENTS:,}", "the page has a cursor"),
        fixed("messages that logs are asked for (`messageIds`)", f"{limits.LOG_IDS}", "400"),
        fixed("events that one page of logs reads", f"{limits.LOG_EVENTS_READ:,}", "it has a cursor"),
        fixed("a page of logs", _bytes(limits.LOG_BYTES), "it has a cursor"),
    ]


def markdown(policy: Policy) -> str:
    rows = [
        f"| {one.what} | {one.figure} | {one.setting if one.setting == FIXED else f'`{one.setting}`'} | {one.beyond} |"
        for one in limits_of(policy)
    ]
    return "\n".join(
        [
            "# Limits",
            "",
            "Figures are the defaults; `/docs` of a server has its own. A number in the last column is the status of"
            " the",
            "answer, whose error names the field, the value and the limit. `make docs` writes this file.",
            "",
            "| what | at most | setting | more than that |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _bytes(figure: int) -> str:
    return f"{figure:,} bytes"


def _characters(figure: int) -> str:
    return f"{figure:,} characters"


if __name__ == "__main__":
    sys.stdout.write(markdown(Policy()))
