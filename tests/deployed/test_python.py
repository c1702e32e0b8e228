"""The official Python client's journeys, unchanged, against the deployed stack."""

from journey.test_python import *  # noqa: F403
