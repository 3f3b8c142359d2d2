from __future__ import annotations

import asyncio
from typing import Any

from rave_dist.serving.model_queue import GroupedLock


async def _order(turns: GroupedLock, groups: str) -> str:
    """The order in which waiters get their turn, all of whom came while somebody of group ``a`` had it."""
    order: list[str] = []
    at_once = 0

    async def one(group: str) -> None:
        nonlocal at_once
        async with turns.take(group):
            at_once += 1
            assert at_once == 1
            await asyncio.sleep(0)
            order.append(group)
            at_once -= 1

    async with turns.take("a"):
        tasks = [asyncio.create_task(one(group)) for group in groups]
        await asyncio.sleep(0)
        assert turns.num_waiting == len(groups)
    await asyncio.gather(*tasks)
    return "".join(order)


def test_same_group_goes_on_before_another_begins(run: Any) -> None:
    assert run(_order(GroupedLock(), "bababcabc")) == "aaabbbbcc"


def test_nobody_is_passed_more_often_than_patience_allows(run: Any) -> None:
    assert run(_order(GroupedLock(patience=3), "baaaaaaaa")) == "aaabaaaaa"


def test_waiter_that_gives_up_does_not_keep_the_turn(run: Any) -> None:
    async def give_up() -> str:
        turns = GroupedLock()
        order: list[str] = []

        async def one(name: str) -> None:
            async with turns.take(name):
                order.append(name)

        async with turns.take("x"):
            waiting = [asyncio.create_task(one(name)) for name in "abc"]
            await asyncio.sleep(0)
            waiting[0].cancel()
        waiting[1].cancel()  # its turn has just been given to it
        await asyncio.gather(*waiting, return_exceptions=True)
        async with turns.take("d"):
            order.append("d")
        return "".join(order)

    assert run(give_up()) == "cd"


def test_error_in_a_turn_hands_it_on(run: Any) -> None:
    async def fail() -> bool:
        turns = GroupedLock()
        try:
            async with turns.take("a"):
                raise ValueError
        except ValueError:
            pass
        async with turns.take("b"):
            return True

    assert run(fail())
