"""Bells on SQS: which queue, how late, how many at once, and what is said of those that were not taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

from contract.aws import MotoHarness
from waypost.core.ports import LONGEST_BELL_MS, Bell
from waypost.engines.aws.sqs import SqsDoorbell


class Queues:
    """Two queues, and every batch that was sent to them."""

    def __init__(self, harness: MotoHarness) -> None:
        self.client = harness.client("sqs")
        self.fast, self.slow = (
            self.client.create_queue(QueueName=f"{harness.name}-{name}")["QueueUrl"] for name in ("fast", "slow")
        )
        self.doorbell = SqsDoorbell(self.client, self.fast, self.slow, harness.threads)
        self.batches: list[dict[str, Any]] = []
        self.client.meta.events.register(
            "provide-client-params.sqs.SendMessageBatch", lambda params, **_: self.batches.append(params)
        )

    def ring(self, bells: Sequence[Bell]) -> int:
        return asyncio.run(self.doorbell.ring(bells))

    def backlog(self) -> int:
        return asyncio.run(self.doorbell.backlog())

    def sent(self, queue: str) -> dict[str, int]:
        """Delays in seconds by ref."""
        entries = [entry for batch in self.batches if batch["QueueUrl"] == queue for entry in batch["Entries"]]
        return {entry["MessageBody"]: entry["DelaySeconds"] for entry in entries}

    def answer(self, call: str, answer: Any) -> None:
        """From now on the wire brings this: an answer, or an error."""

        def send(**_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.client.meta.events.register_first(f"before-send.sqs.{call}", send)
        # Nobody waits between the tries.
        self.client.meta.events.register_first(
            f"needs-retry.sqs.{call}", lambda attempts, **_: 0 if attempts < 3 else False
        )


@pytest.fixture
def queues(tmp_path: Any) -> Iterator[Queues]:
    harness = MotoHarness(tmp_path)
    yield Queues(harness)
    harness.close()


@pytest.mark.parametrize(
    ("delay_ms", "seconds"),
    [(-5, 0), (0, 0), (1, 1), (1_000, 1), (1_001, 2), (899_001, 900), (LONGEST_BELL_MS, 900)],
)
def test_seconds_are_rounded_up(queues: Queues, delay_ms: int, seconds: int) -> None:
    assert queues.ring([Bell("a", delay_ms)]) == 0
    assert queues.sent(queues.fast) == {"a": seconds}


def test_a_bell_beyond_fifteen_minutes_is_not_taken(queues: Queues) -> None:
    assert queues.ring([Bell("far", LONGEST_BELL_MS + 1), Bell("near", 0)]) == 1
    assert queues.sent(queues.fast) == {"near": 0}


def test_bells_go_in_tens(queues: Queues) -> None:
    assert queues.ring([]) == 0
    assert queues.ring([Bell(str(n), 0) for n in range(23)]) == 0
    assert sorted(len(batch["Entries"]) for batch in queues.batches) == [3, 10, 10]
    assert set(queues.sent(queues.fast)) == {str(n) for n in range(23)}
    assert queues.backlog() == 23


def test_slow_destinations_have_a_queue_of_their_own(queues: Queues) -> None:
    assert queues.ring([Bell("unknown", 0), Bell("fast", 0, 60_000), Bell("slow", 2_000, 60_001)]) == 0
    assert set(queues.sent(queues.fast)) == {"unknown", "fast"}
    assert queues.sent(queues.slow) == {"slow": 2}
    [heard] = queues.client.receive_message(QueueUrl=queues.fast)["Messages"]
    assert heard["Body"] == "unknown"


def test_the_backlog_is_what_is_due_and_not_looked_at(queues: Queues) -> None:
    assert queues.backlog() == 0
    queues.ring([Bell("a", 0), Bell("b", 0), Bell("later", 60_000), Bell("slow", 0, 90_000)])
    assert queues.backlog() == 3
    queues.client.receive_message(QueueUrl=queues.fast)
    assert queues.backlog() == 2


def test_single_refusals_are_counted(queues: Queues) -> None:
    def refuse(parsed: dict[str, Any], **_: Any) -> None:
        parsed["Failed"] = [{"Id": one["Id"], "Code": "x", "SenderFault": False} for one in parsed["Successful"][:2]]

    queues.client.meta.events.register("after-call.sqs.SendMessageBatch", refuse)
    assert queues.ring([Bell(str(n), 0) for n in range(13)]) == 4


@pytest.mark.parametrize("lost", [ConnectionClosedError(endpoint_url="x"), EndpointConnectionError(endpoint_url="x")])
def test_whatever_fails_the_doorbell_never_raises(queues: Queues, lost: Exception) -> None:
    queues.answer("SendMessageBatch", lost)
    queues.answer("GetQueueAttributes", lost)
    assert queues.ring([Bell(str(n), 0) for n in range(13)]) == 13
    assert queues.backlog() == 0


def test_a_queue_that_is_gone_takes_nothing(queues: Queues) -> None:
    queues.client.delete_queue(QueueUrl=queues.slow)
    assert queues.ring([Bell("fast", 0), Bell("slow", 0, 90_000)]) == 1
    assert queues.backlog() == 0
