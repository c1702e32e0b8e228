from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.core.destination import host_of, read_destination
from waypost.core.errors import BadRequest
from waypost.core.guard import Guard


def read(raw: str, query: str = "") -> str:
    return read_destination(raw, query, Guard())[0]


@pytest.mark.parametrize(
    ("raw", "query", "url"),
    [
        ("https://example.com", "", "https://example.com"),
        ("https://example.com/a%20b/%C3%A9", "x=1&y=a/b%2Fc", "https://example.com/a%20b/%C3%A9?x=1&y=a/b%2Fc"),
        ("https://example.com//a//b", "", "https://example.com//a//b"),
        ("https://example.com/%2F%2f/..%2F", "", "https://example.com/%2F%2f/..%2F"),
        ("https:/example.com/p", "", "https://example.com/p"),
        ("http:/example.com", "", "http://example.com"),
        ("HTTPS://Example.com/P", "", "https://Example.com/P"),
        ("https%3A%2F%2Fexample.com%2Fp%3Fa%3Db", "", "https://example.com/p?a=b"),
        ("https%3a//example.com/p", "", "https://example.com/p"),
        ("https%3A%2F%2Fexample.com%2Fp%3Fa%3Db", "c=d", "https://example.com/p?a=b&c=d"),
        ("https://example.com/p", "a=1&qstash_token=secret&b=2", "https://example.com/p?a=1&b=2"),
        ("https%3A%2F%2Fexample.com%2Fp%3Fqstash_token%3Ds%26a%3D1%23frag", "b=2", "https://example.com/p?a=1&b=2"),
        ("https://example.com/p", "upstash-delay=1s&a=%20&Upstash-Retries=3", "https://example.com/p?a=%20"),
        ("https://example.com/p", "a&&b=", "https://example.com/p?a&&b="),
        ("https://example.com/p", "qstash%5Ftoken=x", "https://example.com/p"),
        ("https://example.com/caf\xe9", "", "https://example.com/caf%E9"),
        ("https%3A%2F%2Fexample.com%2Fa%0D%0Ab", "", "https://example.com/a%0D%0Ab"),
    ],
)
def test_the_destination_is_taken_raw(raw: str, query: str, url: str) -> None:
    assert read(raw, query) == url


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("example.com/p", "add http:// or https://"),
        ("ftp://example.com", "add http:// or https://"),
        ("my group", "add http:// or https://"),
        ("api/llm", "api destinations"),
        ("https://", "names no host"),
        ("https:///p", "names no host"),
        ("https://example.com:99999", "Port out of range"),
        ("https://example.com:0/", "port 0"),
        ("https://[::1/", "invalid destination url"),
        ("http://127.0.0.1/", "loopback"),
        ("http://localhost/", "loopback"),
        ("http://2130706433/", "loopback"),
        ("http://10.0.0.1/", "private"),
        ("http://169.254.169.254/latest", "metadata"),
        ("http://user@[::ffff:127.0.0.1]/", "loopback"),
    ],
)
def test_what_cannot_be_delivered_to_is_refused_in_words(raw: str, words: str) -> None:
    with pytest.raises(BadRequest, match="invalid destination url") as refused:
        read(raw)
    assert words.lower() in str(refused.value).lower()


@given(st.text(max_size=80), st.text(max_size=40))
def test_no_path_breaks_it_and_no_url_holds_a_control_character(raw: str, query: str) -> None:
    try:
        url = read("https://example.com/" + raw.encode("utf-8", "replace").decode("latin-1"), query)
    except BadRequest:
        return
    assert all("!" <= c <= "~" for c in url)


def test_hosts_are_compared_with_their_port() -> None:
    assert host_of("https://user:pw@Example.com:8443/a@b") == "example.com:8443"
