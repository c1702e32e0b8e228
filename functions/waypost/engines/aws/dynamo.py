"""The table in DynamoDB, which decides the conditions.

A client repeats a call whose answer was lost, and the repeat of a conditional write meets what the first try wrote. So
each such write leaves a fresh random mark in its item, and a refusal by an item with the call's own mark is success.
No caller sees the marks. A mark that somebody has overwritten meanwhile is missed: then the refusal is reported, and
`item` shows the caller who wrote last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from waypost.core.ports import (
    MAX,
    Absent,
    AllOf,
    AnyOf,
    Busy,
    Change,
    Condition,
    ConditionFailed,
    Delete,
    Equals,
    Item,
    Key,
    Page,
    Present,
    Put,
    Randomness,
    TooLarge,
    Unavailable,
    Write,
)
from waypost.engines.aws.clients import call
from waypost.engines.limits import check_item, check_key, check_many, check_together

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")
#: A value, or a whole item, as DynamoDB spells it: each value within a map of one entry, its type.
Typed = dict[str, Any]

_MARK = "mark"
_MARK_BYTES = 12
#: The least text that is a key.
_MIN = "\0"
#: DynamoDB's limits.
_WRITE_BATCH = 25
_GET_BATCH = 100
#: So many batches of one call are under way at once; the threads are there for others, too.
_AT_ONCE = 4
#: What a batch leaves undone is asked for again, about half a second in all.
_TRIES = 5
_PAUSE_S = 0.05

#: Names of errors, and of reasons why a transaction was cancelled.
_BUSY = {
    "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingError",
    "ThrottlingException",
    "TransactionConflict",
    "TransactionConflictException",
    "TransactionInProgressException",
}


class DynamoTable:
    """ports.Table over a table whose keys are the texts `pk` and `sk`. The client's own retries are the only ones, but
    for what a batch leaves undone. Belongs to one event loop."""

    def __init__(self, client: DynamoDBClient, name: str, random: Randomness, threads: Executor) -> None:
        self._client = client
        self._name = name
        self._random = random
        self._threads = threads
        self._methods: Mapping[str, Callable[..., Any]] = {
            "Put": client.put_item,
            "Update": client.update_item,
            "Delete": client.delete_item,
        }

    # Reads -----------------------------------------------------------------------------------------------------------

    async def get(self, key: Key) -> Item | None:
        answer = await self._call(self._client.get_item, TableName=self._name, Key=_typed_key(key), ConsistentRead=True)
        return _item(answer.get("Item"))

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        # DynamoDB refuses a key that is asked for twice.
        asked = [{"Keys": some} for some in _cut([_typed_key(key) for key in dict.fromkeys(keys)], _GET_BATCH)]
        found: dict[Key, Item] = {}
        for answer in await self._batches(self._client.batch_get_item, asked, "UnprocessedKeys"):
            for typed in answer["Responses"].get(self._name, ()):
                found[Key(typed["pk"]["S"], typed["sk"]["S"])] = _plain_item(typed)
        return [found.get(key) for key in keys]

    async def query(
        self,
        pk: str,
        *,
        first: str = "",
        last: str = MAX,
        limit: int = 100,
        newest_first: bool = False,
        after: str | None = None,
    ) -> Page:
        if limit < 1:
            raise ValueError("a page holds at least one item")
        start: dict[str, Any] = {}
        if after is not None:
            # DynamoDB refuses a start outside of the range: one before it is as good as none, one past it leaves none.
            if first <= after <= last:
                start["ExclusiveStartKey"] = _typed_key(Key(pk, after))
            elif (after > last) != newest_first:
                return Page([], None)
        first = first or _MIN
        if first > last:
            return Page([], None)
        answer = await self._call(
            self._client.query,
            TableName=self._name,
            ConsistentRead=True,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
            ExpressionAttributeValues={":pk": {"S": pk}, ":first": {"S": first}, ":last": {"S": last}},
            Limit=limit,
            ScanIndexForward=not newest_first,
            **start,
        )
        cursor = answer.get("LastEvaluatedKey")
        return Page([_plain_item(one) for one in answer["Items"]], cursor["sk"]["S"] if cursor else None)

    # Writes ----------------------------------------------------------------------------------------------------------

    async def write(self, one: Write, *, relaxed: bool = False) -> Item | None:
        mark = self._random(_MARK_BYTES)
        kind, request = self._request(one, mark)
        if kind == "Update":
            request["ReturnValues"] = "ALL_NEW"
        try:
            answer = await self._call(self._methods[kind], **request)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            standing: Typed | None = error.response.get("Item")  # type: ignore[assignment]
            if _bears(standing, mark):
                return _item(standing)
            if standing is None and kind == "Delete" and error.response["ResponseMetadata"]["RetryAttempts"]:
                # A deleted item bears no mark: an earlier try may have removed it, or there never was one.
                raise Unavailable(f"whether {one.key} was deleted is not known: an answer was lost") from error
            raise ConditionFailed(one.key, _item(standing)) from error
        return one.item if isinstance(one, Put) else _item(answer.get("Attributes"))

    async def write_many(self, writes: Sequence[Put | Delete]) -> None:
        check_many(writes)
        asked = [self._batched(one) for one in writes]
        await self._batches(self._client.batch_write_item, _cut(asked, _WRITE_BATCH), "UnprocessedItems")

    async def write_together(self, writes: Sequence[Write]) -> None:
        if not writes:
            return
        check_together(writes)
        mark = self._random(_MARK_BYTES)
        items = [dict([self._request(one, mark)]) for one in writes]
        try:
            # DynamoDB knows a repeat by the token, for ten minutes: it answers as it did the first time.
            await self._call(self._client.transact_write_items, TransactItems=items, ClientRequestToken=mark.hex())
        except ClientError as error:
            reasons: Sequence[Any] = error.response.get("CancellationReasons", ())
            if any(_bears(reason.get("Item"), mark) for reason in reasons):
                return
            for reason in reasons:
                failure = _failure(reason["Code"], reason.get("Message", ""))
                if failure is not None:
                    raise failure from error
            for one, reason in zip(writes, reasons, strict=False):
                if reason["Code"] == "ConditionalCheckFailed":
                    raise ConditionFailed(one.key, _item(reason.get("Item"))) from error
            raise

    # Calls -----------------------------------------------------------------------------------------------------------

    def _request(self, one: Write, mark: bytes) -> tuple[str, dict[str, Any]]:
        """The write's kind and parameters, alone or within a transaction. Raises TypeError or ValueError."""
        terms = _Terms()
        request: dict[str, Any] = {"TableName": self._name}
        conditions = []
        check_key(one.key)
        if isinstance(one, Put):
            kind = "Put"
            request["Item"] = _typed_item(one.item)
            if one.when is not None:
                request["Item"][_MARK] = {"B": mark}
        else:
            kind = "Delete"
            request["Key"] = _typed_key(one.key)
        if isinstance(one, Change):
            kind = "Update"
            request["UpdateExpression"] = terms.update(one, mark)
            if one.add:
                # Its condition may hold a second time, or it has none: a repeat must not add again.
                conditions.append(terms.unlike(_MARK, mark))
        if one.when is not None:
            conditions.append(terms.condition(one.when, within_and=bool(conditions)))
        if conditions:
            request["ConditionExpression"] = " AND ".join(conditions)
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return kind, request | terms.parameters()

    def _batched(self, one: Put | Delete) -> dict[str, Any]:
        check_key(one.key)
        if isinstance(one, Put):
            return {"PutRequest": {"Item": _typed_item(one.item)}}
        return {"DeleteRequest": {"Key": _typed_key(one.key)}}

    async def _batches(self, method: Callable[..., Any], asked: Sequence[Any], undone: str) -> list[Any]:
        """The answers to all the batches. When it raises, none is under way any more."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def gated(one: Any) -> list[Any]:
            async with gate:
                return await self._batch(method, one, undone)

        answers = await asyncio.gather(*map(gated, asked), return_exceptions=True)
        done: list[Any] = []
        for some in answers:
            if isinstance(some, BaseException):
                raise some
            done += some
        return done

    async def _batch(self, method: Callable[..., Any], one: Any, undone: str) -> list[Any]:
        answers = []
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE_S * 2 ** (attempt - 1) * int.from_bytes(self._random(2)) / 2**16)
            answers.append(await self._call(method, RequestItems={self._name: one}))
            one = answers[-1].get(undone, {}).get(self._name)
            if not one:
                return answers
        raise Busy("DynamoDB leaves a part of the batch undone")

    async def _call(self, method: Callable[..., T], **parameters: Any) -> T:
        try:
            return await call(self._threads, method, **parameters)
        except ClientError as error:
            failure = _failure(error.response["Error"]["Code"], error.response["Error"]["Message"])
            if failure is None:
                raise
            raise failure from error


class _Terms:
    """The placeholders of one write's expressions: any name, DynamoDB's reserved words too, stands behind one."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Typed] = {}

    def parameters(self) -> dict[str, Any]:
        """DynamoDB refuses empty ones."""
        parameters: dict[str, Any] = {}
        if self._names:
            parameters["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in self._names.items()}
        if self._values:
            parameters["ExpressionAttributeValues"] = self._values
        return parameters

    def condition(self, condition: Condition, *, within_and: bool = False) -> str:
        """With no more parentheses than it needs: DynamoDB refuses doubled ones."""
        if isinstance(condition, (AllOf, AnyOf)):
            if len(condition.conditions) == 1:
                return self.condition(condition.conditions[0], within_and=within_and)
            if isinstance(condition, AllOf):
                return " AND ".join(self.condition(one, within_and=True) for one in condition.conditions)
            text = " OR ".join(map(self.condition, condition.conditions))
            return f"({text})" if within_and else text
        name = self._name(condition.name)
        if isinstance(condition, Absent):
            return f"attribute_not_exists({name})"
        if isinstance(condition, Present):
            return f"attribute_exists({name})"
        return f"{name} {'=' if isinstance(condition, Equals) else '<='} {self._value(condition.value)}"

    def unlike(self, name: str, value: bytes) -> str:
        placeholder = self._name(name)
        return f"(attribute_not_exists({placeholder}) OR {placeholder} <> {self._value(value)})"

    def update(self, change: Change, mark: bytes) -> str:
        """Raises ValueError for what means two things."""
        names = [*change.set, *change.add, *change.remove]
        if len(set(names)) < len(names):
            raise ValueError("an attribute is both changed and removed, or changed twice")
        if not {"pk", "sk", _MARK}.isdisjoint(names):
            raise ValueError(f"a Change cannot change its item's key or {_MARK}")
        check_item(change.set)
        check_item(change.add)
        sets = ", ".join(f"{self._name(name)} = {self._value(value)}" for name, value in change.set.items())
        clauses = [f"SET {self._name(_MARK)} = {self._value(mark)}" + (sets and ", ") + sets]
        if change.add:
            clauses.append("ADD " + ", ".join(f"{self._name(name)} {self._value(n)}" for name, n in change.add.items()))
        if change.remove:
            clauses.append("REMOVE " + ", ".join(map(self._name, change.remove)))
        return " ".join(clauses)

    def _name(self, name: str) -> str:
        return self._names.setdefault(name, f"#n{len(self._names)}")

    def _value(self, value: object) -> str:
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = _typed(value)
        return placeholder


def _failure(code: str, text: str) -> Exception | None:
    """What an error, or a reason of a cancelled transaction, is to the port. None: something else."""
    if code in _BUSY:
        return Busy(text)
    # DynamoDB tells these from other invalid requests by their text alone.
    if "Item size" in text:
        return TooLarge(text)
    if "operand" in text.lower() and "type" in text:
        return TypeError(text)
    return None


def _cut(whole: Sequence[T], size: int) -> list[Sequence[T]]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]


