"""The service's four functions, each with a role that may do what it does and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import Duration
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from aws_cdk.aws_lambda_event_sources import SqsEventSource
from constructs import Construct

from infra.blobs import Blobs
from infra.function import allow, make_function
from infra.options import Options
from infra.queues import FAST, SLOW, Queues
from infra.table import Table
from infra.token import Token

_BATCH = 10
_READ, _WRITE = ("dynamodb:GetItem",), ("dynamodb:PutItem", "dynamodb:UpdateItem")
_ITEMS = (*_READ, *_WRITE)
_PAGES = ("dynamodb:BatchGetItem", "dynamodb:Query")
_DELETE, _MANY = ("dynamodb:DeleteItem",), ("dynamodb:BatchWriteItem",)
_Statements = Sequence[tuple[Sequence[str], Sequence[str]]]
#: Whoever stores a message, or sends one, lets in who may start.
_LANES: _Statements = (
    (_ITEMS, ("*#lane#*",)),
    (("dynamodb:Query", *_DELETE, *_MANY), ("*#line#*",)),
    (("dynamodb:PutItem",), ("*#lanes",)),
)
_DELIVER: _Statements = (
    (_ITEMS, ("m#*", "due#*", "*#dlq#*", "*#keys", "*#log#*", "cursor")),
    # What carries out an order goes through what is unfinished.
    (_PAGES, ("m#*", "due#*", "*#orders")),
    ((*_ITEMS, *_DELETE), ("*#orders",)),
    # What fires a schedule publishes.
    (_ITEMS, ("*#dedup#*", "*#schedules")),
    (_READ, ("*#groups",)),
    (_MANY, ("due#*",)),
    *_LANES,
)
#: By function: what it does to the table, and in which partitions.
_TABLE: Mapping[str, _Statements] = {
    "api": (
        (
            (*_ITEMS, *_PAGES),
            ("m#*", "due#*", "*#dedup#*", "*#dlq#*", "*#groups", "*#keys", "*#log#*", "*#orders", "cursor"),
        ),
        ((*_ITEMS, *_PAGES, *_DELETE), ("*#schedules",)),
        # A dead letter goes in one transaction with the message that comes in its place, whose keys may count for both.
        (_DELETE, ("m#*", "*#dlq#*", "*#groups", "*#orders")),
        (_MANY, ("m#*", "due#*")),
        *_LANES,
        (("dynamodb:Query",), ("*#lanes",)),
    ),
    "deliver": _DELIVER,
    "deliver-slow": _DELIVER,
    "tick": (
        ((*_ITEMS, *_PAGES, *_MANY), ("m#*", "due#*", "*#log#*", "cursor")),
        (_READ, ("*#orders", "*#schedules", "*#lane#*")),
        (_PAGES, ("*#line#*",)),
    ),
}


class Functions(Construct):
    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        code: lambda_.Code,
        table: Table,
        queues: Queues,
        blobs: Blobs,
        token: Token,
        options: Options,
    ) -> None:
        super().__init__(scope, name)
        self._code = code
        self._table = table.table
        self._queues = queues
        self._options = options
        self._environment = {
            **options.settings,
            "WAYPOST_STAGE": options.stage,
            "WAYPOST_TABLE": table.table.table_name,
            "WAYPOST_QUEUE_URL": queues.fast.queue_url,
            "WAYPOST_SLOW_QUEUE_URL": queues.slow.queue_url,
            "WAYPOST_BUCKET": blobs.bucket.bucket_name,
        }
        self.api = self._function("api", "on_http", Duration.seconds(29))
        self.api.add_environment("WAYPOST_TOKEN_SECRET", token.secret.secret_arn)
        allow(self.api, ["secretsmanager:GetSecretValue"], token.secret.secret_arn)
        self.deliver = self._function("deliver", "on_queue", FAST, rings_itself=True)
        self._hear(self.deliver, queues.fast, options.max_concurrency[0])
        self.deliver_slow = self._function("deliver-slow", "on_queue", SLOW, rings_itself=True)
        self._hear(self.deliver_slow, queues.slow, options.max_concurrency[1])
        for function in (self.deliver, self.deliver_slow) if options.llm_key_secret else ():
            function.add_environment("WAYPOST_LLM_KEY_SECRET", options.llm_key_secret)
            allow(function, ["secretsmanager:GetSecretValue"], options.llm_key_secret)
        self.tick = self._function("tick", "on_minute", Duration.seconds(300))
        allow(self.tick, ["sqs:GetQueueAttributes"], queues.fast.queue_arn, queues.slow.queue_arn)
        for function in (self.api, self.deliver, self.deliver_slow, self.tick):
            blobs.may_read(function)
            blobs.may_write(function)
        blobs.outlives(self)

    def _function(self, name: str, module: str, timeout: Duration, *, rings_itself: bool = False) -> lambda_.Function:
        function = make_function(
            self,
            name,
            code=self._code,
            module=module,
            timeout=timeout,
            environment=self._environment,
            log_retention_days=self._options.log_retention_days,
            rings_itself=rings_itself,
        )
        for actions, partitions in _TABLE[name]:
            allow(function, actions, self._table.table_arn, partitions=partitions)
        allow(function, ["sqs:SendMessage"], self._queues.fast.queue_arn, self._queues.slow.queue_arn)
        return function

    def _hear(self, function: lambda_.Function, queue: sqs.Queue, most: int) -> None:
        function.add_event_source(
            SqsEventSource(queue, batch_size=_BATCH, report_batch_item_failures=True, max_concurrency=most)
        )
