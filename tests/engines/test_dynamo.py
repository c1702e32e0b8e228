"""The table on DynamoDB where no emulator goes: conflicts, throttling, batches half done, answers that are lost."""

from __future__ import annotations

import asyncio
import enum
import io
import json
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from contract.aws import MotoHarness
from contract.harness import K, item
from waypost.core.ports import (
    Absent,
    AtMost,
    Busy,
    Change,
    ConditionFailed,
    Delete,
    Equals,
    Key,
    Present,
    Put,
    Table,
    TooLarge,
    Unavailable,
    Write,
)
from waypost.engines.aws import dynamo

OTHER = Key("p", "t")


class Wire:
    """A table, every call that it made, and a wire that brings what it is told to."""

    def __init__(self, harness: MotoHarness) -> None:
        self.harness = harness
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.sendings = 0
        self._events = harness.dynamodb.meta.events
        self._events.register("provide-client-params.dynamodb", self._record)
        self._events.register_first("before-send.dynamodb", self._count)

    def run(self, story: Callable[[Table], Coroutine[Any, Any, Any]]) -> Any:
        async def told() -> Any:
            return await story(await self.harness.open())

        return asyncio.run(told())

    def refuse(self, code: str, status: int = 400, message: str = "", **more: Any) -> None:
        """From now on every answer is this error."""
        body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message, **more})
        self.bring(lambda: AWSResponse("http://x", status, {}, _Raw(body.encode())))

    def bring(self, answer: Callable[[], Any]) -> None:
        self._events.register_first("before-send.dynamodb", lambda **_: answer())
        # Three tries, as the client is set up, but nobody waits between them.
        self._events.register_first("needs-retry.dynamodb", lambda attempts, **_: 0 if attempts < 3 else False)

    def after(self, call: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Changes each answer that came."""
        self._events.register(f"after-call.dynamodb.{call}", lambda parsed, **_: change(parsed))

    def _record(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.calls.append((model.name, params))

    def _count(self, **_: Any) -> None:
        self.sendings += 1


class _Raw(io.BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setattr(dynamo, "_PAUSE_S", 0.001)
    harness = MotoHarness(tmp_path)
    yield Wire(harness)
    harness.close()


# Errors --------------------------------------------------------------------------------------------------------------

ASKED: list[Callable[[Table], Coroutine[Any, Any, Any]]] = [
    lambda table: table.get(K),
    lambda table: table.get_many([K]),
    lambda table: table.query("p"),
    lambda table: table.write(Put(item(), when=Absent("pk"))),
    lambda table: table.write(Change(K, set={"a": 1})),
    lambda table: table.write(Delete(K)),
    lambda table: table.write_many([Put(item())]),
    lambda table: table.write_together([Put(item(), when=Absent("pk"))]),
]


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("ThrottlingException", 400, Busy),
        ("ProvisionedThroughputExceededException", 400, Busy),
        ("RequestLimitExceeded", 400, Busy),
        ("TransactionConflictException", 400, Busy),
        ("TransactionInProgressException", 400, Busy),
        ("InternalServerError", 500, Unavailable),
        ("ServiceUnavailable", 503, Unavailable),
    ],
)
def test_errors_are_told_apart(wire: Wire, code: str, status: int, expected: type[Exception]) -> None:
    wire.refuse(code, status, "not now")
    for ask in ASKED:
        with pytest.raises(expected, match="not now"):
            wire.run(ask)


@pytest.mark.parametrize(
    "lost", [ReadTimeoutError, ConnectTimeoutError, EndpointConnectionError, ConnectionClosedError]
)
def test_without_an_answer_the_table_is_unavailable(wire: Wire, lost: Any) -> None:
    def fail() -> None:
        raise lost(endpoint_url="http://x", error="gone")

    wire.bring(fail)
    for ask in ASKED:
        with pytest.raises(Unavailable, match="http://x"):
            wire.run(ask)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["None", "TransactionConflict"], Busy),
        (["ConditionalCheckFailed", "TransactionConflict"], Busy),
        (["ConditionalCheckFailed", "ThrottlingError"], Busy),
        (["ProvisionedThroughputExceeded", "ConditionalCheckFailed"], Busy),
        (["None", "ConditionalCheckFailed"], ConditionFailed),
        (["ConditionalCheckFailed", "ConditionalCheckFailed"], ConditionFailed),
    ],
)
def test_a_conflict_is_never_a_refusal(wire: Wire, codes: Sequence[str], expected: type[Exception]) -> None:
    standing = {"pk": {"S": "p"}, "sk": {"S": "x"}, "mark": {"B": "AAAA"}}
    reasons = [{"Code": code} | ({"Item": standing} if code == "ConditionalCheckFailed" else {}) for code in codes]
    wire.refuse("TransactionCanceledException", CancellationReasons=reasons)
    with pytest.raises(expected) as raised:
        wire.run(lambda table: table.write_together([Put(item("s"), when=Absent("pk")), Put(item("t"))]))
    if isinstance(raised.value, ConditionFailed):
        assert raised.value.key == (K, OTHER)[codes.index("ConditionalCheckFailed")]
        assert raised.value.item == item("x")


def test_an_item_too_large(wire: Wire) -> None:
    text = "Item size to update has exceeded the maximum allowed size"
    wire.refuse("ValidationException", message=text)
    with pytest.raises(TooLarge):
        wire.run(lambda table: table.write(Change(K, set={"a": 1})))
    reasons = [{"Code": "None"}, {"Code": "ValidationError", "Message": text}]
    wire.refuse("TransactionCanceledException", CancellationReasons=reasons)
    with pytest.raises(TooLarge):
        wire.run(lambda table: table.write_together([Put(item("s")), Change(OTHER, set={"a": 1})]))


# Batches -------------------------------------------------------------------------------------------------------------


def test_what_a_batch_leaves_undone_is_asked_for_again(wire: Wire) -> None:
    name = wire.harness.name
    keys = [Key("p", f"{n:03}") for n in range(60)]
    left: list[Any] = []

    def leave(parsed: dict[str, Any]) -> None:
        """Of every first answer three items are left, of those one, and so on."""
        asked = wire.calls[-1][1]["RequestItems"][name]
        asked = asked["Keys"] if isinstance(asked, dict) else asked
        some = asked[: len(asked) // 2 if len(asked) < 20 else 3]
        left.extend(some)
        if not some:
            return
        if "Responses" in parsed:
            parsed["Responses"][name] = [
                one for one in parsed["Responses"][name] if {"pk": one["pk"], "sk": one["sk"]} not in some
            ]
            parsed["UnprocessedKeys"] = {name: {"Keys": some}}
        else:
            parsed["UnprocessedItems"] = {name: some}

    async def story(table: Table) -> list[Any]:
        await table.write_many([Put(item(key.sk)) for key in keys])
        return await table.get_many(keys)

    wire.after("BatchWriteItem", leave)
    wire.after("BatchGetItem", leave)
    assert wire.run(story) == [item(key.sk) for key in keys]
    assert len(left) > 8


@pytest.mark.parametrize(
    ("call", "undone"), [("BatchWriteItem", "UnprocessedItems"), ("BatchGetItem", "UnprocessedKeys")]
)
def test_what_stays_undone_is_busy(wire: Wire, call: str, undone: str) -> None:
    wire.after(call, lambda parsed: parsed.update({undone: wire.calls[-1][1]["RequestItems"]}))
    with pytest.raises(Busy):
        wire.run(lambda table: table.write_many([Put(item())]) if call == "BatchWriteItem" else table.get_many([K]))
    assert len([name for name, _ in wire.calls if name == call]) == 5


def test_a_key_asked_for_twice_is_answered_twice(wire: Wire) -> None:
    async def story(table: Table) -> list[Any]:
        await table.write(Put(item()))
        return await table.get_many([K, OTHER, K])

    assert wire.run(story) == [item(), None, item()]


def test_nothing_to_do_is_no_call(wire: Wire) -> None:
    async def story(table: Table) -> None:
        await table.write_many([])
        await table.write_together([])
        assert await table.get_many([]) == []
        assert (await table.query("p", first="b", last="a")).items == []
        assert (await table.query("p", last="")).items == []
        assert (await table.query("p", last="b", after="c")).items == []
        assert (await table.query("p", first="b", after="a", newest_first=True)).items == []

    wire.run(story)
    assert wire.sendings == 0


# Lost answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "stands"),
    [
        (Put(item(n=9), when=Equals("n", 1)), item(n=9)),
        (Change(K, set={"n": 2}, when=Equals("n", 1)), item(n=2)),
        (Change(K, add={"n": 1}, when=Equals("n", 1)), item(n=2)),
        (Change(K, add={"n": 1}, when=AtMost("n", 5)), item(n=2)),
        (Change(K, add={"n": 1}), item(n=2)),
        (Change(K, remove=("n",), when=Present("n")), item()),
    ],
)
def test_the_repeat_of_a_write_knows_its_own(wire: Wire, write: Write, stands: dict[str, Any]) -> None:
    async def story(table: Table) -> None:
        await table.write(Put(item(n=1)))
        wire.harness.lose_next_answer()
        assert await table.write(write) == stands
        assert await table.get(K) == stands
        await table.write(Put(item(n=1)))
        wire.harness.lose_next_answer()
        await table.write_together([write, Put(item("t"))])
        assert await table.get(K) == stands

    wire.run(story)
    assert wire.sendings == 1 + 2 + 1 + 1 + 2 + 1


def test_the_repeat_of_a_deletion_does_not_know(wire: Wire) -> None:
    async def story(table: Table) -> None:
        await table.write(Put(item()))
        wire.harness.lose_next_answer()
        with pytest.raises(Unavailable, match="not known"):
            await table.write(Delete(K, when=Present("pk")))
        assert await table.get(K) is None
        # Without a repeat it is a refusal, and without a condition nobody minds.
        with pytest.raises(ConditionFailed):
            await table.write(Delete(K, when=Present("pk")))
        wire.harness.lose_next_answer()
        assert await table.write(Delete(K)) is None

    wire.run(story)


def test_a_deletion_within_a_transaction_is_known_by_the_others(wire: Wire) -> None:
    async def story(table: Table) -> None:
        await table.write(Put(item()))
        wire.harness.lose_next_answer()
        await table.write_together([Delete(K, when=Present("pk")), Put(item("t"), when=Absent("pk"))])

    wire.run(story)


def test_each_transaction_has_a_token_of_its_own(wire: Wire) -> None:
    async def story(table: Table) -> None:
        for _ in range(2):
            await table.write_together([Put(item())])

    wire.run(story)
    tokens = {call["ClientRequestToken"] for _, call in wire.calls}
    assert len(tokens) == 2
    assert all(1 <= len(token) <= 36 for token in tokens)


def test_a_refusal_by_somebody_elses_write_stays_one(wire: Wire) -> None:
    async def story(table: Table) -> None:
        await table.write(Put(item(by=1), when=Absent("pk")))
        # Its own mark would be recognised; this is another call's, by the same process.
        for write in (Put(item(by=2), when=Absent("pk")), Change(K, set={"by": 2}, when=Absent("by"))):
            with pytest.raises(ConditionFailed) as refused:
                await table.write(write)
            assert refused.value.item == item(by=1)
            wire.harness.lose_next_answer()
            with pytest.raises(ConditionFailed) as refused:
                await table.write(write)
            assert refused.value.item == item(by=1)

    wire.run(story)


# Reads and values ----------------------------------------------------------------------------------------------------


def test_nobody_sees_the_marks(wire: Wire) -> None:
    async def story(table: Table) -> None:
        assert await table.write(Put(item(), when=Absent("pk"))) == item()
        assert await table.write(Change(OTHER)) == item("t")
        assert await table.get(K) == item()
        assert await table.get_many([OTHER, K]) == [item("t"), item()]
        assert (await table.query("p")).items == [item(), item("t")]
        with pytest.raises(ConditionFailed) as refused:
            await table.write_together([Put(item(), when=Absent("pk"))])
        assert refused.value.item == item()
        for wrong in (Put(item(mark=1)), Change(K, set={"mark": 1})):
            with pytest.raises(ValueError, match="mark"):
                await table.write(wrong)

    wire.run(story)
    standing = wire.harness.dynamodb.scan(TableName=wire.harness.name)["Items"]
    assert len({one["mark"]["B"] for one in standing}) == 2


def test_every_read_is_consistent_but_that_of_many(wire: Wire) -> None:
    async def story(table: Table) -> None:
        await table.write_many([Put(item(str(n))) for n in range(5)])
        await table.get(K)
        await table.get_many([K])
        page = await table.query("p", limit=2)
        await table.query("p", limit=2, after=page.next)
        await table.query("p", newest_first=True)

    wire.run(story)
    reads = [(name, call.get("ConsistentRead")) for name, call in wire.calls if name in ("GetItem", "Query")]
    assert reads == [("GetItem", True)] + [("Query", True)] * 3


def test_a_member_of_an_enum_is_text(wire: Wire) -> None:
    class State(enum.StrEnum):
        ACTIVE = "active"

    async def story(table: Table) -> None:
        await table.write(Put(item(state=State.ACTIVE, parts=[State.ACTIVE])))
        found = await table.write(Change(K, set={"n": 1}, when=Equals("state", State.ACTIVE)))
        assert found == item(state="active", parts=["active"], n=1)
        assert type(found["state"]) is str

    wire.run(story)
