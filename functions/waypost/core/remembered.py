"""What was found out about texts that callers choose, for the next time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def remembered(longest: int) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """A cache of what a function says of a text, unless the text is longer than so many characters: a bound on the
    number of texts alone would let a hostile caller choose how much memory they take."""

    def around(function: Callable[[str], T]) -> Callable[[str], T]:
        kept = functools.lru_cache(maxsize=1024)(function)

        @functools.wraps(function)
        def call(text: str) -> T:
            return kept(text) if len(text) <= longest else function(text)

        return call

    return around
