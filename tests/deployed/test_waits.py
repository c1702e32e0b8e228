"""The two long waits, against the deployed stack."""

from journey.test_waits import *  # noqa: F403
