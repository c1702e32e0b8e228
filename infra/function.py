"""A function of the one bundle, with a log group and a role of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

#: CloudWatch takes some numbers of days only.
_RETENTION = {
    1: logs.RetentionDays.ONE_DAY,
    3: logs.RetentionDays.THREE_DAYS,
    7: logs.RetentionDays.ONE_WEEK,
    14: logs.RetentionDays.TWO_WEEKS,
    30: logs.RetentionDays.ONE_MONTH,
    90: logs.RetentionDays.THREE_MONTHS,
    365: logs.RetentionDays.ONE_YEAR,
}


def make_function(
    scope: Construct,
    name: str,
    *,
    code: lambda_.Code,
    module: str,
    timeout: Duration,
    environment: Mapping[str, str],
    log_retention_days: int,
    rings_itself: bool = False,
) -> lambda_.Function:
    """It may write its log, and nothing else until `allow` says so. `rings_itself`: it sends to the queue that calls
    it, each time for a reason that ends; Lambda would take a chain of short retries for a loop without end."""
    group = logs.LogGroup(
        scope, f"{name}-log", retention=_RETENTION[log_retention_days], removal_policy=RemovalPolicy.DESTROY
    )
    role = iam.Role(scope, f"{name}-role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    function = lambda_.Function(
        scope,
        name,
        code=code,
        handler=f"waypost.{module}.handler",
        runtime=lambda_.Runtime.PYTHON_3_13,
        architecture=lambda_.Architecture.ARM_64,
        memory_size=512,
        timeout=timeout,
        log_group=group,
        # Lambda's own lines about each call cost more than ours; what they say is in its metrics too.
        logging_format=lambda_.LoggingFormat.JSON,
        system_log_level_v2=lambda_.SystemLogLevel.WARN,
        role=role,
        recursive_loop=lambda_.RecursiveLoop.ALLOW if rings_itself else None,
        environment={**environment, "WAYPOST_FUNCTION": name},
    )
    allow(function, ["logs:CreateLogStream", "logs:PutLogEvents"], group.log_group_arn)
    return function


def allow(function: lambda_.Function, actions: Sequence[str], *resources: str, partitions: Sequence[str] = ()) -> None:
    """`partitions`: the only ones of a table that may be touched; patterns."""
    conditions = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": list(partitions)}} if partitions else None
    function.add_to_role_policy(
        iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=conditions)
    )
