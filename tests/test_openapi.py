"""The API described: as a document, as a page to read, and its limits in docs/limits.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from support import Desk, with_desk
from waypost import __version__
from waypost.api import ROUTES
from waypost.call import Reply
from waypost.core import limits
from waypost.core.policy import DAY, SECOND, Policy
from waypost.on_http import written
from waypost.openapi import document as module
from waypost.openapi.document import document
from waypost.openapi.limit_table import markdown
from waypost.openapi.page import page

ROOT = Path(__file__).parents[1]


class Loads(HTMLParser):
    """What a page would fetch, run, or lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.targets: set[str] = set()
        self.ids: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "href":
                self.targets.add(str(value))
            if name == "id":
                self.ids.add(str(value))


def test_the_document_is_openapi_and_names_what_is_served_alone() -> None:
    described = document(Policy())
    validate(described)
    assert described["openapi"].startswith("3.1")
    served = {(route.method, route.template) for route in ROUTES if route.handle}
    assert {(m.upper(), path) for path, methods in described["paths"].items() for m in methods} == served
    assert not any(path.startswith(("/v2/workflows", "/v2/trigger")) for path in described["paths"])
    assert described["info"]["version"] == __version__
    assert re.findall(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == __version__


@pytest.mark.parametrize("changed", [lambda routes: routes[1:], lambda routes: [*routes, replaced(routes[0])]])
def test_a_route_without_a_description_and_one_without_a_route_are_errors(
    monkeypatch: pytest.MonkeyPatch, changed: Callable[[Any], Any]
) -> None:
    monkeypatch.setattr(module, "ROUTES", changed(ROUTES))
    with pytest.raises(ValueError, match="/v2/"):
        document(Policy())


def replaced(route: Any) -> Any:
    return type(route)("PUT", "/v2/new", route.pattern, route.handle)


def test_the_figures_are_those_of_the_server() -> None:
    own = Policy(max_retries=7, max_delay_ms=3 * DAY, max_timeout_ms=77 * SECOND, default_retries=2, max_body=4_321)
    text = json.dumps(document(own))
    for figure in ("7 at most. Default: 2", "at most 3d", "at most 1m17s", "4,321"):
        assert figure in text
    retries = next(
        one
        for one in document(own)["paths"]["/v2/publish/{destination}"]["post"]["parameters"]
        if one["name"] == "Upstash-Retries"
    )
    pattern = re.compile(retries["schema"]["pattern"])
    assert [n for n in range(1000) if pattern.search(str(n))] == list(range(8))


@pytest.mark.parametrize("most", [0, 7, 10, 99, 100, 235, 1000])
def test_a_pattern_says_how_many_retries_there_may_be(most: int) -> None:
    parameters = document(Policy(max_retries=most))["paths"]["/v2/dlq/retry"]["post"]["parameters"]
    (schema,) = [one["schema"] for one in parameters if one["name"] == "Upstash-Retries"]
    assert [n for n in range(2000) if re.search(schema["pattern"], str(n))] == list(range(most + 1))
    assert re.search(schema["pattern"], f"{most:015d}")
    assert not re.search(schema["pattern"], f"{most:016d}")


def test_both_are_there_without_a_token(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        for method in ("GET", "HEAD"):
            reply = await desk.call(method, "/openapi.json", token=None)
            assert (reply.status, reply.media_type) == (200, "application/json")
            assert json.loads(reply.body()) == json.loads(json.dumps(document(desk.policy)))
            reply = await desk.call(method, "/docs", token=None)
            assert (reply.status, reply.media_type) == (200, "text/html; charset=utf-8")
            assert reply.body().startswith(b"<!doctype html>")
        reply = await desk.call("POST", "/docs", token=None)
        assert (reply.status, dict(reply.headers)) == (405, {"allow": "GET, HEAD"})

    with_desk(tmp_path, test)


def test_a_function_answers_with_the_page_as_html() -> None:
    answer = written(Reply(200, b"<p>caf\xc3\xa9", [("x", "y")], "text/html; charset=utf-8"))
    assert answer["headers"] == {"content-type": "text/html; charset=utf-8", "x": "y"}
    assert answer["body"] == "<p>caf\u00e9"


def test_the_page_loads_nothing_and_leads_nowhere_else(tmp_path: Path) -> None:
    async def test(desk: Desk) -> Reply:
        return await desk.call("GET", "/docs", token=None)

    reply = with_desk(tmp_path, test)
    text = reply.body().decode()
    loads = Loads(text)
    assert loads.tags.isdisjoint(
        {"script", "link", "img", "iframe", "object", "embed", "base", "form", "video", "audio"}
    )
    assert loads.attributes.isdisjoint({"src", "srcset", "style", "action", "data", "poster"})
    assert {target for target in loads.targets if not target.startswith("#")} == {"openapi.json"}
    assert {target[1:] for target in loads.targets if target.startswith("#")} <= loads.ids
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    policy = dict(reply.headers)["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_page_tells_of_each_route_field_and_limit() -> None:
    text = page(Policy()).decode()
    described = document(Policy())
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert f'<span class="method">{method.upper()}</span> {path}</code></h3>' in text
            assert operation["summary"] in text
            for parameter in operation.get("parameters", ()):
                assert f"<code>{parameter['name']}</code>" in text
    for name in described["components"]["schemas"]:
        assert f'id="body-{name.lower()}"' in text
    assert "curl -X POST &#34;$QSTASH_URL/v2/publish/https://example.com/hook&#34;" in text
    assert "WAYPOST_MAX_BODY" in text


def test_docs_limits_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "limits.md").read_text() == markdown(Policy()), "run `make docs`"


@pytest.mark.parametrize("name", [name for name in vars(limits) if name.isupper() and name not in ("DAY", "MINUTE")])
def test_every_fixed_limit_is_in_the_table(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = markdown(Policy())
    monkeypatch.setattr(limits, name, 987_654_000)
    assert markdown(Policy()) != before


#: Settings that are no limits.
_NO_LIMITS = ("WAYPOST_BACKOFF", "WAYPOST_REGION")


def test_every_setting_that_limits_is_in_the_table() -> None:
    settings = {f.metadata["setting"] for f in Policy.__dataclass_fields__.values() if "setting" in f.metadata}
    assert settings.difference(_NO_LIMITS) == {s for s in settings if f"`{s}`" in markdown(Policy())}
