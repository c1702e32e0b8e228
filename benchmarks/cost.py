"""`make cost MESSAGES=1e6`: what messages cost on AWS.

The figures below are what `tests/test_functions.py` counts, for bodies of 1 KB that can't be compressed: it fails if a
count rises above its figure. Prices are AWS's list for us-east-1, without free tiers. What can't be counted here is
assumed, and named so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Counted:
    """One part of a message's way."""

    #: AWS calls by name.
    calls: Mapping[str, int]
    #: DynamoDB's, by its rule.
    write_units: int
    #: At most so many bytes in the calls' bodies, and in log lines as CloudWatch bills them.
    sent: int
    logged: int


PUBLISH = Counted({"PutItem": 1, "SendMessageBatch": 1}, write_units=2, sent=1_950, logged=160)
PUBLISH_DEDUPLICATED = Counted({"PutItem": 2, "SendMessageBatch": 1}, write_units=3, sent=2_750, logged=160)
#: Into a full lane: its place, and what stands in line.
PUBLISH_IN_LANE = Counted(
    {"UpdateItem": 1, "PutItem": 1, "BatchWriteItem": 1, "GetItem": 1}, write_units=4, sent=3_000, logged=160
)
#: Of a thousand messages that one request brings, as a batch or to a URL group, which is read.
PUBLISH_THOUSAND = Counted(
    {"BatchWriteItem": 40, "SendMessageBatch": 100}, write_units=2_000, sent=1_800_000, logged=160
)
PUBLISH_TO_THOUSAND = Counted(
    {"GetItem": 1, "BatchWriteItem": 40, "SendMessageBatch": 100}, write_units=2_000, sent=1_800_000, logged=160
)
#: Of ten messages that one batch brings; the signing keys and the open orders to cancel are read once, and one item
#: logs all that befell them.
DELIVER_TEN = Counted(
    {"GetItem": 11, "UpdateItem": 20, "PutItem": 1, "Query": 1}, write_units=21, sent=23_700, logged=2_560
)
#: Likewise in a lane that is full, by its parallelism, at most: each one's turn is asked for, and who leaves lets in
#: others; those who leave at the same time are served by one write, so how many there are depends on the moment. A
#: lane's item has a kilobyte at 10, and at 100 six.
DELIVER_TEN_IN_LANE_OF_10 = Counted(
    {"GetItem": 36, "UpdateItem": 20, "PutItem": 5, "Query": 9, "SendMessageBatch": 4, "BatchWriteItem": 4},
    write_units=36,
    sent=45_000,
    logged=2_560,
)
DELIVER_TEN_IN_LANE_OF_100 = Counted(DELIVER_TEN_IN_LANE_OF_10.calls, write_units=53, sent=75_000, logged=2_560)
#: An attempt that fails, alone in its batch.
FAIL_ONCE = Counted(
    {"GetItem": 2, "UpdateItem": 2, "PutItem": 1, "Query": 1, "SendMessageBatch": 1},
    write_units=3,
    sent=3_600,
    logged=500,
)
#: A reminder of a message that nothing rings: given by the look, moved on (a put and a delete), forgotten.
REMINDER_UNITS = 4
#: The first minute's look, then the reminders, in 32 shards each.
IDLE_TICK = Counted(
    {"GetItem": 2, "GetQueueAttributes": 2, "PutItem": 1, "Query": 96}, write_units=1, sent=30_500, logged=350
)

_WRITE_UNIT = 0.625e-6
_READ_UNIT = 0.125e-6
_SQS_CALL = 0.40e-6
_HTTP_API_CALL = 1.00e-6
_LAMBDA_CALL = 0.20e-6
_LAMBDA_GB_S = 0.0000133334
_LOG_BYTE = 0.50 / 1024**3
_MEMORY_GB = 0.5
_SECRET_MONTH = 0.40
_ALARM_MONTH = 0.10
_METRIC_MONTH = 0.30
_QSTASH_MESSAGE = 10e-6
#: An event source asks its queue with five long polls of 20 s at once, whether anything comes or not.
_POLLS_A_MONTH = 5 * 3 * 60 * 24 * 30

#: Assumed: how long a call of each function takes. A batch lasts as long as its slowest endpoint.
_API_S, _API_THOUSAND_S, _BATCH_S, _TICK_S = 0.015, 2.0, 0.25, 0.8
_TICKS_A_MONTH = 30 * 24 * 60
#: Assumed: the look reads each message and its state twice, 1.7 KB, and a read unit has 4 KB.
_LOOK_READ_UNITS = 2 * 1.7 / 4
#: Assumed: it logs a thousand creations in an item of 27 KB. In quiet times there are fewer to share one.
_LOOK_WRITE_UNITS = 27 / 1_000


