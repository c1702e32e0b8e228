from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.core.policy import DAY, HOUR, MINUTE, SECOND
from waypost.core.ports import Answer, NoAnswer
from waypost.core.retry import Delivered, GiveUp, RetryAt, after_attempt, backoff_ms, parse_retry_after
from waypost.core.terms import Terms

NOW = 1_790_000_000_000  # Mon, 21 Sep 2026 14:13:20 GMT


def after(outcome: Answer | NoAnswer, retried: int = 0, retries: int = 3) -> Delivered | RetryAt | GiveUp:
    terms = Terms("POST", (), retries, timeout_ms=60_000)
    return after_attempt(outcome, terms, retried=retried, backoff="standard", now_ms=NOW)


def test_the_waits_are_10_s_30_s_1_min_2_min_then_double_to_a_day() -> None:
    waits = [backoff_ms("standard", retried) for retried in range(16)]
    assert waits[:6] == [10 * SECOND, 30 * SECOND, MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE]
    assert waits[12:] == [1024 * MINUTE, DAY, DAY, DAY]
    assert backoff_ms("standard", 10_000) == DAY


def test_qstashs_waits_are_powers_of_e() -> None:
    waits = [backoff_ms("qstash", retried) for retried in range(6)]
    # e^2.5 = 12.18 s, e^5 = 148.4 s, e^7.5 = 1808 s, e^10 = 22026 s, then a day
    assert [round(w / SECOND) for w in waits] == [12, 148, 1808, 22026, 86400, 86400]


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    assert after(Answer(status, (), b"")) == Delivered()


@pytest.mark.parametrize("status", [300, 301, 302, 307, 400, 404, 408, 429, 489, 500, 503, 599])
def test_anything_else_is_retried(status: int) -> None:
    assert after(Answer(status, (), b"")) == RetryAt(NOW + 10 * SECOND)


def test_no_answer_is_retried_until_the_retries_are_used_up() -> None:
    assert after(NoAnswer("refused"), retried=2) == RetryAt(NOW + MINUTE)
    assert after(NoAnswer("refused"), retried=3) == GiveUp()
    assert after(NoAnswer("refused"), retries=0) == GiveUp()


def test_489_ends_it_only_together_with_its_header() -> None:
    both = Answer(489, (("upstash-nonretryable-error", "True"),), b"")
    assert after(both) == GiveUp()
    assert after(Answer(489, (), b"")) == RetryAt(NOW + 10 * SECOND)
    assert after(Answer(500, both.headers, b"")) == RetryAt(NOW + 10 * SECOND)


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("0", 0),
        ("120", 120 * SECOND),
        ("6m5s", 365 * SECOND),
        ("1h30m", 90 * MINUTE),
        ("1.5s", 1500),
        ("250ms", 250),
        ("10us", 1),
        ("Mon, 21 Sep 2026 14:14:20 GMT", MINUTE),
        ("Mon, 21 Sep 2026 14:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("1.5", None),
    ],
)
def test_retry_after_is_seconds_a_date_or_a_go_duration(text: str, wait: int | None) -> None:
    assert parse_retry_after(text, NOW) == wait


@given(st.text(max_size=60))
def test_no_text_of_a_destination_breaks_it(text: str) -> None:
    wait = parse_retry_after(text, NOW)
    assert wait is None or wait >= 0


def test_the_first_of_the_four_headers_that_can_be_used_wins() -> None:
    def wait(*headers: tuple[str, str]) -> object:
        return after(Answer(429, headers, b""))

    assert wait(("retry-after", "7")) == RetryAt(NOW + 7 * SECOND)
    assert wait(("x-ratelimit-reset", "9"), ("retry-after", "7")) == RetryAt(NOW + 7 * SECOND)
    assert wait(("x-ratelimit-reset-tokens", "3s"), ("x-ratelimit-reset-requests", "2s")) == RetryAt(NOW + 2 * SECOND)
    assert wait(("retry-after", "0")) == RetryAt(NOW)
    # beyond a day, or not to be read: the next header, then the usual wait
    assert wait(("retry-after", "86401"), ("x-ratelimit-reset", "5")) == RetryAt(NOW + 5 * SECOND)
    assert wait(("retry-after", "25h")) == RetryAt(NOW + 10 * SECOND)
    assert wait(("retry-after", "24h")) == RetryAt(NOW + 24 * HOUR)