# Values, by hand: boto3's own way makes a Decimal of every number ---------------------------------------------------


def _typed_key(key: Key) -> Typed:
    return {"pk": {"S": key.pk}, "sk": {"S": key.sk}}


def _typed_item(item: Item) -> Typed:
    """Raises TypeError or ValueError for what is no item."""
    check_item(item)
    if _MARK in item:
        raise ValueError(f"{_MARK} is the table's own")
    return {name: _typed(value) for name, value in item.items()}


def _typed(value: object) -> Typed:
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int):
        return {"N": str(value)}
    if isinstance(value, bytes):
        return {"B": value}
    if isinstance(value, list):
        return {"L": [_typed(one) for one in value]}
    if isinstance(value, dict):
        return {"M": {name: _typed(one) for name, one in value.items()}}
    raise TypeError(f"a table cannot hold {value!r}")


def _item(typed: Mapping[str, Any] | None) -> Item | None:
    return None if typed is None else _plain_item(typed)


def _plain_item(typed: Mapping[str, Any]) -> Item:
    return {name: _plain(value) for name, value in typed.items() if name != _MARK}


def _plain(typed: Typed) -> Any:
    [(kind, value)] = typed.items()
    if kind == "N":
        return int(value)
    if kind == "L":
        return [_plain(one) for one in value]
    if kind == "M":
        return {name: _plain(one) for name, one in value.items()}
    return value


def _bears(typed: Mapping[str, Any] | None, mark: bytes) -> bool:
    return typed is not None and typed.get(_MARK) == {"B": mark}
