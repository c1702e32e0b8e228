"""What an operator must hear of: a tick that stopped, and bells that nobody could hear."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infra.queues import Queues


class Alarms(Construct):
    def __init__(self, scope: Construct, name: str, *, queues: Queues) -> None:
        super().__init__(scope, name)
        ticks = cloudwatch.Metric(
            namespace="Waypost",
            metric_name="Ticks",
            dimensions_map={"service": "tick"},
            statistic="Sum",
            period=Duration.minutes(1),
        )
        cloudwatch.Alarm(
            self,
            "NoTick",
            alarm_description="The tick stopped: lost bells and long delays wait until it runs again.",
            metric=ticks,
            threshold=1,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            evaluation_periods=5,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )
        cloudwatch.Alarm(
            self,
            "DeadBells",
            alarm_description="A function failed five times on one bell: its log says why.",
            metric=queues.dead.metric_approximate_number_of_messages_visible(period=Duration.minutes(1)),
            threshold=1,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
