"""Providers of models and of e-mail are destinations like any; the operator's own model service is `api/llm`."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from qstash import QStash
from qstash.chat import custom
from qstash.errors import QStashError

from journey.harness import LLM_KEY, Client, JavaScript, SinkProcess

_CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("api", "provider", "path", "headers"),
    [
        ("llm", "openai", "/v1/chat/completions", {"Authorization": "Bearer provider-token"}),
        ("llm", "custom", "/v1/chat/completions", {"Authorization": "Bearer provider-token"}),
        ("llm", "anthropic", "/v1/messages", {"x-api-key": "provider-token", "anthropic-version": "2023-06-01"}),
        ("email", "resend", "/emails", {"Authorization": "Bearer provider-token"}),
    ],
)
def test_a_provider_gets_its_own_headers_and_its_answer_is_called_back(
    javascript: JavaScript, sink: SinkProcess, api: str, provider: str, path: str, headers: dict[str, str]
):
    place, told = sink.place("ok"), sink.place("ok")

    request = {"body": _CHAT, "callback": told.url}
    published = javascript("publishToProvider", api=api, provider=provider, baseUrl=place.url, request=request)

    [asked] = place.wait_for(1, 2)
    assert (asked.method, asked.target) == ("POST", place.prefix + path)
    assert json.loads(asked.body) == _CHAT
    assert asked.header("Content-Type") == "application/json"
    assert {name: asked.header(name) for name in headers} == headers
    [callback] = told.wait_for(1, 2)
    assert json.loads(callback.body)["sourceMessageId"] == published["messageId"]


def test_the_python_client_publishes_to_a_provider(python: QStash, sink: SinkProcess):
    place, told = sink.place("ok"), sink.place("ok")

    python.message.publish_json(
        api={"name": "llm", "provider": custom(place.url, "provider-token")}, body=_CHAT, callback=told.url
    )

    [asked] = place.wait_for(1, 2)
    assert asked.target == f"{place.prefix}/v1/chat/completions"
    assert asked.header("Authorization") == "Bearer provider-token"
    told.wait_for(1, 2)


def test_the_operators_model_service_is_asked_with_its_key(javascript: JavaScript, sink: SinkProcess, server: Client):
    told, mark = sink.place("ok"), uuid.uuid4().hex

    request: dict[str, Any] = {"body": {**_CHAT, "user": mark}, "callback": told.url}
    published = javascript("publishToProvider", api="llm", provider="upstash", request=request)

    [callback] = told.wait_for(1, 3)
    body = json.loads(callback.body)
    assert (body["api"], body["sourceMessageId"], body["status"]) == ("llm", published["messageId"], 200)
    [asked] = [one for one in sink.deliveries("/ok/llm/chat/completions") if mark in one.body.decode()]
    assert asked.header("Authorization") == f"Bearer {LLM_KEY}"
    assert server.message(published["messageId"])["api"] == "llm"
    assert LLM_KEY not in json.dumps(server.message(published["messageId"])) + callback.body.decode()


def test_chat_is_not_proxied(python: QStash, server: Client):
    reply = server.post("/llm/v1/chat/completions")

    assert reply.status == 404
    assert "publish to api/llm" in reply.json()["error"]
    with pytest.raises(QStashError, match="status: 400"):
        python.http.request(path="/v2/publish/api/llm", method="POST", body="{}")
