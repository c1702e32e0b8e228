"""The CDK app: `npx cdk deploy`. Options are context values, which docs/deploy.md lists."""

from __future__ import annotations

import sys

from aws_cdk import App

from infra.options import OptionError, read_options
from infra.stack import WaypostStack

app = App()
try:
    options = read_options(app.node)
except OptionError as wrong:
    sys.exit(f"waypost: {wrong}")
WaypostStack(app, f"Waypost-{options.stage}", options=options)
app.synth()
