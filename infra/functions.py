"""Four functions of one bundle, each with a role that may do what it does and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from aws_cdk.aws_lambda_event_sources import SqsEventSource
from constructs import Construct

from infra.blobs import Blobs
from infra.queues import FAST, SLOW, Queues
from infra.table import Table
from infra.token import Token

_BATCH = 10
#: What of CloudWatch's choice of days is offered.
_RETENTION = {
    1: logs.RetentionDays.ONE_DAY,
    3: logs.RetentionDays.THREE_DAYS,
    7: logs.RetentionDays.ONE_WEEK,
    14: logs.RetentionDays.TWO_WEEKS,
    30: logs.RetentionDays.ONE_MONTH,
    90: logs.RetentionDays.THREE_MONTHS,
    365: logs.RetentionDays.ONE_YEAR,
}
_READ = ("dynamodb:GetItem", "dynamodb:BatchGetItem")
_WRITE = ("dynamodb:PutItem", "dynamodb:UpdateItem")
_DELIVER = ((*_READ, *_WRITE), ("m#*", "due#*", "*#dlq#*", "*#keys"))
#: By function: what it does to the table, and in which partitions.
_TABLE: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "api": ((*_READ, *_WRITE), ("m#*", "due#*", "*#dedup#*", "*#keys", "cursor")),
    "deliver": _DELIVER,
    "deliver-slow": _DELIVER,
    "tick": (
        (*_READ, *_WRITE, "dynamodb:Query", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem"),
        ("m#*", "due#*", "cursor"),
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
        settings: Mapping[str, str],
        log_retention_days: int,
        concurrency: tuple[int, int],
    ) -> None:
        super().__init__(scope, name)
        self._code = code
        self._table = table.table
        self._queues = queues
        if log_retention_days not in _RETENTION:
            raise ValueError(f"log_retention_days is {log_retention_days}, it must be one of {[*_RETENTION]}")
        self._log_retention = _RETENTION[log_retention_days]
        self._environment = {
            "WAYPOST_TABLE": table.table.table_name,
            "WAYPOST_QUEUE_URL": queues.fast.queue_url,
            "WAYPOST_SLOW_QUEUE_URL": queues.slow.queue_url,
            "WAYPOST_BUCKET": blobs.bucket.bucket_name,
            **settings,
        }
        objects = blobs.bucket.arn_for_objects("*")
        self.api = self._function("api", "on_http", Duration.seconds(29))
        self.api.add_environment("WAYPOST_TOKEN_SECRET", token.secret.secret_arn)
        _allow(self.api, ["secretsmanager:GetSecretValue"], token.secret.secret_arn)
        _allow(self.api, ["s3:GetObject", "s3:PutObject"], objects)
        self.deliver = self._function("deliver", "on_queue", FAST)
        self.deliver_slow = self._function("deliver-slow", "on_queue", SLOW)
        for function, queue, most in (
            (self.deliver, queues.fast, concurrency[0]),
            (self.deliver_slow, queues.slow, concurrency[1]),
        ):
            _allow(function, ["s3:GetObject"], objects)
            self._hear(function, queue, most)
        self.tick = self._function("tick", "on_minute", Duration.seconds(300))
        _allow(self.tick, ["s3:GetObject", "s3:PutObject"], objects)
        _allow(self.tick, ["sqs:GetQueueAttributes"], queues.fast.queue_arn, queues.slow.queue_arn)

    def _function(self, name: str, module: str, timeout: Duration) -> lambda_.Function:
        group = logs.LogGroup(self, f"{name}-log", retention=self._log_retention, removal_policy=RemovalPolicy.DESTROY)
        role = iam.Role(self, f"{name}-role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        function = lambda_.Function(
            self,
            name,
            code=self._code,
            handler=f"waypost.{module}.handler",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            memory_size=512,
            timeout=timeout,
            log_group=group,
            role=role,
            environment={
                **self._environment,
                "POWERTOOLS_SERVICE_NAME": name,
                "POWERTOOLS_METRICS_NAMESPACE": "Waypost",
            },
        )
        actions, partitions = _TABLE[name]
        role.add_to_policy(
            iam.PolicyStatement(
                actions=list(actions),
                resources=[self._table.table_arn],
                conditions={"ForAllValues:StringLike": {"dynamodb:LeadingKeys": list(partitions)}},
            )
        )
        _allow(function, ["sqs:SendMessage"], self._queues.fast.queue_arn, self._queues.slow.queue_arn)
        _allow(function, ["logs:CreateLogStream", "logs:PutLogEvents"], group.log_group_arn)
        return function

    def _hear(self, function: lambda_.Function, queue: sqs.Queue, most: int) -> None:
        function.add_event_source(
            SqsEventSource(queue, batch_size=_BATCH, report_batch_item_failures=True, max_concurrency=most)
        )


def _allow(function: lambda_.Function, actions: Sequence[str], *resources: str) -> None:
    function.add_to_role_policy(iam.PolicyStatement(actions=list(actions), resources=list(resources)))
