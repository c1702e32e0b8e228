"""The functions' handlers over the emulator's table and queues: what a message's way costs in calls and write units."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError

from benchmarks import cost
from benchmarks.cost import Counted
from contract.aws import create_table
from emulator import Emulator
from journey.harness import Place, SinkProcess
from waypost import on_aws, on_http, on_minute, on_queue
from waypost.core import ids
from waypost.core.ids import make_message_id, place_of
from waypost.core.message import partition_of
from waypost.core.schedule import errand_of
from waypost.engines.system import SystemClock

TOKEN = "a-token-of-this-test"
_KB = 1_024
#: As much that can't be compressed into less.
KILOBYTE = "".join(random.Random(1).choices("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", k=_KB))
_BILLED_WITH_EACH_LINE = 26


class Context:
    """Lambda's, as far as the handlers ask it."""

    def __init__(self, left_ms: int = 100_000) -> None:
        self._left_ms = left_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._left_ms


class Seen(NamedTuple):
    #: The names of the calls, in their order.
    calls: list[str]
    write_units: int
    #: Bytes of the calls' bodies.
    sent: int
    #: Bytes of log lines, as CloudWatch bills them.
    logged: int
    #: Those of the write units that are written by the batch: reminders.
    batch_units: int
    #: Bytes of the calls' answers.
    received: int

    def within(self, figure: Counted) -> bool:
        """Each count is at most its figure; what is missing is at most a read that a cache spared."""
        calls = Counter(self.calls)
        spared = Counter(figure.calls) - calls
        return (
            calls <= Counter(figure.calls)
            and set(spared) <= {"GetItem"}
            and self.write_units == figure.write_units
            and self.sent <= figure.sent
            and self.logged <= figure.logged
        )


