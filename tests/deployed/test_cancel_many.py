"""Cancelling many messages, against the deployed stack."""

from journey.test_cancel_many import *  # noqa: F403
