"""Two queues of bells, so that a slow endpoint can't hold fast messages, and one for bells that nobody could hear."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_sqs as sqs
from constructs import Construct

#: The functions' timeouts. A queue hides a bell for as long: a shorter time would hand it to a second worker.
FAST = Duration.seconds(120)
SLOW = Duration.seconds(900)


class Queues(Construct):
    def __init__(self, scope: Construct, name: str) -> None:
        super().__init__(scope, name)
        self.dead = sqs.Queue(self, "Dead", retention_period=Duration.days(14), enforce_ssl=True)
        self.fast = self._queue("Fast", FAST)
        self.slow = self._queue("Slow", SLOW)

    def _queue(self, name: str, hidden: Duration) -> sqs.Queue:
        return sqs.Queue(
            self,
            name,
            visibility_timeout=hidden,
            retention_period=Duration.days(4),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead, max_receive_count=5),
        )
