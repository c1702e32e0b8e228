from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from waypost.core.guard import Guard, canonical_host
from waypost.core.ids import place_of
from waypost.core.remembered import remembered
from waypost.core.settings import canonical
from waypost.core.signing import SigningKeys, sign
from waypost.engines.transport import _read_name, _read_url


def test_a_text_is_looked_at_once_unless_it_is_long() -> None:
    seen = []

    @remembered(longest=3)
    def look(text: str) -> int:
        seen.append(text)
        return len(text)

    assert [look(text) for text in ("abc", "abc", "abcd", "abcd")] == [3, 3, 4, 4]
    assert seen == ["abc", "abcd", "abcd"]


@pytest.mark.parametrize(
    "ask",
    [
        place_of,
        canonical,
        _read_name,
        lambda text: canonical_host("::1%" + text),
        Guard().refuse_host,
        lambda text: _read_url("http://a/" + text),
        lambda text: sign(SigningKeys("a", "b"), url=text, body=b"", now_ms=0, jti=""),
    ],
    ids=["id", "setting", "header", "host", "guard", "url", "signed url"],
)
def test_a_hostile_caller_fills_no_memory(ask: Callable[[str], object]) -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(50):
            ask(f"{number}" + "x" * 100_000)
        # The library's own, of 128 texts, is bounded by the length that a destination may have.
        urlsplit.cache_clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000