def writes(*parts: Counted) -> float:
    return sum(part.write_units for part in parts) * _WRITE_UNIT


def logs(*parts: Counted) -> float:
    return sum(part.logged for part in parts) * _LOG_BYTE


def calls_of(name: str, *parts: Counted) -> int:
    return sum(part.calls.get(name, 0) for part in parts)


def a_message(publish: Counted = PUBLISH, api_s: float = _API_S, of: int = 1) -> Iterator[tuple[str, float]]:
    """Dollars for one plain message that is delivered at the first try, in a full batch. It is one of so many that a
    request publishes in `api_s`."""
    yield "DynamoDB writes", writes(publish) / of + writes(DELIVER_TEN) / 10 + _LOOK_WRITE_UNITS * _WRITE_UNIT
    read = calls_of("GetItem", DELIVER_TEN) + calls_of("Query", DELIVER_TEN)
    yield "DynamoDB reads", (read / 10 + _LOOK_READ_UNITS) * _READ_UNIT
    # The event source receives and deletes ten at once.
    yield "SQS", (calls_of("SendMessageBatch", publish) / of + 2 / 10) * _SQS_CALL
    yield (
        "Lambda (assumed durations)",
        (_LAMBDA_CALL * (1 / of + 1 / 10) + _LAMBDA_GB_S * _MEMORY_GB * (api_s / of + _BATCH_S / 10)),
    )
    yield "CloudWatch logs", logs(publish) / of + logs(DELIVER_TEN) / 10


def a_month() -> Iterator[tuple[str, float]]:
    """Dollars for a month without any message."""
    tick = (
        writes(IDLE_TICK)
        + (calls_of("Query", IDLE_TICK) + calls_of("GetItem", IDLE_TICK)) * _READ_UNIT
        + calls_of("GetQueueAttributes", IDLE_TICK) * _SQS_CALL
        + _LAMBDA_CALL
        + _LAMBDA_GB_S * _MEMORY_GB * _TICK_S
        + logs(IDLE_TICK)
    )
    yield "ticks (assumed duration)", tick * _TICKS_A_MONTH
    yield "two event sources that ask in vain", 2 * _POLLS_A_MONTH * _SQS_CALL
    yield "the token's secret", _SECRET_MONTH
    yield "two alarms and the metric of the ticks", 2 * _ALARM_MONTH + _METRIC_MONTH


def more() -> Iterator[tuple[str, float]]:
    """Dollars for one message more or other than plain."""
    yield "behind the HTTP API", _HTTP_API_CALL
    yield "with deduplication", writes(PUBLISH_DEDUPLICATED) - writes(PUBLISH)
    lane, plain = DELIVER_TEN_IN_LANE_OF_10, DELIVER_TEN
    read = calls_of("GetItem", lane) + calls_of("Query", lane) - calls_of("GetItem", plain) - calls_of("Query", plain)
    yield (
        "in a full lane of parallelism 10",
        (
            writes(PUBLISH_IN_LANE)
            - writes(PUBLISH)
            + (writes(lane) - writes(plain)) / 10
            + (calls_of("GetItem", PUBLISH_IN_LANE) + read / 10) * _READ_UNIT
            + (calls_of("SendMessageBatch", lane) / 10 - calls_of("SendMessageBatch", PUBLISH)) * _SQS_CALL
        ),
    )
    yield "with a delay of more than 15 minutes", REMINDER_UNITS * _WRITE_UNIT
    yield (
        "for each retry",
        (
            writes(FAIL_ONCE)
            + (calls_of("GetItem", FAIL_ONCE) + calls_of("Query", FAIL_ONCE)) * _READ_UNIT
            + (calls_of("SendMessageBatch", FAIL_ONCE) + 2) * _SQS_CALL
            + _LAMBDA_CALL
            + _LAMBDA_GB_S * _MEMORY_GB * _BATCH_S
            + logs(FAIL_ONCE)
        ),
    )


def main() -> None:
    messages = float(sys.argv[1])
    total = sum(dollars for _, dollars in a_message())
    lines = [(name, messages * dollars) for name, dollars in a_message()]
    lines.append((f"{messages:,.0f} messages of 1 KB, behind the function URL", messages * total))
    batched = sum(dollars for _, dollars in a_message(PUBLISH_THOUSAND, _API_THOUSAND_S, 1_000))
    lines.append(("  the same in batches of a thousand", messages * batched))
    lines += [(f"  more {name}", messages * dollars) for name, dollars in more()]
    lines.append(("  the same at QStash's pay-as-you-go price", messages * _QSTASH_MESSAGE))
    lines += list(a_month())
    lines.append(("a month without messages", sum(dollars for _, dollars in a_month())))
    for name, dollars in lines:
        print(f"{name:60} ${dollars:12,.2f}")


if __name__ == "__main__":
    main()
