"""Time limits: as `asyncio.timeout()`, for which one timer is enough."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from infra.base.time_limits import TimeLimit
from tests.faults.scenarios import NEW_LOOP

Result = TypeVar("Result")
LONG = 30.0  # seconds


def play(scenario: Callable[[], Awaitable[Result]], loop: str = "uvloop") -> Result:
    async def main() -> Result:
        async with asyncio.timeout(10):
            return await scenario()

    with asyncio.Runner(loop_factory=NEW_LOOP[loop]) as runner:
        return runner.run(main())


async def begin_to_wait(limit: TimeLimit) -> asyncio.Task[None]:
    """A task that is in a block now, and would be for long."""

    async def block() -> None:
        with limit():
            await asyncio.sleep(LONG)

    task = asyncio.create_task(block())
    await asyncio.sleep(0.01)
    return task


@pytest.mark.parametrize("loop", NEW_LOOP)
def test_what_takes_too_long_is_cancelled_and_raises_timeout_error(loop: str) -> None:
    async def scenario() -> str:
        limit = TimeLimit(0.05)
        try:
            with limit():
                await asyncio.sleep(LONG)
        except TimeoutError:
            await asyncio.sleep(0)  # the task itself goes on
            return "timed out"
        return "went on"

    assert play(scenario, loop) == "timed out"


def test_what_ends_in_time_is_left_alone() -> None:
    async def scenario() -> int:
        limit = TimeLimit(0.05)
        for _ in range(100):
            with limit():
                await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        return len(limit.running)

    assert play(scenario) == 0


def test_each_block_has_its_own_end() -> None:
    ended: list[int] = []

    async def scenario() -> None:
        limit = TimeLimit(0.3)

        async def block(number: int) -> None:
            with pytest.raises(TimeoutError), limit():
                await asyncio.sleep(LONG)
            ended.append(number)

        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(block(number)))
            await asyncio.sleep(0.02)
        assert ended == []
        await asyncio.gather(*tasks)

    play(scenario)
    assert ended == [0, 1, 2, 3, 4]


def test_a_block_that_ends_early_does_not_take_the_timer_of_the_others_along() -> None:
    async def scenario() -> None:
        limit = TimeLimit(0.1)
        with limit():
            pass
        with pytest.raises(TimeoutError), limit():
            await asyncio.sleep(LONG)

    play(scenario)


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def scenario() -> bool:
        limit = TimeLimit(LONG)
        task = await begin_to_wait(limit)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled() and not limit.running

    assert play(scenario)


def test_a_cancellation_at_the_same_moment_is_not_swallowed() -> None:
    async def scenario() -> bool:
        limit = TimeLimit(LONG)
        task = await begin_to_wait(limit)
        task.cancel()
        next(iter(limit.running)).expire()
        await asyncio.wait([task])
        return task.cancelled()

    assert play(scenario)


def test_limits_may_lie_within_each_other() -> None:
    async def scenario() -> list[str]:
        outer, inner = TimeLimit(LONG), TimeLimit(0.05)
        seen = []
        with outer():
            try:
                with inner():
                    await asyncio.sleep(LONG)
            except TimeoutError:
                seen.append("inner")
            seen.append("outer goes on")
        return seen

    assert play(scenario) == ["inner", "outer goes on"]


def test_another_error_is_not_replaced() -> None:
    async def scenario() -> None:
        with TimeLimit(LONG)():
            raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        play(scenario)