class Lines(logging.Handler):
    """Counts what the functions log."""

    def __init__(self, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.size = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.add(self.format(record))

    def add(self, lines: str) -> None:
        self.size += sum(len(line) + _BILLED_WITH_EACH_LINE for line in lines.splitlines())


class World:
    def __init__(self, emulator: Emulator) -> None:
        settings: dict[str, Any] = emulator.settings
        name = f"w{uuid.uuid4().hex}"
        create_table(boto3.client("dynamodb", **settings), name)
        self.tables = boto3.resource("dynamodb", **settings)
        self.queues = boto3.client("sqs", **settings)
        self.fast, self.slow = (self.queues.create_queue(QueueName=f"{name}-{speed}")["QueueUrl"] for speed in "fs")
        boto3.client("s3", **settings).create_bucket(Bucket=name)
        boto3.client("secretsmanager", **settings).create_secret(Name=name, SecretString=TOKEN)
        self.environment = {
            "WAYPOST_TABLE": name,
            "WAYPOST_QUEUE_URL": self.fast,
            "WAYPOST_SLOW_QUEUE_URL": self.slow,
            "WAYPOST_BUCKET": name,
            "WAYPOST_TOKEN_SECRET": name,
            "WAYPOST_ALLOWED_NETWORKS": "127.0.0.0/8",
        }
        #: Reads that could have shown what stood before.
        self.inconsistent: list[str] = []
        self._calls: list[str] = []
        self._units = self._batch_units = self._sent = self._received = 0

    def watch(self, function: on_aws.Function) -> None:
        """Counts the calls of the function's clients, and the write units of their items by DynamoDB's rule: a unit for
        each begun kilobyte of the larger of the old and the new item."""
        self.table_client = function.ports.table._client  # type: ignore[attr-defined]
        for client in (self.table_client, function.ports.doorbell._client):  # type: ignore[attr-defined]
            client.meta.events.register("before-call", self._before)
            client.meta.events.register("after-call", self._after)
        [handler] = function.log.handlers
        self.lines = Lines(handler.formatter)
        function.log.addHandler(self.lines)

    def _before(self, model: Any, params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        if model.name in ("GetItem", "Query") and not json.loads(params["body"]).get("ConsistentRead"):
            self.inconsistent.append(model.name)
        self._calls.append(model.name)
        self._sent += len(params["body"])
        context["asked"] = params

    def _after(self, model: Any, parsed: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        self._received += int(parsed["ResponseMetadata"]["HTTPHeaders"].get("content-length", 0))
        if model.name == "PutItem" and "Error" not in parsed:
            self._units += units(json.loads(context["asked"]["body"])["Item"])
        elif model.name == "UpdateItem" and "Error" not in parsed:
            self._units += units(parsed["Attributes"])
        elif model.name == "BatchWriteItem" and "Error" not in parsed:
            [asked] = json.loads(context["asked"]["body"])["RequestItems"].values()
            # What is deleted is a reminder, too: it has less than a kilobyte.
            self._batch_units += sum(units(one["PutRequest"]["Item"]) if "PutRequest" in one else 1 for one in asked)

    def counted(self) -> Seen:
        units_in_all = self._units + self._batch_units
        found = Seen(self._calls, units_in_all, self._sent, self.lines.size, self._batch_units, self._received)
        self._calls, self._units, self._sent, self.lines.size = [], 0, 0, 0
        self._batch_units = self._received = 0
        return found

    def set_cursor(self, minute: int) -> None:
        item = {"pk": "cursor", "sk": "look", "v": 1, "minute": minute}
        self.tables.Table(self.environment["WAYPOST_TABLE"]).put_item(Item=item)

    def aged(self, message_id: str, minutes: int) -> str:
        """The message as if it had been accepted so long ago; returns the id that it then has."""
        table = self.tables.Table(self.environment["WAYPOST_TABLE"])
        now = time.time_ns() // 1_000_000
        older = ids.Place(now // 60_000 - minutes, 0)
        new_id = make_message_id(older, now, os.urandom)
        place = place_of(message_id)
        assert place
        key = {"pk": partition_of(place), "sk": f"main#{message_id}"}
        item = table.get_item(Key=key, ConsistentRead=True)["Item"]
        table.delete_item(Key=key)
        table.put_item(Item=item | {"pk": partition_of(older), "sk": f"main#{new_id}", "id": new_id})
        self.set_cursor(older.minute - 1)
        return new_id

    def make_due(self, message_id: str) -> None:
        """It, and its reminder, are due now."""
        table = self.tables.Table(self.environment["WAYPOST_TABLE"])
        now, ref = time.time_ns() // 1_000_000, f"main#{message_id}"
        place = place_of(message_id)
        assert place
        table.update_item(
            Key={"pk": partition_of(place), "sk": ref},
            UpdateExpression="SET due = :now",
            ExpressionAttributeValues={":now": now},
        )
        [reminder] = [one for one in table.scan(ConsistentRead=True)["Items"] if one.get("ref") == ref]
        table.delete_item(Key={"pk": reminder["pk"], "sk": reminder["sk"]})
        table.put_item(Item=reminder | {"sk": f"{now:015d}#{ref}", "at": now})

    def damage(self, message_id: str) -> None:
        place = place_of(message_id)
        assert place
        key = {"pk": partition_of(place), "sk": f"main#{message_id}"}
        table = self.tables.Table(self.environment["WAYPOST_TABLE"])
        table.update_item(Key=key, UpdateExpression="REMOVE #u", ExpressionAttributeNames={"#u": "url"})

    def end_lease(self, message_id: str) -> None:
        """An attempt that did not return is made again when its lease is over: that is now."""
        place = place_of(message_id)
        assert place
        key = {"pk": partition_of(place), "sk": f"main#{message_id}#s"}
        table = self.tables.Table(self.environment["WAYPOST_TABLE"])
        if table.get_item(Key=key, ConsistentRead=True).get("Item", {}).get("state") != "ACTIVE":
            return
        table.update_item(Key=key, UpdateExpression="SET lease = :now", ExpressionAttributeValues={":now": 0})
        self.queues.send_message(QueueUrl=self.fast, MessageBody=f"main#{message_id}")

    def bells(self, wait_s: int = 3) -> list[dict[str, Any]]:
        """What waits in the fast queue, as the event source hands it over."""
        found = self.queues.receive_message(QueueUrl=self.fast, MaxNumberOfMessages=10, WaitTimeSeconds=wait_s)
        for one in found.get("Messages", []):
            self.queues.delete_message(QueueUrl=self.fast, ReceiptHandle=one["ReceiptHandle"])
        return [{"messageId": one["MessageId"], "body": one["Body"]} for one in found.get("Messages", [])]


def minute_now() -> int:
    return int(time.time()) // 60


def units(item: dict[str, Any]) -> int:
    return math.ceil(sum(len(name.encode()) + size(value) for name, value in item.items()) / _KB)


def size(value: dict[str, Any]) -> int:
    """DynamoDB's measure of an attribute's value, in bytes."""
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "B":
        return len(content) * 3 // 4 if isinstance(content, str) else len(content)
    if kind == "N":
        return math.ceil(len(content.lstrip("-")) / 2) + 1
    if kind == "L":
        return 3 + sum(1 + size(one) for one in content)
    if kind == "M":
        return 3 + sum(1 + len(name.encode()) + size(one) for name, one in content.items())
    return 1


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    emulator = Emulator()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.environment().items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        world = World(emulator)
        for name, value in world.environment.items():
            patch.setenv(name, value)
        on_aws.function.cache_clear()
        world.watch(on_aws.function())
        publish("http://127.0.0.1:9/")  # reads the token
        call("GET", "/v2/keys")  # draws the signing keys
        yield world
        assert world.inconsistent == []
        on_aws.function()._runner.close()
        on_aws.function.cache_clear()
    emulator.stop()


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkProcess]:
    sink = SinkProcess()
    yield sink
    sink.stop()


def event(method: str, path: str, body: str = "", **headers: str) -> dict[str, Any]:
    return {
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"authorization": f"Bearer {TOKEN}", **headers},
        "requestContext": {"http": {"method": method, "sourceIp": "192.0.2.1"}},
        "body": body,
        "isBase64Encoded": False,
    }


def call(method: str, path: str, body: str = "", **headers: str) -> dict[str, Any]:
    return on_http.handler(event(method, path, body, **headers), Context())


def publish(url: str, **headers: str) -> str:
    answer = call("POST", f"/v2/publish/{url}", KILOBYTE, **{"content-type": "text/plain"}, **headers)
    assert answer["statusCode"] == 201, answer
    return answer["body"].split('"')[3]  # type: ignore[no-any-return]


def deliver(world: World, count: int = 1, patience_s: float = 30) -> dict[str, Any]:
    """Hands over so many bells as one batch, or what there is when patience ends."""
    records: list[dict[str, Any]] = []
    until = time.monotonic() + patience_s
    while len(records) < count and time.monotonic() < until:
        records += world.bells()
    world.counted()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        answer = on_queue.handler({"Records": records}, Context())
    world.lines.add(printed.getvalue())
    return answer


def tick(world: World) -> str:
    """Returns what was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        on_minute.handler({}, Context())
    world.lines.add(printed.getvalue())
    return printed.getvalue()


def emptied(world: World) -> None:
    while world.bells(wait_s=0):
        pass
    world.counted()


def arrived(place: Place, count: int) -> list[str | None]:
    return [one.header("Upstash-Message-Id") for one in place.wait_for(count, 2)]


def test_a_plain_message(world: World, sink: SinkProcess) -> None:
    place = sink.place("ok")
    emptied(world)
    message_id = publish(place.url)
    accepted = world.counted()
    assert accepted.calls == ["PutItem", "SendMessageBatch"]
    assert accepted.within(cost.PUBLISH), accepted
    assert deliver(world) == {"batchItemFailures": []}
    assert arrived(place, 1) == [message_id]
    # The claim, the settle, and the batch's part of the log.
    assert world.counted().write_units == 3
    assert '"state":"DELIVERED"' in call("GET", f"/v2/messages/{message_id}")["body"]


def test_a_batch_of_ten(world: World, sink: SinkProcess) -> None:
    place = sink.place("ok")
    emptied(world)
    expected = {publish(place.url) for _ in range(10)}
    assert deliver(world, 10) == {"batchItemFailures": []}
    assert set(arrived(place, 10)) == expected
    counted = world.counted()
    assert counted.within(cost.DELIVER_TEN), counted


def test_a_deduplicated_message(world: World, sink: SinkProcess) -> None:
    emptied(world)
    publish(sink.place("ok").url, **{"upstash-deduplication-id": uuid.uuid4().hex})
    accepted = world.counted()
    assert accepted.calls == ["PutItem", "PutItem", "SendMessageBatch"]
    assert accepted.within(cost.PUBLISH_DEDUPLICATED), accepted
    deliver(world)
    # Five, and the batch's part of the log.
    assert accepted.write_units + world.counted().write_units == 5 + 1


def test_a_retried_message(world: World, sink: SinkProcess) -> None:
    place = sink.place("fail", times=1, retry_after=1)
    emptied(world)
    publish(place.url)
    deliver(world)
    failed = world.counted()
    assert failed.within(cost.FAIL_ONCE), failed
    deliver(world)
    assert len(place.wait_for(2, 2)) == 2
    assert world.counted().write_units == 3


def test_a_delayed_message(world: World, sink: SinkProcess) -> None:
    emptied(world)
    publish(sink.place("ok").url, **{"upstash-delay": "10m"})
    assert world.counted().within(cost.PUBLISH)


def test_a_message_delayed_beyond_what_a_bell_carries(world: World, sink: SinkProcess) -> None:
    emptied(world)
    first = publish(sink.place("ok").url, **{"upstash-delay": "1h"})
    # Nothing rings so far ahead.
    far = world.counted()
    assert (far.calls, far.write_units) == (["PutItem"], 2)
    message_id = world.aged(first, minutes=10)
    tick(world)  # gives it a reminder, and logs its creation
    reminded = world.counted()
    assert reminded.batch_units == 1 + 1
    world.make_due(message_id)
    tick(world)  # rings, and moves the reminder on
    moved = world.counted()
    assert moved.batch_units == 2
    deliver(world)
    assert state_of(message_id) == "DELIVERED"
    world.make_due(message_id)
    tick(world)  # forgets it
    assert reminded.batch_units - 1 + moved.batch_units + world.counted().batch_units == cost.REMINDER_UNITS


def test_an_attempt_that_the_function_would_not_outlive_is_left_to_another(world: World, sink: SinkProcess) -> None:
    place = sink.place("ok")
    emptied(world)
    publish(place.url)
    # The message may take 60 s.
    assert on_queue.handler({"Records": world.bells()}, Context(left_ms=65_000)) == {"batchItemFailures": []}
    assert place.deliveries() == []
    deliver(world)
    assert len(place.wait_for(1, 2)) == 1


class Fault:
    """Strikes one of the table's calls, in all of its tries."""

    def __init__(self, world: World, kind: str, at: int) -> None:
        self._kind = kind
        self._left = at
        self.struck = ""
        self._events = world.table_client.meta.events
        self._hooks = {
            "before-call.dynamodb": self._count,
            "before-send.dynamodb": self._refuse,
            "needs-retry.dynamodb": self._try_again,
            "after-call.dynamodb": self._lose,
        }

    def __enter__(self) -> Fault:
        for event_name, hook in self._hooks.items():
            self._events.register_first(event_name, hook)
        return self

    def __exit__(self, *_: object) -> None:
        for event_name, hook in self._hooks.items():
            self._events.unregister(event_name, hook)

    def _count(self, model: Any, context: dict[str, Any], **_: object) -> None:
        self._left -= 1
        if self._left == -1:
            self.struck = model.name
            context["struck"] = True

    def _refuse(self, request: Any, **_: object) -> AWSResponse | None:
        if self._kind == "lost" or not request.context.get("struck"):
            return None
        body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{self._kind}", "message": ""}).encode()
        return AWSResponse("http://x", 400, {}, Raw(body))

    def _try_again(self, attempts: int, request_dict: dict[str, Any], **_: object) -> int | None:
        """Three tries, as the client is set up, but nobody waits between them."""
        return (0 if attempts < 3 else None) if request_dict["context"].get("struck") else None

    def _lose(self, context: dict[str, Any], **_: object) -> None:
        if self._kind == "lost" and context.get("struck"):
            raise ConnectionClosedError(endpoint_url="http://x")


class Raw(io.BytesIO):
    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.read()


@pytest.mark.parametrize("kind", ["ProvisionedThroughputExceededException", "TransactionConflictException", "lost"])
def test_whatever_call_of_the_table_fails_the_message_is_delivered(world: World, sink: SinkProcess, kind: str) -> None:
    struck = []
    for at in range(20):
        place = sink.place("ok")
        emptied(world)
        with Fault(world, kind, at) as fault:
            name, status = uuid.uuid4().hex, 0
            while status not in (201, 202):
                # A caller who was told to try again does.
                answer = call("POST", f"/v2/publish/{place.url}", "x", **{"upstash-deduplication-id": name})
                status = answer["statusCode"]
                assert status in (201, 202, 503), answer
            message_id = json.loads(answer["body"])["messageId"]
            while state_of(message_id) != "DELIVERED":
                deliver(world, patience_s=3)
                world.end_lease(message_id)
        assert [one.header("Upstash-Message-Id") for one in place.deliveries()] == [message_id]
        if not fault.struck:
            break
        struck.append(fault.struck)
    assert {"PutItem", "UpdateItem", "GetItem"} <= set(struck)
    assert len(struck) >= 6


def state_of(message_id: str) -> str:
    answer = call("GET", f"/v2/messages/{message_id}")
    return str(json.loads(answer["body"]).get("state"))


def test_a_bell_whose_message_cannot_be_read_comes_back_alone(world: World, sink: SinkProcess) -> None:
    place = sink.place("ok")
    emptied(world)
    broken, whole = publish(place.url), publish(place.url)
    world.damage(broken)
    records = [{"messageId": name, "body": f"main#{message_id}"} for name, message_id in (("1", broken), ("2", whole))]
    assert on_queue.handler({"Records": records}, Context()) == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert arrived(place, 1) == [whole]
    emptied(world)


def test_the_tick_is_counted_under_the_name_that_the_alarm_watches(world: World) -> None:
    [line] = [json.loads(line) for line in tick(world).splitlines() if "_aws" in line]
    [metric] = line["_aws"]["CloudWatchMetrics"]
    assert metric["Namespace"] == "Waypost"
    assert metric["Dimensions"] == [["stage"]]
    assert [one["Name"] for one in metric["Metrics"]] == ["Ticks"]
    assert (line["stage"], line["Ticks"]) == ("dev", [1.0])


def test_the_last_token_counts_while_the_secret_cannot_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_aws, "_SECRET_S", 0.0)
    lost = on_aws.Function({**world.environment, "WAYPOST_TOKEN_SECRET": "no-such-secret"})
    reply = lost.run(lost.service.api.answer(on_http.read_call(event("GET", "/v2/keys"), lost.policy)))
    assert reply.status == 503
    lost._runner.close()
    assert call("GET", "/v2/keys")["statusCode"] == 200
    secrets = boto3.client("secretsmanager")
    secrets.delete_secret(SecretId=world.environment["WAYPOST_TABLE"], ForceDeleteWithoutRecovery=True)
    assert call("GET", "/v2/keys")["statusCode"] == 200
    secrets.create_secret(Name=world.environment["WAYPOST_TABLE"], SecretString=TOKEN)


def test_a_slow_message_rings_elsewhere(world: World, sink: SinkProcess) -> None:
    emptied(world)
    publish(sink.place("ok").url, **{"upstash-timeout": "90s"})
    assert world.bells(wait_s=0) == []
    assert world.queues.receive_message(QueueUrl=world.slow, WaitTimeSeconds=3)["Messages"]


def test_a_bell_without_a_message_is_dropped_and_the_others_are_heard(world: World, sink: SinkProcess) -> None:
    place = sink.place("ok")
    emptied(world)
    publish(place.url)
    nonsense = [{"messageId": str(n), "body": body} for n, body in enumerate(["", "#", "main#msg_1", "\x00"])]
    assert on_queue.handler({"Records": [*nonsense, *world.bells()]}, Context()) == {"batchItemFailures": []}
    assert len(place.wait_for(1, 2)) == 1


def test_a_tick_that_finds_nothing(world: World) -> None:
    begun = counted = None
    while begun != minute_now():  # again if the minute turned meanwhile: then there was one more to look at
        begun = minute_now()
        world.set_cursor(begun - 4)
        world.counted()
        tick(world)
        counted = world.counted()
    assert counted
    assert counted.within(cost.IDLE_TICK), counted


def test_a_wrong_token_is_refused(world: World) -> None:
    assert call("GET", "/v2/keys", authorization="Bearer wrong")["statusCode"] == 401


def test_the_runtimes_own_address_is_no_destination(world: World) -> None:
    here = on_aws.Function({**world.environment, "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001"})
    for host in ("127.0.0.1:9001", "127.1:9001", "[::ffff:127.0.0.1]:9001"):
        given = event("POST", f"/v2/publish/http://{host}/2018-06-01/runtime/invocation/next")
        reply = here.run(here.service.api.answer(on_http.read_call(given, here.policy)))
        assert reply.status == 400, reply
        assert "metadata" in reply.content["error"]
    here._runner.close()


def test_logs_tell_of_each_attempt_when_its_batch_is_over(world: World, sink: SinkProcess) -> None:
    place = sink.place("ok")
    emptied(world)
    expected = {publish(place.url) for _ in range(10)}
    deliver(world, 10)
    assert Counter((one["messageId"], one["state"]) for one in logs(url=place.url)["events"]) == Counter(
        (message_id, state) for message_id in expected for state in ("CREATED", "ACTIVE", "DELIVERED")
    )


def test_a_page_of_logs_reads_little(world: World, sink: SinkProcess) -> None:
    place = sink.place("ok")
    emptied(world)
    for _ in range(10):
        publish(place.url)
    deliver(world, 10)
    world.set_cursor(minute_now() - 3)
    world.counted()
    assert len(logs(count="10")["events"]) == 10
    first = world.counted()
    # Of the newest minutes each shard, then the newest segments; the messages of the page at once.
    assert Counter(first.calls)["Query"] <= 2 * 32 + 2
    assert Counter(first.calls)["BatchGetItem"] == Counter(first.calls)["GetItem"] == 1
    assert first.received < 200_000
    assert logs(label="none") == {"events": []}
    nothing = world.counted()
    # All minutes that the look has not reached, and the days of the retention.
    assert Counter(nothing.calls)["Query"] <= 4 * 32 + 17
    assert Counter(nothing.calls)["BatchGetItem"] == 0
    assert nothing.received < 300_000
    assert len(logs(messageId=publish(place.url))["events"]) == 1
    by_id = world.counted()
    assert by_id.calls[-3:] == ["GetItem", "GetItem", "BatchGetItem"]


def test_the_look_tells_of_creations(world: World, sink: SinkProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    place = sink.place("ok")
    emptied(world)
    begun = minute_now()
    expected = [publish(place.url, **{"upstash-delay": "1d"}) for _ in range(10)]
    world.set_cursor(begun - 1)
    before = logs(url=place.url)["events"]
    now = SystemClock.now_ms
    monkeypatch.setattr(SystemClock, "now_ms", lambda self: now(self) + 5 * 60_000)
    on_minute.handler({}, Context())
    world.counted()
    after = logs(url=place.url)["events"]
    assert before == after
    assert [one["messageId"] for one in after] == expected[::-1]
    # Nothing is read live but the minutes after those that were looked at.
    assert Counter(world.counted().calls)["Query"] <= 4 * 32 + 17


def logs(**query: str) -> dict[str, Any]:
    asked = event("GET", "/v2/events")
    answer = on_http.handler({**asked, "rawQueryString": urlencode(query)}, Context())
    assert answer["statusCode"] == 200, answer
    return dict(json.loads(answer["body"]))


# The last, since others read what lies about --------------------------------------------------------------------------


def test_a_thousand_messages_at_once(world: World, sink: SinkProcess) -> None:
    url = sink.place("ok").url
    items = [{"destination": url, "headers": {"Content-Type": "text/plain"}, "body": KILOBYTE} for _ in range(1_000)]
    emptied(world)
    answer = call("POST", "/v2/batch", json.dumps(items))
    assert answer["statusCode"] == 201, answer
    batch = world.counted()
    assert batch.within(cost.PUBLISH_THOUSAND), batch
    assert len({one["messageId"] for one in json.loads(answer["body"])}) == 1_000
    emptied(world)

    # Of the least size, in a group.
    endpoints = [{"url": f"{url}&n={n}"} for n in range(1_000)]
    assert call("POST", "/v2/topics/thousand/endpoints", json.dumps({"endpoints": endpoints}))["statusCode"] == 200
    world.counted()
    answer = call("POST", "/v2/publish/thousand", KILOBYTE, **{"content-type": "text/plain"})
    assert answer["statusCode"] == 201, answer
    group = world.counted()
    assert group.within(cost.PUBLISH_TO_THOUSAND), group
    assert [one["url"] for one in json.loads(answer["body"])] == [one["url"] for one in endpoints]
    emptied(world)
    # One costs less than it would alone.
    alone, among = (
        sum(dollars for _, dollars in cost.a_message(*how))
        for how in ((), (cost.PUBLISH_THOUSAND, cost._API_THOUSAND_S, 1_000))
    )
    assert among < alone


def test_bodies_of_a_batch_are_bounded_by_what_a_function_is_handed(world: World) -> None:
    items = [{"destination": "http://127.0.0.1:9/", "body": "x" * 500_000}] * 8
    assert call("POST", "/v2/batch", json.dumps([*items, {"destination": "http://127.0.0.1:9/"}]))["statusCode"] == 201
    answer = call("POST", "/v2/batch", json.dumps([*items, {"destination": "http://127.0.0.1:9/", "body": "x"}]))
    assert answer["statusCode"] == 413
    assert "current limit: 4000000 " in answer["body"]
    emptied(world)


def test_a_schedule_rings_for_its_second_and_fires_once(world: World, sink: SinkProcess) -> None:
    """Whoever makes it rings, and so does the tick."""
    place = sink.place("ok")
    rung: list[tuple[int, int]] = []

    def note(params: dict[str, Any], **_: object) -> None:
        rung.extend(
            (now_ms(), entry["DelaySeconds"]) for entry in params["Entries"] if "schedule" in entry["MessageBody"]
        )

    events = on_aws.function().ports.doorbell._client.meta.events  # type: ignore[attr-defined]
    events.register("provide-client-params.sqs.SendMessageBatch", note)
    emptied(world)
    name, errand = "each-minute", errand_of("each-minute")
    made = call(
        *("POST", f"/v2/schedules/{place.url}", KILOBYTE),
        **{"upstash-cron": "* * * * *", "upstash-schedule-id": name, "content-type": "text/plain"},
    )
    assert made["statusCode"] == 201, made
    assert world.counted().calls == ["GetItem", "PutItem", "PutItem", "SendMessageBatch"]
    within_the_second(rung.pop(), json.loads(call("GET", f"/v2/schedules/{name}")["body"])["nextScheduleTime"])

    # As if a hundred seconds were left, and its reminder were the one that it has always had.
    table = world.tables.Table(world.environment["WAYPOST_TABLE"])
    due_ms = now_ms() + 100_000
    change_next(world, errand, due_ms)
    ref = f"main#{errand}"
    for one in table.scan(ConsistentRead=True)["Items"]:
        if one.get("ref") == ref:
            table.delete_item(Key={"pk": one["pk"], "sk": one["sk"]})
    table.put_item(Item={"pk": "due#0", "sk": f"{due_ms:015d}#{ref}", "v": 1, "ref": ref, "at": due_ms})
    tick(world)
    within_the_second(rung.pop(), due_ms)
    assert rung == []

    # A minute that has just begun.
    change_next(world, errand, now_ms() // 60_000 * 60_000)
    bells = [{"messageId": str(number), "body": ref} for number in range(2)]
    world.counted()
    assert on_queue.handler({"Records": bells}, Context()) == {"batchItemFailures": []}
    [(_, delay_s)] = rung
    assert delay_s <= 60
    deliver(world)
    [message_id] = arrived(place, 1)
    shape = json.loads(call("GET", f"/v2/schedules/{name}")["body"])
    assert shape["lastScheduleStates"] == {message_id: "SUCCESS"}
    assert call("DELETE", f"/v2/schedules/{name}")["statusCode"] == 200
    events.unregister("provide-client-params.sqs.SendMessageBatch", note)
    emptied(world)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def within_the_second(bell: tuple[int, int], due_ms: int) -> None:
    """A bell of whole seconds comes when it is due, or less than a second later: reckoned from when it was handed over,
    which is a little after it was reckoned."""
    rung_ms, delay_s = bell
    assert due_ms <= rung_ms + delay_s * 1_000
    assert delay_s - 1 <= (due_ms - rung_ms) / 1_000 + 1


def change_next(world: World, errand: str, ms: int) -> None:
    world.tables.Table(world.environment["WAYPOST_TABLE"]).update_item(
        Key={"pk": "main#schedules", "sk": errand},
        UpdateExpression="SET #n = :n",
        ExpressionAttributeNames={"#n": "next"},
        ExpressionAttributeValues={":n": ms},
    )


@pytest.mark.parametrize(
    ("parallelism", "figure"), [(10, cost.DELIVER_TEN_IN_LANE_OF_10), (100, cost.DELIVER_TEN_IN_LANE_OF_100)]
)
def test_a_message_in_a_full_lane_costs_the_same_whatever_waits(
    world: World, sink: SinkProcess, parallelism: int, figure: Counted
) -> None:
    place = sink.place("ok")
    emptied(world)
    key = f"k{uuid.uuid4().hex}"
    settings = {"upstash-flow-control-key": key, "upstash-flow-control-value": f"parallelism={parallelism}"}
    for waiting in (20, 200):
        publish(place.url, **settings)
        while json.loads(call("GET", f"/v2/flowControl/{key}")["body"]).get("waitListSize", 0) < waiting:
            publish(place.url, **settings)
        world.counted()
        publish(place.url, **settings)
        accepted = world.counted()
        assert accepted.within(cost.PUBLISH_IN_LANE), accepted
        assert deliver(world, 10) == {"batchItemFailures": []}
        counted = world.counted()
        # How many leave at the same time is up to the moment: the figure is what it may be at most.
        assert Counter(counted.calls) <= Counter(figure.calls), counted
        assert counted.write_units <= figure.write_units, counted
        assert (counted.sent <= figure.sent, counted.logged <= figure.logged) == (True, True), counted
    emptied(world)
