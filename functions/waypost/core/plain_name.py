"""Names that stand in a path as they are: of URL groups, queues and schedules."""

from __future__ import annotations

import functools
import re


def pattern_of(longest: int) -> str:
    """Clients leave `.` and `..` out of a path."""
    return rf"(?!\.\.?$)[A-Za-z0-9_.-]{{1,{longest}}}"


def is_plain(text: str, longest: int) -> bool:
    return _compiled(longest).fullmatch(text) is not None


@functools.cache
def _compiled(longest: int) -> re.Pattern[str]:
    return re.compile(pattern_of(longest))


def remedy(longest: int) -> str:
    """What to do about a text that is none."""
    return f"write letters, digits, -, _ and ., at most {longest} of them, and not . or .. alone"
