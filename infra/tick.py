"""The rule that ticks once a minute."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from constructs import Construct


class Tick(Construct):
    def __init__(self, scope: Construct, name: str, *, tick: lambda_.Function) -> None:
        super().__init__(scope, name)
        # A tick that failed is not repeated, neither by the rule nor by Lambda: the next one does its work.
        tick.configure_async_invoke(retry_attempts=0, max_event_age=Duration.minutes(1))
        target = targets.LambdaFunction(tick, retry_attempts=0, max_event_age=Duration.minutes(1))
        events.Rule(self, "Rule", schedule=events.Schedule.rate(Duration.minutes(1)), targets=[target])
