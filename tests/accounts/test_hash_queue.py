"""The queue for a password hash: who comes first, and who has to go."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from handlers.accounts.passwords import LATELY, Cost, Passwords, Purpose, Who
from infra.base.errors import Unavailable
from tests.conftest import TEST_SETTINGS
from tests.faults.load import encode, new_account
from tests.support.service import Service

CHEAP = Cost(2**10, 8, 1)
ONE, OTHER = "192.0.2.1", "192.0.2.2"
SITE = "2001:db8:1:{}::/64"
REGISTRATION = Purpose.REGISTRATION


class OneCore(Passwords):
    """It is busy until `free` is set."""

    def __init__(self) -> None:
        super().__init__(CHEAP)
        self.cores = 1
        self.executor = ThreadPoolExecutor(1)
        self.free = threading.Event()

    async def keep_busy(self) -> asyncio.Task[str]:
        self.executor.submit(self.free.wait)
        task = asyncio.create_task(self.hash("a long password", Who("somebody")))
        await asyncio.sleep(0)
        return task

    async def end(self) -> None:
        while self.running:  # noqa: ASYNC110 - a thread ends it
            await asyncio.sleep(0.01)
        assert self.queue == []
        self.close()


def order_of(asked: Sequence[Who], before: Sequence[Who]) -> list[int]:
    """In which order they have their turn when all ask at once while the only core is busy."""
    ended: list[int] = []

    async def hash_one(passwords: Passwords, number: int) -> None:
        await passwords.hash("a long password", asked[number])
        ended.append(number)

    async def main() -> None:
        passwords = OneCore()
        for who in before:
            await passwords.hash("a long password", who)
        busy = await passwords.keep_busy()
        tasks = [asyncio.create_task(hash_one(passwords, number)) for number in range(len(asked))]
        await asyncio.sleep(0)
        passwords.free.set()
        await asyncio.gather(busy, *tasks)
        await passwords.end()

    asyncio.run(main())
    return ended


@pytest.mark.parametrize(
    ("asked", "before", "order"),
    [
        pytest.param([Who(ONE)] * 4, (), [0, 1, 2, 3], id="as they come"),
        pytest.param([Who(ONE, REGISTRATION), Who(ONE, REGISTRATION), Who(ONE)], (), [2, 0, 1], id="log-ins first"),
        pytest.param([Who(OTHER, REGISTRATION), *[Who(ONE)] * 3], (), [1, 2, 3, 0], id="log-ins first, however many"),
        pytest.param([*[Who(ONE)] * 3, Who(OTHER)], (), [0, 3, 1, 2], id="in turn by address"),
        pytest.param([Who(ONE), Who(OTHER)], (Who(ONE),), [1, 0], id="the address that had fewer lately"),
        pytest.param([Who(SITE.format(3)), Who(ONE)], (Who(SITE.format(4)),), [1, 0], id="of one IPv6 site"),
        pytest.param([Who(ONE), Who(OTHER, known=True)], (), [1, 0], id="one that is known"),
        pytest.param([Who(OTHER), Who(ONE, known=True)], (Who(ONE),) * 9, [1, 0], id="known, though it had some"),
        pytest.param([Who(OTHER), Who(ONE, known=True)], (Who(ONE),) * 11, [0, 1], id="known, but had many"),
    ],
)
def test_the_order_of_turns(asked: list[Who], before: tuple[Who, ...], order: list[int]) -> None:
    assert order_of(asked, before) == order


def test_in_a_full_queue_the_last_one_makes_room_for_an_address_that_has_fewer() -> None:
    async def main() -> Counter[str]:
        passwords = OneCore()
        busy = await passwords.keep_busy()
        whole = [asyncio.create_task(passwords.hash("a long password", Who(ONE))) for _ in range(40)]
        await asyncio.sleep(0)
        other = asyncio.create_task(passwords.hash("a long password", Who(OTHER)))
        await asyncio.sleep(0)
        passwords.free.set()
        answers = await asyncio.gather(*whole, return_exceptions=True)
        assert await busy
        assert await other
        await passwords.end()
        return Counter(type(answer).__name__ for answer in answers)

    assert asyncio.run(main()) == {"str": 31, "Unavailable": 9}


@pytest.mark.parametrize("moment", [0, 1, 2, 5])
def test_a_client_that_goes_away_leaves_no_core_taken(moment: int) -> None:
    async def main() -> None:
        passwords = OneCore()
        passwords.free.set()
        tasks = [asyncio.create_task(passwords.hash("a long password", Who(str(n)))) for n in range(8)]
        for _ in range(moment):
            await asyncio.sleep(0.003)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await passwords.hash("a long password", Who(ONE))
        await passwords.end()

    asyncio.run(main())


def test_one_that_waits_too_long_is_told_so_and_its_place_goes_to_the_next() -> None:
    async def main() -> None:
        passwords = OneCore()
        passwords.queue_timeout = 0.05
        busy = await passwords.keep_busy()
        with pytest.raises(Unavailable):
            await passwords.hash("a long password", Who(ONE))
        assert passwords.queue == []
        passwords.free.set()
        assert await busy
        await passwords.end()

    asyncio.run(main())


def test_a_hash_that_was_never_made_counts_nowhere_and_makes_nobody_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the minute in which it was asked for, nor in the next, which has begun when it is given up."""
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock)

    async def main() -> None:
        nonlocal clock
        passwords = OneCore()
        busy = await passwords.keep_busy()
        tasks = [asyncio.create_task(passwords.hash("a long password", Who(ONE))) for _ in range(8)]
        await asyncio.sleep(0)
        clock += LATELY + 1
        other = asyncio.create_task(passwords.hash("a long password", Who(OTHER)))
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (passwords.lately[ONE], passwords.before[ONE]) == (0, 0)
        passwords.free.set()
        assert await busy
        assert await other
        await passwords.end()

    asyncio.run(main())


