"""What an operator must hear of: a tick that stopped, and bells that nobody could hear."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sns as sns
from aws_cdk.aws_cloudwatch_actions import SnsAction
from constructs import Construct

from infra.options import Options
from infra.queues import Queues


class Alarms(Construct):
    def __init__(self, scope: Construct, name: str, *, queues: Queues, options: Options) -> None:
        super().__init__(scope, name)
        ticks = cloudwatch.Metric(
            namespace="Waypost",
            metric_name="Ticks",
            dimensions_map={"stage": options.stage},
            statistic="Sum",
            period=Duration.minutes(1),
        )
        no_tick = cloudwatch.Alarm(
            self,
            "NoTick",
            alarm_description="The tick stopped: lost bells and long delays wait until it runs again.",
            metric=ticks,
            threshold=1,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            evaluation_periods=5,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )
        dead_bells = cloudwatch.Alarm(
            self,
            "DeadBells",
            alarm_description="A bell was received five times and never done: the deliver functions failed (their logs"
            " say why) or were throttled. Its message is not lost. Purge the queue of dead bells to end this.",
            metric=queues.dead.metric_approximate_number_of_messages_visible(period=Duration.minutes(1)),
            threshold=1,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        if options.alarm_topic:
            action = SnsAction(sns.Topic.from_topic_arn(self, "Topic", options.alarm_topic))
            for alarm in (no_tick, dead_bells):
                alarm.add_alarm_action(action)
                alarm.add_ok_action(action)
