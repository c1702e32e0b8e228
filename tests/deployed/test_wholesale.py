"""What ends other messages or their signatures, against the deployed stack, after all else."""

from journey.test_wholesale import *  # noqa: F403
