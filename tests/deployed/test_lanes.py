"""Queues and flow-control keys, against the deployed stack."""

from journey.test_lanes import *  # noqa: F403
