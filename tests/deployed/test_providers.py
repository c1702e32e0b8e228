"""Models and other providers, against the deployed stack."""

from journey.test_providers import *  # noqa: F403
