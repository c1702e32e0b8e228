"""The CDK app: `npx cdk deploy`. Options are context values, which docs/deploy.md lists."""

from __future__ import annotations

from aws_cdk import App

from infra.stack import WaypostStack

app = App()
stage = app.node.try_get_context("stage") or "dev"
WaypostStack(app, f"Waypost-{stage}", stage=stage)
app.synth()
