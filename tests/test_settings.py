"""What each setting makes of a message, told from what is read back, sent, and called back."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import PUBLISH, Desk, with_desk
from waypost.core.expression import ExpressionError, check_expression, evaluate
from waypost.core.guard import Guard
from waypost.core.policy import DAY, SECOND, Policy
from waypost.core.ports import Answer, Busy, NoAnswer
from waypost.core.settings import Asked, read_settings

CALLBACK = "https://example.com/cb?tag=1"
FAILED = Answer(500, (("content-type", "text/plain"), ("x-trace", "1"), ("x-trace", "2")), b"broken")


# Expressions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "retried", "expected"),
    [
        ("1000", 0, 1000),
        ("7000 * retried", 2, 14_000),
        ("pow(2, retried) * 1000", 3, 8_000),
        ("max(1000, min(5000, retried * 2000))", 1, 2_000),
        ("floor(1.9) + ceil(1.1) + round(2.5) + abs(-4) + sqrt(16) + exp(0)", 0, 15),
        ("-5", 0, 0),
        ("sqrt(-1)", 0, 0),
        ("0/0", 0, 0),
        ("1000 / retried", 0, DAY),
        ("pow(9, pow(9, 9))", 0, DAY),
        ("1e400", 0, DAY),
        ("9" * 250, 0, DAY),
        ("10 % 4", 0, 2),
        (" ( 1 + 2 ) * 1000 ", 0, 3_000),
    ],
)
def test_an_expression_is_a_wait_of_at_most_a_day(text: str, retried: int, expected: int) -> None:
    check_expression(text)
    assert evaluate(text, retried, DAY) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "2 ** 9", "retried.x", "[1][0]", "lambda: 1", "f'{retried}'", "True", "'1'", "1 if retried else 2"),
        *("pow(1)", "min()", "pow(x=1, y=2)", "-" * 40 + "1", "1" * 300, "open('x')", "a", "1;2"),
        *("pow(*retried)", "abs((1))(2)", "\x00", "(" * 250),
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        check_expression(text)


@given(st.text(alphabet="0123456789.+-*/%(), retidpowxsqabfluncm", max_size=40), st.integers(0, 100))
def test_any_text_is_a_wait_or_refused(text: str, retried: int) -> None:
    try:
        check_expression(text)
    except ExpressionError:
        return
    assert 0 <= evaluate(text, retried, DAY) <= DAY


# Waits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"Upstash-Retry-Delay": "1000 * (1 + retried)"}, [1_000, 2_000, 3_000]),
        ({"Upstash-Backoff": "exponential"}, [10_000, 20_000, 40_000]),
        ({"Upstash-Backoff": "Fixed"}, [10_000, 10_000, 10_000]),
    ],
)
def test_the_waits_before_retries_are_those_that_were_chosen(
    tmp_path: Path, headers: dict[str, str], waits: list[int]
) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish(headers)
        for wait in waits:
            desk.sender.answers.append(FAILED)
            await desk.deliver()
            assert (await desk.seen(message_id))["nextDeliveryTime"] == desk.clock.ms + wait

    with_desk(tmp_path, test)


def test_one_wait_is_chosen_not_two(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        for backoff in ("fixed", "exponential"):
            reply = await desk.call("POST", PUBLISH, {"Upstash-Backoff": backoff, "Upstash-Retry-Delay": "1000"})
            assert reply.status == 400
            assert "Upstash-Retry-Delay and Upstash-Backoff" in reply.content["error"]

    with_desk(tmp_path, test)


def test_a_delay_may_be_shorter_than_a_second(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish({"Upstash-Delay": "500ms"})
        assert [bell.delay_ms for bell in desk.rung.bells] == [500]

    with_desk(tmp_path, test)


# What is forwarded ---------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=3))
def test_forwarded_headers_arrive_byte_for_byte(values: list[bytes]) -> None:
    clean = [bytes(byte for byte in value if byte > 31 and byte != 127).strip(b" \t") for value in values]
    given = [("Upstash-Forward-X", one.decode("latin-1")) for one in clean]
    asked = Asked("one", "", 0, "https://example.com/in")
    request = read_settings(given, [], asked, policy=Policy(), guard=Guard([]))
    assert dict(request.terms.headers)["X"].encode("latin-1") == b", ".join(clean)


def test_what_belongs_to_the_caller_s_connection_is_not_forwarded(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish(
            {
                "Upstash-Header-Forward": "1",
                "Connection": "x-hop",
                "X-Hop": "1",
                "Proxy-Authorization": "p",
                "Cookie": "a",
            }
        )
        await desk.deliver()
        sent = dict(desk.sender.sent[-1].headers)
        assert sent["Cookie"] == "a"
        assert not {"X-Hop", "Proxy-Authorization", "Connection"} & sent.keys()

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Upstash-Redact-Fields": "header[ ]"}, ["Upstash-Redact-Fields"]),
        ({"Upstash-Redact-Fields": "header[X Y]"}, ["Upstash-Redact-Fields", "X Y"]),
        ({"Upstash-Redact-Fields": ","}, ["Upstash-Redact-Fields", "no field"]),
        (
            {"Upstash-Callback": CALLBACK, "Upstash-Callback-Failure-Callback-Retries": "1"},
            ["needs Upstash-Callback-Failure-Callback,"],
        ),
        (
            {"Upstash-Callback": CALLBACK, "Upstash-Callback-Forward-X": "x" * 66_000},
            ["Upstash-Callback-Forward-*", "66001"],
        ),
        ({"Upstash-Callback": "ftp://x"}, ["Upstash-Callback", "ftp://x"]),
    ],
)
def test_what_cannot_be_is_named_as_it_was_written(tmp_path: Path, headers: dict[str, str], words: list[str]) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", PUBLISH, headers)
        assert reply.status == 400
        assert all(word in reply.content["error"] for word in words), reply.content

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("floor(-pow(10,400))", 0),
        ("ceil(-1/0)", 0),
        ("pow(-10,999)", 0),
        ("pow(-10,998)", DAY),
        ("max(1000,sqrt(-1))", 0),
        ("max(sqrt(-1),1000)", 0),
        ("min(0/0,5000)", 0),
        ("+".join("1" * 100), 100),
        ("1e3", 1_000),
    ],
)
def test_values_at_the_borders(text: str, ms: int) -> None:
    check_expression(text)
    assert evaluate(text, 0, DAY) == ms


@pytest.mark.parametrize("text", ["1 # c", "0x10", "1_000", "0b1", "1;2"])
def test_python_s_own_ways_of_writing_are_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        check_expression(text)


# What is shown -------------------------------------------------------------------------------------------------------


def test_labels_and_expressions_are_read_back(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Label": "one, two,,one", "Upstash-Retry-Delay": "7000 * retried"})
        seen = await desk.seen(message_id)
        assert (seen["label"], seen["labels"]) == ("one", ["one", "two"])
        assert seen["retryDelayExpression"] == "7000 * retried"

    with_desk(tmp_path, test)


@pytest.mark.parametrize("fields", ["body,header", "headers, body", "Body,Headers"])
def test_what_is_redacted_is_sent_and_never_shown(tmp_path: Path, fields: str) -> None:
    async def test(desk: Desk) -> None:
        headers = {"Upstash-Redact-Fields": fields, "Upstash-Forward-X-Secret": "hush", "Upstash-Callback": CALLBACK}
        message_id = await desk.publish(headers | {"Upstash-Callback-Forward-Key": "hush"}, b"a secret")
        await desk.deliver()
        assert desk.sender.sent[0].body == b"a secret"
        assert ("X-Secret", "hush") in desk.sender.sent[0].headers
        shown = json.dumps(await desk.seen(message_id))
        assert "hush" not in shown
        assert "a secret" not in shown
        # The SHA-256 of the body.
        assert "REDACTED:" in shown
        # The callback tells its receiver everything, and nobody else.
        [callback] = [bell.ref for bell in desk.rung.bells]
        shown = json.dumps(await desk.seen(callback.partition("#")[2]))
        assert base64.b64encode(b"a secret").decode() not in shown
        await desk.deliver()
        assert json.loads(desk.sender.sent[1].body)["sourceBody"] == base64.b64encode(b"a secret").decode()

    with_desk(tmp_path, test)


@pytest.mark.parametrize("field", ["header[x-secret]", "headers[X-Secret]"])
def test_one_header_may_be_redacted(tmp_path: Path, field: str) -> None:
    async def test(desk: Desk) -> None:
        headers = {"Upstash-Redact-Fields": field, "Upstash-Forward-X-Secret": "hush", "Upstash-Forward-Y": "open"}
        shown = await desk.seen(await desk.publish(headers))
        assert shown["header"]["X-Secret"][0].startswith("REDACTED:")
        assert (shown["header"]["Y"], shown["body"]) == (["open"], "x")

    with_desk(tmp_path, test)


def test_all_headers_are_forwarded_where_that_is_asked(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish(
            {"X-Hook": "1", "Cookie": "a=b", "Upstash-Forward-X-Hook": "2", "Upstash-Unknown": "3", "Host": "h"},
            query="upstash-header-forward=true",
        )
        await desk.deliver()
        sent = dict(desk.sender.sent[0].headers)
        assert (sent["X-Hook"], sent["Cookie"]) == ("2", "a=b")
        assert {"Authorization", "Host", "Upstash-Unknown", "Upstash-Header-Forward"}.isdisjoint(sent)

    with_desk(tmp_path, test)


# Callbacks -----------------------------------------------------------------------------------------------------------


async def delivered(desk: Desk, *answers: Answer | NoAnswer) -> None:
    desk.sender.answers += answers
    while await desk.deliver():
        pass


def bodies_sent_to(desk: Desk, url: str) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in desk.sender.sent if request.url == url]


def test_a_callback_tells_of_every_attempt(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        headers = {"Upstash-Callback": CALLBACK, "Upstash-Retries": "2", "Upstash-Forward-X": "y"}
        message_id = await desk.publish(headers, b"hello")
        # Each failure is followed by its callback, before the retry.
        await delivered(desk, FAILED, Answer(200, (), b""), NoAnswer("refused"), Answer(200, (), b""))
        first, second, third = bodies_sent_to(desk, CALLBACK)
        assert first == {
            "status": 500,
            "header": {"Content-Type": ["text/plain"], "X-Trace": ["1", "2"]},
            "body": base64.b64encode(b"broken").decode(),
            "maxRetries": 2,
            "sourceMessageId": message_id,
            "url": "https://example.com/in",
            "method": "POST",
            "sourceHeader": {"X": ["y"]},
            "sourceBody": base64.b64encode(b"hello").decode(),
            "callerIP": "192.0.2.7",
            "notBefore": first["createdAt"],
            "createdAt": first["createdAt"],
        }
        assert (second["status"], second["retried"], second["error"]) == (0, 1, "refused")
        assert (third["status"], third["retried"]) == (200, 2)
        request = next(one for one in desk.sender.sent if one.url == CALLBACK)
        headers_sent = dict(request.headers)
        assert (request.method, headers_sent["Content-Type"]) == ("POST", "application/json")
        assert headers_sent["Upstash-Message-Id"] != message_id

    with_desk(tmp_path, test)


def test_a_failure_callback_tells_of_the_end_once(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish({"Upstash-Failure-Callback": CALLBACK, "Upstash-Retries": "1"})
        await delivered(desk, FAILED, FAILED)
        [told] = bodies_sent_to(desk, CALLBACK)
        assert (told["status"], told["retried"], told["maxRetries"]) == (500, 1, 1)
        assert told["dlqId"].replace("-", "").isdigit()
        await desk.publish({"Upstash-Failure-Callback": CALLBACK})
        await delivered(desk)
        assert len(bodies_sent_to(desk, CALLBACK)) == 1

    with_desk(tmp_path, test)


def test_the_dead_letter_that_is_told_of_is_the_one_that_stands(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        together, busy = desk.table.write_together, [True, True]

        async def sometimes(writes: Any) -> None:
            if busy:
                busy.pop()
                desk.clock.ms += 200
                raise Busy("somebody else")
            await together(writes)

        desk.table.write_together = sometimes  # type: ignore[method-assign]
        await desk.publish({"Upstash-Retries": "0", "Upstash-Failure-Callback": CALLBACK})
        await delivered(desk, FAILED, Answer(200, (), b""))
        [told] = bodies_sent_to(desk, CALLBACK)
        assert (await desk.call("GET", f"/v2/dlq/{told['dlqId']}")).status == 200

    with_desk(tmp_path, test)


def test_a_callback_has_settings_of_its_own(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish(
            {
                "Upstash-Retries": "5",
                "Upstash-Callback": CALLBACK,
                "Upstash-Callback-Method": "put",
                "Upstash-Callback-Timeout": "7s",
                "Upstash-Callback-Delay": "3s",
                "Upstash-Callback-Retry-Delay": "1000",
                "Upstash-Callback-Label": "cb",
                "Upstash-Callback-Forward-Key": "k",
                "Upstash-Callback-X-Bare": "b",
                "Upstash-Callback-Failure-Callback": "https://example.com/lost",
                "Upstash-Callback-Failure-Callback-Retries": "0",
                "Upstash-Failure-Callback": "https://example.com/failed",
                "Upstash-Failure-Callback-Retries": "1",
            }
        )
        seen = await desk.seen(message_id)
        assert (seen["callback"], seen["failureCallback"]) == (CALLBACK, "https://example.com/failed")
        assert seen["callbackHeader"] == {"Key": ["k"], "X-Bare": ["b"]}
        await desk.deliver()
        [bell] = desk.rung.bells
        assert bell.delay_ms == 3 * SECOND
        callback = await desk.seen(bell.ref.partition("#")[2])
        assert (callback["method"], callback["timeout"], callback["maxRetries"]) == ("PUT", 7_000, 5)
        assert callback["failureCallback"] == "https://example.com/lost"
        assert (callback["label"], callback["retryDelayExpression"]) == ("cb", "1000")
        assert callback["header"] == {"Content-Type": ["application/json"], "Key": ["k"], "X-Bare": ["b"]}

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    "redact",
    [{"Upstash-Redact-Fields": "header"}, {"Upstash-Callback-Redact-Fields": "header[Authorization]"}],
)
def test_nobody_reads_what_is_redacted_of_a_callback(tmp_path: Path, redact: dict[str, str]) -> None:
    async def test(desk: Desk) -> None:
        secret = {"Upstash-Callback-Forward-Authorization": "Bearer hush", "Upstash-Forward-Key": "hush"}
        message_id = await desk.publish(
            {"Upstash-Callback": CALLBACK, "Upstash-Callback-Retries": "0", **redact, **secret}
        )
        echo = Answer(500, (("echo", "Bearer hush"),), b"Bearer hush")
        desk.sender.answers = [Answer(200, (), b""), echo]
        await desk.deliver()
        callback_id = desk.rung.bells[-1].ref.partition("#")[2]
        await desk.deliver()
        assert dict(desk.sender.sent[-1].headers)["Authorization"] == "Bearer hush"
        for path in (f"/v2/messages/{message_id}", f"/v2/messages/{callback_id}", "/v2/dlq", "/v2/events"):
            reply = await desk.call("GET", path)
            assert reply.status == 200
            assert b"Bearer hush" not in reply.body(), path
        assert b"REDACTED:" in (await desk.call("GET", "/v2/dlq")).body()

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    "name",
    [
        "Upstash-Callback-Callback",
        "Upstash-Failure-Callback-Failure-Callback",
        "Upstash-Callback-Deduplication-Id",
        "Upstash-Callback-Not-Before",
        "Upstash-Callback-Queue-Name",
        "Upstash-Callback-Flow-Control-Value",
        "Upstash-Callback-Workflow-RunId",
    ],
)
def test_a_setting_that_no_callback_has_is_named(tmp_path: Path, name: str) -> None:
    async def test(desk: Desk) -> None:
        both = {"Upstash-Callback": CALLBACK, "Upstash-Failure-Callback": CALLBACK}
        reply = await desk.call("POST", PUBLISH, both | {name: "https://example.com/"})
        assert reply.status == 400
        assert name.lower() in reply.content["error"].lower()

    with_desk(tmp_path, test)


def test_a_callback_that_fails_is_a_dead_letter_of_its_own_and_tells_its_own_failure_callback(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        lost = "https://example.com/lost"
        await desk.publish(
            {"Upstash-Callback": CALLBACK, "Upstash-Retries": "0", "Upstash-Callback-Failure-Callback": lost}
        )
        await delivered(desk, Answer(200, (), b"fine"), FAILED)
        [told] = bodies_sent_to(desk, lost)
        assert told["url"] == CALLBACK
        assert json.loads(base64.b64decode(told["sourceBody"]))["body"] == base64.b64encode(b"fine").decode()

    with_desk(tmp_path, test)
