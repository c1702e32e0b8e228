from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.core.duration import parse_duration, show_duration


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0s", 0),
        ("20s", 20_000),
        ("3m", 180_000),
        ("1d10h30m", (24 + 10) * 3_600_000 + 1_800_000),
        ("1.5s", 1_500),
        ("500ms", 500),
        ("60", 60_000),
        (" 2H ", 7_200_000),
        ("", None),
        ("s", None),
        ("5x", None),
        ("-5s", None),
        ("1e3s", None),
        ("5s ago", None),
        ("٣s", None),
    ],
)
def test_durations(text: str, ms: int | None) -> None:
    assert parse_duration(text) == ms


@given(st.integers(0, 10**12))
def test_what_is_shown_reads_back(ms: int) -> None:
    assert parse_duration(show_duration(ms)) == ms


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    ms = parse_duration(text)
    assert ms is None or ms >= 0