def test_with_a_flood_of_registrations_and_wrong_log_ins_a_log_in_from_elsewhere_takes_its_turn_soon() -> None:
    """With the hashes and the limits of production; the flood begins anew as soon as it is answered.

    Soon is 2 s, or what a few log-ins take by themselves where the machine does other work.
    """
    limits = {"LOGIN_RATE_LIMIT": "10/300", "REGISTER_RATE_LIMIT": "20/3600"}
    with Service({**TEST_SETTINGS, **limits}) as service:
        account = service.sign_up()
        right = {"login": account.username, "password": account.password}
        started = time.monotonic()
        service.log_in(account.username, account.password)
        alone = time.monotonic() - started

        async def hammer(number: int, stopping: asyncio.Event) -> None:
            while not stopping.is_set():
                client = f"203.0.113.{number % 4}"
                wrong = {"login": f"nobody-{number % 7}" if number % 3 else account.username, "password": "wrong one"}
                path, body = ("register", new_account()) if number % 2 else ("login", wrong)
                await ask_from(service.port, client, f"/v1/auth/{path}", body)

        async def main() -> list[tuple[int, float]]:
            stopping = asyncio.Event()
            flood = [asyncio.create_task(hammer(number, stopping)) for number in range(60)]
            await asyncio.sleep(0.5)
            found = []
            for number in range(5):
                started = time.monotonic()
                status = await ask_from(service.port, f"198.51.100.{number}", "/v1/auth/login", right)
                found.append((status, time.monotonic() - started))
            stopping.set()
            await asyncio.gather(*flood)
            return found

        found = asyncio.run(main())
    assert [status for status, _ in found] == [200] * 5
    assert max(seconds for _, seconds in found) < max(2, 8 * alone)


async def ask_from(port: int, client: str, path: str, body: object) -> int:
    """As a proxy on loopback tells it."""
    request = encode("POST", path, body).replace(b"\r\n", f"\r\nX-Forwarded-For: {client}\r\n".encode(), 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return int((await reader.read()).split(b" ", 2)[1])
    finally:
        writer.close()
