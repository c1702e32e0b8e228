"""`api/llm`: the model service that the operator has set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import Desk, with_desk
from waypost.core.llm import KeyMissing, Llm
from waypost.core.ports import Answer
from waypost.local.settings import read_local_settings
from waypost.wiring import SettingError, read_llm_url

URL = "https://models.example/v1/chat/completions"
LLM = Llm(URL, lambda: "the-key")
PATH = "/v2/publish/api/llm"
CALLBACK = {"Upstash-Callback": "https://example.com/told", "Content-Type": "application/json"}


def test_it_goes_to_the_service_with_its_key_and_answers_to_the_callback(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        desk.sender.answers = [Answer(200, (("content-type", "application/json"),), b'{"choices": []}')]
        reply = await desk.call("POST", PATH, CALLBACK, b'{"model": "m"}')
        assert reply.status == 201
        message_id = reply.content["messageId"]
        await desk.deliver()
        await desk.deliver()
        asked, told = desk.sender.sent
        assert (asked.method, asked.url, asked.body) == ("POST", URL, b'{"model": "m"}')
        assert dict(asked.headers)["Authorization"] == "Bearer the-key"
        assert told.url == "https://example.com/told"
        body = json.loads(told.body)
        assert (body["api"], body["sourceMessageId"], body["status"]) == ("llm", message_id, 200)
        # Nobody who reads what is stored sees the key.
        shown = await desk.call("GET", f"/v2/messages/{message_id}")
        events = await desk.call("GET", "/v2/events", query=f"messageId={message_id}")
        assert shown.content["api"] == "llm"
        assert b"the-key" not in shown.body() + events.body() + told.body

    with_desk(tmp_path, test, llm=LLM)


def test_its_slash_may_be_escaped(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        assert (await desk.call("POST", "/v2/publish/api%2Fllm", CALLBACK, b"{}")).status == 201

    with_desk(tmp_path, test, llm=LLM)


def test_a_key_of_the_publishers_own_wins(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.call("POST", PATH, CALLBACK | {"Upstash-Forward-Authorization": "Bearer mine"}, b"{}")
        await desk.deliver()
        assert [v for name, v in desk.sender.sent[0].headers if name == "Authorization"] == ["Bearer mine"]

    with_desk(tmp_path, test, llm=LLM)


def test_a_service_without_a_key_gets_none(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.call("POST", PATH, CALLBACK, b"{}")
        await desk.deliver()
        assert "Authorization" not in dict(desk.sender.sent[0].headers)

    with_desk(tmp_path, test, llm=Llm(URL))


def test_no_other_url_gets_the_key(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.call("POST", f"/v2/publish/{URL}", {}, b"{}")
        await desk.deliver()
        assert "Authorization" not in dict(desk.sender.sent[0].headers)
        # Nor does what was accepted for a service that was set before.
        await desk.call("POST", PATH, CALLBACK, b"{}")
        desk.service.deliverer._llm = Llm("https://other.example/v1/chat/completions", lambda: "other-key")
        await desk.deliver()
        assert "Authorization" not in dict(desk.sender.sent[-1].headers)

    with_desk(tmp_path, test, llm=LLM)


def test_a_dead_letters_retry_has_the_key_too(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        desk.sender.answers = [Answer(500, (), b"")]
        await desk.call("POST", PATH, CALLBACK | {"Upstash-Retries": "0"}, b"{}")
        await desk.deliver()
        assert (await desk.call("POST", "/v2/dlq/retry", query="api=llm")).status == 201
        desk.sender.sent.clear()
        await desk.deliver()
        [again] = [one for one in desk.sender.sent if one.url == URL]
        assert dict(again.headers)["Authorization"] == "Bearer the-key"

    with_desk(tmp_path, test, llm=LLM)


def test_in_a_batch(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        item = {"destination": "api/llm", "headers": {"upstash-callback": "https://example.com/told"}, "body": "{}"}
        reply = await desk.call("POST", "/v2/batch", body=json.dumps([item]).encode())
        assert reply.status == 201
        await desk.deliver()
        assert desk.sender.sent[0].url == URL

    with_desk(tmp_path, test, llm=LLM)


@pytest.mark.parametrize(
    ("llm", "headers", "words"),
    [(LLM, {}, "Upstash-Callback is missing"), (Llm(), CALLBACK, "the setting WAYPOST_LLM_URL names one")],
)
def test_what_is_missing_is_named(tmp_path: Path, llm: Llm, headers: dict[str, str], words: str) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", PATH, headers, b"{}")
        assert reply.status == 400
        assert words in reply.content["error"]
        assert desk.rung.bells == []

    with_desk(tmp_path, test, llm=llm)


def test_the_base_url_is_checked_as_destinations_are() -> None:
    assert read_llm_url({"WAYPOST_LLM_URL": "https://api.openai.com/v1/"}, ()) == (
        "https://api.openai.com/v1/chat/completions"
    )
    assert read_llm_url({}, ()) == ""
    queries = ("https://a.example/v1?version=1", "https://a.example/v1#x", "https://user:key@a.example/v1")
    for wrong in ("api.openai.com", "http://127.0.0.1:11434/v1", *queries):
        with pytest.raises(SettingError, match="WAYPOST_LLM_URL"):
            read_llm_url({"WAYPOST_LLM_URL": wrong}, ())
    local = read_local_settings({"WAYPOST_LLM_URL": "http://127.0.0.1:11434/v1", "WAYPOST_LLM_KEY": " k "})
    assert (local.llm.url, local.llm.key()) == ("http://127.0.0.1:11434/v1/chat/completions", "k")
    with pytest.raises(SettingError, match="WAYPOST_LLM_KEY"):
        read_local_settings({"WAYPOST_LLM_KEY": "ü"})


def test_a_key_that_cannot_be_read_fails_the_attempt_which_is_tried_again_and_told_of(tmp_path: Path) -> None:
    def unreadable() -> str:
        raise KeyMissing("the model service's key can't be read")

    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", PATH, CALLBACK | {"Upstash-Retries": "0"}, b"{}")
        await desk.deliver()
        seen = await desk.seen(reply.content["messageId"])
        assert (seen["state"], seen["error"]) == ("FAILED", "the model service's key can't be read")

    with_desk(tmp_path, test, llm=Llm(URL, unreadable))
