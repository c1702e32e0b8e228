"""Callbacks, labels and redaction, against the deployed stack."""

from journey.test_callbacks import *  # noqa: F403
