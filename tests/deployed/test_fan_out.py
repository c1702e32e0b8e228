"""A thousand messages of one request, against the deployed stack."""

from journey.test_fan_out import *  # noqa: F403
