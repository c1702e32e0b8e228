"""What every table must do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.harness import Harness, K, item, started, turns
from waypost.core.ports import (
    Absent,
    AllOf,
    AnyOf,
    AtMost,
    Change,
    Condition,
    ConditionFailed,
    Delete,
    Equals,
    Key,
    Page,
    Present,
    Put,
    Table,
    TooLarge,
    Unavailable,
    Write,
)


async def pages(table: Table, pk: str = "p", **how: Any) -> list[Page]:
    found = [await table.query(pk, **how)]
    while found[-1].next is not None:
        found.append(await table.query(pk, after=found[-1].next, **how))
    return found


async def keys(table: Table, pk: str = "p", **how: Any) -> list[str]:
    return [one["sk"] for page in await pages(table, pk, **how) for one in page.items]


# Single items --------------------------------------------------------------------------------------------------------


async def test_every_kind_of_value_comes_back_as_it_went(engine: Harness) -> None:
    table = await engine.open()
    whole = item(
        text="ä\0\U0001f600",
        empty="",
        small=-(2**63),
        large=2**63 - 1,
        data=bytes(range(256)),
        yes=True,
        no=False,
        parts=[1, "a", [b"x", {"k": []}], True],
        map={"n": 0, "k": {"deep": [False]}},
    )
    await table.write(Put(whole))
    for again in (table, await engine.crash()):
        found = await again.get(K)
        assert found == whole
        assert found["yes"] is True
        assert [type(found[name]) for name in ("small", "data", "parts")] == [int, bytes, list]


@pytest.mark.needs("empty names")
async def test_a_name_within_a_map_may_be_empty(engine: Harness) -> None:
    table = await engine.open()
    await table.write(Put(item(map={"": 0})))
    assert await table.get(K) == item(map={"": 0})


@pytest.mark.parametrize("value", [1.5, None, 2**63, -(2**63) - 1, (1,), {1}, [None], {"k": 0.0}, {1: "a"}, [[2**64]]])
async def test_values_that_a_table_cannot_hold_are_refused(engine: Harness, value: object) -> None:
    table = await engine.open()
    with pytest.raises(TypeError):
        await table.write(Put(item(bad=value)))
    with pytest.raises(TypeError):
        await table.write(Change(K, set={"bad": value}))
    with pytest.raises(TypeError):
        await table.write_many([Put(item("other")), Put(item(bad=value))])
    assert await keys(table) == []


async def test_keys_of_more_than_1024_bytes_are_refused(engine: Harness) -> None:
    table = await engine.open()
    await table.write(Put(item("ä" * 512)))
    for sk in ("ä" * 512 + "x", ""):
        with pytest.raises(ValueError, match="key"):
            await table.write(Put(item(sk)))


async def test_what_a_caller_does_to_its_item_later_changes_nothing(engine: Harness) -> None:
    table = await engine.open()
    mine = item(parts=[1])
    await table.write(Put(mine))
    mine["parts"].append(2)
    assert await table.get(K) == item(parts=[1])


async def test_put_replaces_and_delete_removes(engine: Harness) -> None:
    table = await engine.open()
    assert await table.get(K) is None
    assert await table.write(Put(item(a=1, b=2))) == item(a=1, b=2)
    assert await table.write(Put(item(c=3))) == item(c=3)
    assert await table.get(K) == item(c=3)
    assert await table.write(Delete(K)) is None
    assert await table.get(K) is None
    assert await table.write(Delete(K)) is None


async def test_change_makes_sets_adds_and_removes(engine: Harness) -> None:
    table = await engine.open()
    assert await table.write(Change(K)) == item()
    assert await table.write(Change(K, set={"a": "x", "l": [1]}, add={"n": 5})) == item(a="x", l=[1], n=5)
    assert await table.write(Change(K, add={"n": -7}, remove=("a", "missing"))) == item(l=[1], n=-2)
    assert await table.get(K) == item(l=[1], n=-2)


async def test_change_refuses_what_means_two_things(engine: Harness) -> None:
    table = await engine.open()
    await table.write(Put(item(text="x", flag=True)))
    for wrong in (
        Change(K, set={"a": 1}, add={"a": 1}),
        Change(K, set={"a": 1}, remove=("a",)),
        Change(K, add={"a": 1}, remove=("a",)),
        Change(K, set={"sk": "other"}),
        Change(K, remove=("pk",)),
    ):
        with pytest.raises(ValueError, match=r"both|key"):
            await table.write(wrong)
    for name in ("text", "flag"):
        with pytest.raises(TypeError):
            await table.write(Change(K, add={name: 1}))
    assert await table.get(K) == item(text="x", flag=True)


# Conditions ----------------------------------------------------------------------------------------------------------

STANDING = item(n=5, zero=0, text="x", digits="5", yes=True, data=b"x", list=[])
DIFFERING = pytest.mark.needs("differing types")
TRUTH: list[Any] = [
    # condition, holds for STANDING, holds where there is no item
    (Absent("n"), False, True),
    (Absent("missing"), True, True),
    (Present("n"), True, False),
    (Present("list"), True, False),
    (Present("missing"), False, False),
    (Equals("n", 5), True, False),
    (Equals("n", 6), False, False),
    (Equals("zero", 0), True, False),
    (Equals("missing", 0), False, False),
    (Equals("text", "x"), True, False),
    (Equals("text", "X"), False, False),
    (Equals("digits", 5), False, False),
    (Equals("n", "5"), False, False),
    pytest.param(Equals("yes", 1), False, False, marks=DIFFERING),
    pytest.param(Equals("zero", False), False, False, marks=DIFFERING),
    (Equals("yes", True), True, False),
    (Equals("data", "x"), False, False),
    (AtMost("n", 4), False, False),
    (AtMost("n", 5), True, False),
    (AtMost("n", 6), True, False),
    (AtMost("zero", 0), True, False),
    (AtMost("missing", 9), False, False),
    pytest.param(AtMost("text", 9), False, False, marks=DIFFERING),
    pytest.param(AtMost("digits", 9), False, False, marks=DIFFERING),
    pytest.param(AtMost("yes", 9), False, False, marks=DIFFERING),
    pytest.param(AtMost("data", 9), False, False, marks=DIFFERING),
    (AllOf((Present("n"), Equals("text", "x"))), True, False),
    (AllOf((Present("n"), Equals("text", "y"))), False, False),
    (AllOf((Absent("a"), Absent("b"))), True, True),
    (AnyOf((Absent("n"), Equals("text", "x"))), True, True),
    (AnyOf((Equals("n", 1), AtMost("n", 1))), False, False),
    (AnyOf((AllOf((Equals("n", 1), Present("n"))), AllOf((Equals("n", 5), Absent("stop"))))), True, False),
    (AllOf((AnyOf((Equals("n", 5), Equals("n", 6))), Equals("text", "y"))), False, False),
    (AllOf((Equals("text", "y"), AnyOf((Equals("n", 6), Equals("n", 5))))), False, False),
    (AllOf((AllOf((AnyOf((Equals("n", 5), Equals("n", 6))),)), Present("n"))), True, False),
    (AllOf((AnyOf((Absent("n"), AtMost("n", 5))), AnyOf((Absent("text"), Equals("text", "x"))))), True, True),
]


@pytest.mark.parametrize(("condition", "with_item", "without"), TRUTH, ids=str)
async def test_conditions(engine: Harness, condition: Condition, with_item: bool, without: bool) -> None:
    table = await engine.open()
    for standing, expected in ((STANDING, with_item), (None, without)):
        writes: list[Write] = [Put(item(new=1), when=condition), Change(K, set={"new": 1}, when=condition)]
        writes.append(Delete(K, when=condition))
        for one in writes:
            await table.write(Delete(K) if standing is None else Put(standing))
            if expected:
                await table.write(one)
                continue
            with pytest.raises(ConditionFailed) as refused:
                await table.write(one)
            assert refused.value.key == K
            assert refused.value.item == standing
            assert await table.get(K) == standing


@pytest.mark.needs("lost answers")
async def test_the_lost_answer_of_a_conditional_write_is_success(engine: Harness) -> None:
    table = await engine.open()
    engine.lose_next_answer()
    assert await table.write(Put(item(a=1), when=Absent("pk"))) == item(a=1)
    engine.lose_next_answer()
    assert await table.write(Change(K, add={"a": 1}, when=Equals("a", 1))) == item(a=2)
    engine.lose_next_answer()
    await table.write_together([Put(item("t"), when=Absent("pk")), Change(K, add={"a": 1}, when=Equals("a", 2))])
    assert await (await engine.crash()).get(K) == item(a=3)


# Many at once --------------------------------------------------------------------------------------------------------


@pytest.mark.needs("races")
async def test_one_of_many_racing_puts_wins(engine: Harness) -> None:
    table = await engine.open()
    asked = [table.write(Put(item(by=n), when=Absent("pk"))) for n in range(100)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    winners = [one for one in answers if not isinstance(one, BaseException)]
    losers = [one for one in answers if isinstance(one, ConditionFailed)]
    assert (len(winners), len(losers)) == (1, 99)
    assert all(lost.item == winners[0] for lost in losers)
    assert await table.get(K) == winners[0]


@pytest.mark.needs("races")
async def test_no_versioned_change_is_lost_or_doubled(engine: Harness) -> None:
    table = await engine.open()
    await table.write(Put(item(ver=0, log=[])))

    async def add(name: int) -> None:
        seen = await table.get(K)
        while True:
            assert seen is not None
            entered = {"ver": seen["ver"] + 1, "log": [*seen["log"], name]}
            try:
                await table.write(Change(K, set=entered, when=Equals("ver", seen["ver"])))
                return
            except ConditionFailed as lost:
                seen = lost.item

    await asyncio.gather(*[add(n) for n in range(40)])
    found = await (await engine.crash()).get(K)
    assert found is not None
    assert found["ver"] == 40
    assert sorted(found["log"]) == list(range(40))


@pytest.mark.needs("races")
async def test_additions_add_up(engine: Harness) -> None:
    table = await engine.open()
    answers = await asyncio.gather(*[table.write(Change(K, add={"n": 1})) for _ in range(100)])
    assert sorted(one["n"] for one in answers if one) == list(range(1, 101))


@pytest.mark.needs("races")
async def test_of_racing_transactions_over_the_same_items_one_wins(engine: Harness) -> None:
    table = await engine.open()

    async def take(n: int) -> int | None:
        order = ("a", "b") if n % 2 else ("b", "a")
        try:
            await table.write_together([Put(item(sk, by=n), when=Absent("pk")) for sk in order])
        except ConditionFailed:
            return None
        return n

    winners = [n for n in await asyncio.gather(*[take(n) for n in range(20)]) if n is not None]
    assert len(winners) == 1
    assert [one and one["by"] for one in await table.get_many([Key("p", "a"), Key("p", "b")])] == winners * 2


async def test_get_many_keeps_the_order(engine: Harness) -> None:
    table = await engine.open()
    await table.write_many([Put(item(f"{n:03}", n=n)) for n in range(0, 250, 2)])
    wanted = [n * 37 % 250 for n in range(250)]
    found = await table.get_many([Key("p", f"{n:03}") for n in wanted])
    assert [one and one["n"] for one in found] == [n if n % 2 == 0 else None for n in wanted]
    assert await table.get_many([]) == []


async def test_write_many_takes_any_number(engine: Harness) -> None:
    table = await engine.open()
    await table.write_many([])
    await table.write_many([Put(item(f"{n:04}")) for n in range(1500)])
    writes: list[Put | Delete] = [Delete(Key("p", f"{n:04}")) for n in range(0, 1500, 2)]
    await table.write_many([*writes, Put(item("new"))])
    table = await engine.crash()
    assert await keys(table) == [*(f"{n:04}" for n in range(1, 1500, 2)), "new"]


async def test_write_many_refuses_doubles_and_conditions(engine: Harness) -> None:
    table = await engine.open()
    with pytest.raises(ValueError, match="one key"):
        await table.write_many([Put(item()), Delete(K)])
    with pytest.raises(ValueError, match="condition"):
        await table.write_many([Put(item("a")), Put(item("b"), when=Absent("pk"))])
    assert await keys(table) == []


async def test_mixed_writes_together_are_all_or_none(engine: Harness) -> None:
    table = await engine.open()
    await table.write_many([Put(item("change", n=1)), Put(item("delete"))])

    def writes(n: int) -> list[Write]:
        return [
            Put(item("put"), when=Absent("pk")),
            Change(Key("p", "change"), add={"n": 1}, when=Equals("n", n)),
            Delete(Key("p", "delete"), when=Present("pk")),
        ]

    with pytest.raises(ConditionFailed) as refused:
        await table.write_together(writes(2))
    assert refused.value.key == Key("p", "change")
    assert refused.value.item == item("change", n=1)
    assert await keys(table) == ["change", "delete"]
    await table.write_together(writes(1))
    table = await engine.crash()
    assert [page.items for page in await pages(table)] == [[item("change", n=2), item("put")]]


async def test_the_first_refused_is_named(engine: Harness) -> None:
    table = await engine.open()
    with pytest.raises(ConditionFailed) as refused:
        await table.write_together([Put(item("a")), Put(item("b"), when=Present("x"))])
    assert refused.value.key == Key("p", "b")
    assert refused.value.item is None
    with pytest.raises(ConditionFailed) as refused:
        await table.write_together([Put(item(sk), when=Present("x")) for sk in "zab"])
    assert refused.value.key == Key("p", "z")


async def test_writes_together_are_distinct_and_at_most_100(engine: Harness) -> None:
    table = await engine.open()
    await table.write_together([])
    await table.write_together([Put(item(f"{n:03}")) for n in range(100)])
    too_many: list[Write] = [Put(item(f"x{n:03}")) for n in range(101)]
    doubled: list[Write] = [Put(item("x")), Delete(Key("p", "x"))]
    for wrong in (too_many, doubled):
        with pytest.raises(ValueError, match=r"100|one key"):
            await table.write_together(wrong)
    assert len(await keys(table)) == 100


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("400 KB")
async def test_items_up_to_400_kb(engine: Harness) -> None:
    table = await engine.open()
    fits = item(data=b"x" * (400 * 1024 - 100))
    await table.write(Put(fits))
    with pytest.raises(TooLarge):
        await table.write(Change(K, set={"more": "y" * 200}))
    with pytest.raises(TooLarge):
        await table.write_together([Put(item("a")), Put(item("b", data=b"x" * 400 * 1024))])
    with pytest.raises(TooLarge):
        await table.write_many([Put(item("a")), Put(item("b", data=b"x" * 400 * 1024))])
    table = await engine.crash()
    assert [page.items for page in await pages(table)] == [[fits]]


@pytest.mark.needs("400 KB")
@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_page_ends_at_1_mb(engine: Harness, newest_first: bool) -> None:
    table = await engine.open()
    for n in range(8):
        await table.write(Put(item(str(n), data=b"x" * 300 * 1024)))
    found = await pages(table, newest_first=newest_first)
    assert [len(page.items) for page in found] == [3, 3, 2]
    assert [one["sk"] for page in found for one in page.items] == sorted("01234567", reverse=newest_first)


# Queries -------------------------------------------------------------------------------------------------------------


async def test_order_is_that_of_code_points(engine: Harness) -> None:
    table = await engine.open()
    order = ["!", "0", "A", "a", "a\0", "a!", "ä", "\uffff", "\U00010000", "\U0001f600"]
    await table.write_many([Put(item(sk)) for sk in reversed(order)])
    for limit in (1, 3, 100):
        assert await keys(table, limit=limit) == order
        assert await keys(table, limit=limit, newest_first=True) == order[::-1]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 31, 32, 33, 64, 69, 70, 71, 100])
async def test_pages_neither_lose_nor_repeat(engine: Harness, limit: int, newest_first: bool) -> None:
    table = await engine.open()
    await table.write_many([Put(item(f"{n:02}")) for n in range(80)])
    await table.write_many([Put(item("05", pk="o")), Put(item("05", pk="q"))])
    found = await pages(table, first="05", last="74", limit=limit, newest_first=newest_first)
    expected = [f"{n:02}" for n in range(5, 75)]
    assert [one["sk"] for page in found for one in page.items] == (expected[::-1] if newest_first else expected)
    assert all(len(page.items) <= limit for page in found)
    assert all(len(page.items) == limit for page in found[:-1])


async def test_bounds_are_inclusive_and_may_be_empty(engine: Harness) -> None:
    table = await engine.open()
    await table.write_many([Put(item(sk)) for sk in "bdf"])
    assert await keys(table, first="b", last="d") == ["b", "d"]
    assert await keys(table, first="c", last="e") == ["d"]
    assert await keys(table, first="e", last="c") == []
    assert await keys(table, first="g") == []
    assert await keys(table, pk="nobody") == []
    assert (await table.query("p", after="f")).items == []
    assert (await table.query("p", after="b", newest_first=True)).items == []
    # A cursor outside of the range does not widen it.
    assert [one["sk"] for one in (await table.query("p", first="d", after="a")).items] == ["d", "f"]
    assert [one["sk"] for one in (await table.query("p", last="d", after="z", newest_first=True)).items] == ["d", "b"]
    with pytest.raises(ValueError, match="page"):
        await table.query("p", limit=0)


@pytest.mark.needs("held commits")
@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 50])
async def test_queries_see_what_is_decided_over_what_is_committed(
    engine: Harness, limit: int, newest_first: bool
) -> None:
    table = await engine.open()
    await table.write_many([Put(item(sk, n=0)) for sk in "abcdefgh"])
    engine.hold_commits()
    first = [table.write(Delete(Key("p", sk))) for sk in "abdh"]
    under_way = await started(*first, table.write(Put(item("bb", n=1))), table.write(Put(item("c", n=1))))
    second = [table.write(Put(item("d", n=2))), table.write(Put(item("z", n=2)))]
    under_way += await started(*second, table.write(Delete(Key("p", "bb"))), table.write(Delete(Key("p", "e"))))
    [reading] = await started(pages(table, limit=limit, newest_first=newest_first))
    assert not reading.done()
    engine.release()
    expected = [item(sk, n=n) for sk, n in (("c", 1), ("d", 2), ("f", 0), ("g", 0), ("z", 2))]
    found = [one for page in await reading for one in page.items]
    assert found == (expected[::-1] if newest_first else expected)
    await asyncio.gather(*under_way)


async def test_a_partition_deleted_while_it_is_read_page_by_page(engine: Harness) -> None:
    table = await engine.open()
    await table.write_many([Put(item(f"{n:03}")) for n in range(120)])
    seen: list[str] = []
    after = None
    while True:
        page = await table.query("p", limit=7, after=after)
        seen += [one["sk"] for one in page.items]
        await table.write_many([Delete(Key("p", one["sk"])) for one in page.items])
        after = page.next
        if after is None:
            break
    assert seen == [f"{n:03}" for n in range(120)]
    assert await keys(table) == []


# Expiry --------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("expiry on demand")
async def test_expired_items_go_and_others_stay(engine: Harness) -> None:
    table = await engine.open()
    await table.write_many([Put(item(f"{n:03}", ttl=n)) for n in range(30)])
    await table.write_many([Put(item("never")), Put(item("text", ttl="5")), Put(item("true", ttl=True))])
    await table.write(Change(Key("p", "004"), set={"ttl": 1000}))
    await table.write(Change(Key("p", "005"), remove=("ttl",)))
    dropped = [await engine.expire(9, limit=6), await engine.expire(9, limit=6), await engine.expire(9)]
    assert dropped == [6, 2, 0]
    table = await engine.crash()
    assert await keys(table) == ["004", "005", *(f"{n:03}" for n in range(10, 30)), "never", "text", "true"]


@pytest.mark.needs("expiry on demand", "held commits")
async def test_an_item_whose_life_is_being_prolonged_does_not_expire(engine: Harness) -> None:
    table = await engine.open()
    await table.write_many([Put(item("a", ttl=5)), Put(item("b", ttl=5)), Put(item("c", ttl=50))])
    engine.hold_commits()
    longer, shorter, sweep = await started(
        table.write(Change(Key("p", "a"), set={"ttl": 50})),
        table.write(Change(Key("p", "b"), set={"n": 1})),
        engine.expire(9),
    )
    engine.release()
    await asyncio.gather(longer, shorter)
    assert await sweep == 1
    assert await keys(table) == ["a", "c"]


# The two rules of the group commit -----------------------------------------------------------------------------------


@pytest.mark.needs("held commits")
async def test_nothing_is_answered_that_a_crash_can_undo(engine: Harness) -> None:
    table = await engine.open()
    await table.write(Put(item("gone")))
    engine.hold_commits()
    writes = await started(table.write(Put(item(by=1), when=Absent("pk"))), table.write(Delete(Key("p", "gone"))))
    rests_on_it = await started(
        table.write(Put(item(by=2), when=Absent("pk"))),
        table.write(Delete(K, when=Equals("by", 2))),
        table.write(Change(Key("p", "gone"), when=Present("pk"))),
        table.write_together([Put(item("other")), Put(item(by=3), when=Absent("pk"))]),
        table.write_together([Put(item(by=1), when=Equals("by", 1)), Put(item("other"), when=Present("pk"))]),
        table.get(K),
        table.get(Key("p", "gone")),
        table.get_many([Key("p", "other"), K]),
        table.query("p"),
        table.query("p", first="gone", last="gone"),
    )
    rests_on_nothing = await started(
        table.get(Key("p", "other")),
        table.query("p", first="t"),
        table.query("q"),
        table.write(Put(item("other"), when=Present("pk"))),
    )
    assert [task.done() for task in rests_on_nothing] == [True] * 4
    assert isinstance(rests_on_nothing[-1].exception(), ConditionFailed)
    assert not any(task.done() for task in writes + rests_on_it)
    table = await engine.crash()
    await turns()
    assert not any(task.done() for task in writes + rests_on_it)
    assert await keys(table) == ["gone"]


@pytest.mark.needs("held commits")
async def test_what_rests_on_two_commits_waits_for_the_later(engine: Harness) -> None:
    table = await engine.open()
    engine.hold_commits()
    first = await started(table.write(Put(item("a"))))
    second = await started(table.write(Put(item("b"))))
    both = [Key("p", "a"), Key("p", "b")]
    reads = await started(table.get_many(both), table.get_many(both[::-1]), table.query("p"), table.get(both[1]))
    [page] = await started(table.query("p", limit=1, newest_first=True))
    [early] = await started(table.get(both[0]))
    engine.release(1)
    await asyncio.gather(*first, early)
    await turns()
    assert not any(task.done() for task in [*second, *reads, page])
    assert await keys(await engine.crash()) == ["a"]


@pytest.mark.needs("held commits")
async def test_decisions_stack_over_several_commits_to_come(engine: Harness) -> None:
    table = await engine.open()
    engine.hold_commits()
    under_way = []
    for n in range(6):
        under_way += await started(table.write(Change(K, add={"n": 1}, when=None if n == 0 else Equals("n", n))))
    [reading] = await started(table.get(K))
    engine.release()
    assert [one["n"] for one in await asyncio.gather(*under_way)] == [1, 2, 3, 4, 5, 6]
    assert await reading == item(n=6)


@pytest.mark.needs("held commits")
async def test_a_loser_is_told_after_the_winners_commit(engine: Harness) -> None:
    table = await engine.open()
    engine.hold_commits()
    winner, loser = await started(
        table.write(Put(item(by=1), when=Absent("pk"))), table.write(Put(item(by=2), when=Absent("pk")))
    )
    assert not loser.done()
    engine.release()
    with pytest.raises(ConditionFailed) as refused:
        await loser
    assert refused.value.item == item(by=1)
    assert await winner == item(by=1)
    assert await (await engine.crash()).get(K) == item(by=1)


@pytest.mark.needs("held commits")
async def test_a_relaxed_write_returns_at_once_and_its_readers_wait(engine: Harness) -> None:
    table = await engine.open()
    engine.hold_commits()
    assert await table.write(Put(item(by=1)), relaxed=True) == item(by=1)
    reader, loser = await started(table.get(K), table.write(Put(item(by=2), when=Absent("pk")), relaxed=True))
    assert not reader.done()
    assert not loser.done()
    engine.release()
    assert await reader == item(by=1)
    with pytest.raises(ConditionFailed):
        await loser


@pytest.mark.needs("held commits")
async def test_a_relaxed_write_is_durable_with_whatever_is_decided_after_it(engine: Harness) -> None:
    table = await engine.open()
    for n in range(20):
        await table.write(Put(item("relaxed", n=n)), relaxed=True)
        if n % 3 == 0:
            await turns()
        await table.write(Put(item("later", n=n)))
        table = await engine.crash()
        assert await table.get(Key("p", "relaxed")) == item("relaxed", n=n)
    engine.hold_commits()
    await table.write(Put(item("relaxed", n=99)), relaxed=True)
    await started(table.write(Put(item("later", n=99))))
    table = await engine.crash()
    assert [one["n"] for page in await pages(table) for one in page.items] == [19, 19]


@pytest.mark.needs("held commits")
async def test_a_failed_commit_fails_all_that_was_decided_since(engine: Harness) -> None:
    table = await engine.open()
    await table.write_many([Put(item("a", n=1)), Put(item("b", n=1))])
    engine.hold_commits()
    engine.fail_next_commit()
    under_way = await started(table.write(Change(Key("p", "a"), add={"n": 1})), table.write(Put(item("c"))))
    since = await started(
        table.write(Change(Key("p", "b"), add={"n": 1})),
        table.get(Key("p", "a")),
        table.write(Put(item("c"), when=Absent("pk"))),
        table.query("p"),
        table.write_many([Put(item("d"))]),
    )
    await table.write(Put(item("e")), relaxed=True)
    engine.release()
    for task in under_way + since:
        with pytest.raises(Unavailable, match="no space"):
            await task
    # The table works on, from what is committed.
    assert [page.items for page in await pages(table)] == [[item("a", n=1), item("b", n=1)]]
    assert await table.write(Change(Key("p", "a"), add={"n": 10})) == item("a", n=11)
    table = await engine.crash()
    assert [page.items for page in await pages(table)] == [[item("a", n=11), item("b", n=1)]]


@pytest.mark.needs("held commits")
async def test_whoever_gives_up_waiting_harms_nobody(engine: Harness) -> None:
    table = await engine.open()
    engine.hold_commits()
    quits, stays, reader = await started(table.write(Put(item("a"))), table.write(Put(item("b"))), table.query("p"))
    quits.cancel()
    await turns()
    assert quits.cancelled()
    engine.release()
    assert await stays == item("b")
    assert (await reader).items == [item("a"), item("b")]


# Against a model -----------------------------------------------------------------------------------------------------

Model = dict[Key, dict[str, Any]]
_KEYS = [Key(pk, sk) for pk in "pq" for sk in "abc"]
_WHEN = st.sampled_from(["", "absent", "present", "v<=2", "v=1", "absent or v=3"])
_CONDITIONS: dict[str, Condition | None] = {
    "": None,
    "absent": Absent("v"),
    "present": Present("v"),
    "v<=2": AtMost("v", 2),
    "v=1": Equals("v", 1),
    "absent or v=3": AnyOf((Absent("v"), Equals("v", 3))),
}
_WRITE = st.tuples(st.sampled_from(["put", "set", "add", "delete"]), st.sampled_from(_KEYS), _WHEN, st.integers(0, 4))
_STEP = st.one_of(
    _WRITE.map(lambda one: ("write", [one])),
    _WRITE.map(lambda one: ("relaxed", [one])),
    st.lists(_WRITE, min_size=2, max_size=4, unique_by=lambda one: one[1]).map(lambda many: ("together", many)),
    st.tuples(st.sampled_from("pq"), st.integers(1, 4), st.booleans()).map(lambda how: ("query", how)),
    st.sampled_from(_KEYS).map(lambda key: ("get", key)),
    st.sampled_from(["turn", "hold", "release", "crash", "drain"]).map(lambda name: (name, None)),
)


def meets(when: str, one: dict[str, Any] | None) -> bool:
    v = None if one is None else one.get("v")
    return {
        "": True,
        "absent": v is None,
        "present": v is not None,
        "v<=2": v is not None and v <= 2,
        "v=1": v == 1,
        "absent or v=3": v is None or v == 3,
    }[when]


def apply(model: Model, writes: Sequence[tuple[str, Key, str, int]]) -> tuple[Model, Any]:
    """The model after the writes, and what the last of them answers; the refused key if one is refused."""
    after = dict(model)
    answer: Any = None
    for kind, key, when, n in writes:
        have = model.get(key)
        if not meets(when, have):
            return model, ("refused", key, have)
        if kind == "delete":
            after.pop(key, None)
            answer = None
            continue
        fresh = {"pk": key.pk, "sk": key.sk}
        if kind == "put":
            answer = fresh | {"v": n}
        elif kind == "set":
            answer = (have or fresh) | {"w": n}
        else:
            answer = (have or fresh) | {"v": (have or {}).get("v", 0) + n}
        after[key] = answer
    return after, answer


def to_write(kind: str, key: Key, when: str, n: int) -> Write:
    condition = _CONDITIONS[when]
    if kind == "put":
        return Put({"pk": key.pk, "sk": key.sk, "v": n}, when=condition)
    if kind == "delete":
        return Delete(key, when=condition)
    return Change(key, set={"w": n} if kind == "set" else {}, add={"v": n} if kind == "add" else {}, when=condition)


def page_of(model: Model, pk: str, limit: int, newest_first: bool) -> list[Any]:
    found = [model[key] for key in sorted((key for key in model if key.pk == pk), reverse=newest_first)]
    return found[:limit] + ["more"] * (len(found) > limit)


def since_when(answers: Sequence[Any]) -> int:
    """The moment since which the answer has been what it is now: a crash to before it would belie it."""
    moment = len(answers) - 1
    while moment and answers[moment - 1] == answers[-1]:
        moment -= 1
    return moment


async def ask_page(table: Table, pk: str, limit: int, newest_first: bool) -> list[Any]:
    page = await table.query(pk, limit=limit, newest_first=newest_first)
    return [*page.items] + ["more"] * (page.next is not None)


async def answer_of(call: Any) -> Any:
    try:
        return await call
    except ConditionFailed as refused:
        return ("refused", refused.key, refused.item)


async def contents(table: Table) -> Model:
    return {Key(one["pk"], one["sk"]): dict(one) for pk in "pq" for one in (await table.query(pk)).items}


async def tell(engine: Harness, steps: Sequence[tuple[str, Any]]) -> None:
    """Every answer is the model's, and after a crash stands what was decided up to some moment, no earlier than the
    last that anybody was told of."""
    table = await engine.open()
    history: list[Model] = [{}]
    # The task, what it must answer, and the moment that its answer rests on.
    asked: list[tuple[asyncio.Task[Any], Any, int]] = []

    def ask(call: Any, expected: Any, moment: int) -> None:
        asked.append((asyncio.create_task(answer_of(call)), expected, moment))

    def told() -> int:
        latest = 0
        for task, expected, moment in asked:
            if task.done():
                assert task.result() == expected
                latest = max(latest, moment)
        return latest

    for name, what in steps:
        if name in ("write", "relaxed", "together"):
            model, expected = apply(history[-1], what)
            writes = [to_write(*one) for one in what]
            if isinstance(expected, tuple):
                moment = since_when([apply(model, what)[1] for model in history])
            else:
                history.append(model)
                moment = 0 if name == "relaxed" else len(history) - 1
            if name != "together":
                ask(table.write(writes[0], relaxed=name == "relaxed"), expected, moment)
            else:
                ask(table.write_together(writes), expected if isinstance(expected, tuple) else None, moment)
        elif name == "get":
            ask(table.get(what), history[-1].get(what), since_when([model.get(what) for model in history]))
        elif name == "query":
            answers = [page_of(model, *what) for model in history]
            ask(ask_page(table, *what), answers[-1], since_when(answers))
        elif name == "hold":
            await turns()
            engine.hold_commits()
        elif name == "release":
            engine.release()
        elif name == "crash":
            await turns()
            latest = told()
            table = await engine.crash()
            standing = await contents(table)
            assert standing in history[latest:]
            history, asked = [standing], []
        elif name == "drain":
            engine.release()
            await asyncio.gather(*(task for task, _, _ in asked))
        else:
            await turns()
    engine.release()
    await asyncio.gather(*(task for task, _, _ in asked))
    told()
    assert await contents(table) == history[-1]


@pytest.mark.needs("held commits")
@settings(
    max_examples=200,
    deadline=None,
    # Each example makes an engine of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(_STEP, min_size=5, max_size=60))
def test_any_history_is_that_of_a_plain_dict(new_engine: Callable[[], Harness], steps: list[tuple[str, Any]]) -> None:
    engine = new_engine()
    try:
        asyncio.run(tell(engine, steps))
    finally:
        engine.close()
