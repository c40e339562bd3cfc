"""More work than there is room for: the excess is told so at once, the rest is done, and probes are answered."""

import asyncio
import hashlib
import math
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from handlers.accounts import passwords
from infra.base.errors import Unavailable
from tests.conftest import TEST_SETTINGS, StartService
from tests.faults.load import QuickService, ask
from tests.faults.scenarios import Environment, connections, eventually, locked_row
from tests.support.servers import MariaDB
from tests.support.service import Service
from tests.support.wire import Answer, assert_problem

LIVE_WITHIN = 2.0  # seconds, on a machine that does other work too; the contract says 0.25


async def watch_live(port: int, stopping: asyncio.Event) -> list[float]:
    """How long /health/live took, again and again until it is told to stop."""
    seconds = []
    while not stopping.is_set():
        started = time.monotonic()
        assert (await ask(port, "GET", "/health/live")).status_code == 200
        seconds.append(time.monotonic() - started)
        await asyncio.sleep(0.02)
    return seconds


async def flood(port: int, requests: list[tuple[str, str, object, str]]) -> tuple[list[Answer], list[float]]:
    """All at once, and how long /health/live took meanwhile."""
    stopping = asyncio.Event()
    watching = asyncio.create_task(watch_live(port, stopping))
    answers = await asyncio.gather(*(ask(port, *request) for request in requests))
    stopping.set()
    return answers, await watching


def check_refused(answers: list[Answer]) -> None:
    for answer in answers:
        if answer.status_code != 200:
            assert_problem(answer, 503)
            assert int(answer.headers["retry-after"]) > 0


def test_a_flood_of_200_logins_is_answered_or_refused_and_health_goes_on(start_service: StartService) -> None:
    service = start_service()
    account = service.sign_up()
    body = {"login": account.username, "password": account.password}
    answers, live = asyncio.run(flood(service.port, [("POST", "/v1/auth/login", body, "")] * 200))
    statuses = Counter(answer.status_code for answer in answers)
    check_refused(answers)
    assert statuses[200] > 0
    assert statuses[503] > 0
    assert max(live) < LIVE_WITHIN


def test_ten_times_the_concurrency_is_refused_at_once_and_the_rest_answered(
    start_quick_service: StartService, mariadb: MariaDB, mysql_env: Environment
) -> None:
    service = start_quick_service(**mysql_env, MAX_CONCURRENCY=20, MYSQL_POOL_MAX_SIZE=20, MYSQL_POOL_TIMEOUT=30)
    account = service.sign_up()
    change = {"username": "New-name", "current_password": account.password}
    rename = ("PATCH", "/v1/auth/me", change, account.access_token)

    async def main() -> list[Answer]:
        tasks = [asyncio.create_task(ask(service.port, *rename)) for _ in range(200)]
        with locked_row(mariadb, mysql_env, account.id):  # nobody whose turn it is can go on
            async with asyncio.timeout(9):
                while sum(task.done() for task in tasks) < 180:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert (await ask(service.port, "GET", "/health/live")).status_code == 200
        return await asyncio.gather(*tasks)

    answers = asyncio.run(main())
    check_refused(answers)
    assert Counter(answer.status_code for answer in answers) == {503: 180, 200: 20}


def test_ten_times_the_connections_are_refused_when_all_are_in_use_and_none_is_lost(
    start_quick_service: StartService, mariadb: MariaDB, mysql_env: Environment
) -> None:
    service = start_quick_service(**mysql_env, MYSQL_POOL_MAX_SIZE=2, MYSQL_POOL_TIMEOUT=0.3)
    account = service.sign_up()
    read = ("GET", "/v1/auth/me", None, account.access_token)

    def in_use() -> bool:
        return sum("UPDATE" in (row["info"] or "") for row in connections(mariadb, mysql_env)) == 2

    async def use_all(name: str) -> tuple[list[Answer], list[Answer]]:
        change = {"username": name, "current_password": account.password}
        rename = ("PATCH", "/v1/auth/me", change, account.access_token)
        with locked_row(mariadb, mysql_env, account.id):
            holders = [asyncio.create_task(ask(service.port, *rename)) for _ in range(2)]
            assert await asyncio.to_thread(eventually, in_use)
            refused = await asyncio.gather(*(ask(service.port, *read) for _ in range(20)))
        return refused, await asyncio.gather(*holders)

    for name in ("First-name", "Second-name"):
        refused, accepted = asyncio.run(use_all(name))
        check_refused(refused)
        assert Counter(answer.status_code for answer in refused) == {503: 20}
        assert [answer.json().get("username") for answer in accepted] == [name, name]
        assert asyncio.run(ask(service.port, *read)).json() in [answer.json() for answer in accepted]


def test_one_connection_serves_ten_times_its_requests_in_turn(start_service: StartService) -> None:
    service = start_service("mysql+redis", MYSQL_POOL_MAX_SIZE=1)
    account = service.sign_up()
    requests: list[tuple[str, str, object, str]] = [("GET", "/v1/auth/sessions", None, account.access_token)] * 100
    answers, _ = asyncio.run(flood(service.port, requests))
    assert {answer.status_code for answer in answers} == {200}


def fill_stdout(service: Service) -> None:
    for _ in range(60):
        service.client.get("/nothing", headers={"User-Agent": "x" * 8000})


class Unread(QuickService):
    """Nobody reads its stdout until it is `opened`."""

    def __init__(self, env: Environment) -> None:
        self.opened = threading.Event()
        super().__init__(env)

    def read_output(self) -> None:
        self.opened.wait(60)
        super().read_output()


class Closed(Unread):
    """Its stdout is closed at the other end."""

    def read_output(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.parametrize("how", ["closed", "stalled", "slow"])
def test_a_stdout_that_is_closed_stalled_or_slow_costs_lines_and_nothing_else(how: str) -> None:
    with (Closed if how == "closed" else Unread)(TEST_SETTINGS | {"LOG_LEVEL": "DEBUG"}) as service:
        before = int(Path(f"/proc/{service.pid}/statm").read_text().split()[1])
        started = time.monotonic()
        for _ in range(25):
            fill_stdout(service)
            if how == "slow":
                service.opened.set()
        assert time.monotonic() - started < 30
        assert int(Path(f"/proc/{service.pid}/statm").read_text().split()[1]) - before < 30 * 256  # pages: 30 MiB
        service.opened.set()
        if how == "stalled":
            service.wait_for_log(message="log lines were dropped because they could not be written fast enough")
        assert service.client.get("/health/live").status_code == 200


WHO = passwords.Who("192.0.2.1")


def slow() -> passwords.Cost:
    """Of a hash that takes a second here, or longer."""
    started = time.monotonic()
    hashlib.scrypt(b"", salt=bytes(16), n=2**14, r=8, p=1, maxmem=2**26)
    return passwords.Cost(2**14, 8, math.ceil(1 / (time.monotonic() - started)))


def test_a_password_whose_turn_does_not_come_in_time_is_refused() -> None:
    async def main() -> list[str | BaseException]:
        hashes = passwords.Passwords(slow(), queue_timeout=0.2)
        asked = [hashes.hash("a long password", WHO) for _ in range(hashes.cores + 1)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert (hashes.running, hashes.queue) == (0, [])
        hashes.close()
        return answers

    *hashed, late = asyncio.run(main())
    assert all(isinstance(one, str) for one in hashed)
    assert isinstance(late, Unavailable)


def test_a_password_whose_turn_would_come_too_late_is_refused_at_once() -> None:
    refused_first: list[bool] = []

    async def main() -> None:
        hashes = passwords.Passwords(slow(), queue_timeout=1.5)
        hashes.hash_seconds = 1
        asked = [asyncio.create_task(hashes.hash("a long password", WHO)) for _ in range(hashes.cores * 3)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await hashes.hash("one too many", WHO)
        refused_first.append(not any(task.done() for task in asked))
        await asyncio.gather(*asked, return_exceptions=True)
        hashes.hash_seconds = 1
        await hashes.hash("there is room again", WHO)
        hashes.close()

    asyncio.run(main())
    assert refused_first == [True]


def test_how_long_a_hash_takes_is_learned() -> None:
    async def main() -> float:
        hashes = passwords.Passwords(slow())
        await asyncio.gather(*(hashes.hash("a long password", WHO) for _ in range(hashes.cores)))
        hashes.close()
        return hashes.hash_seconds

    assert asyncio.run(main()) > passwords.HASH_SECONDS * 1.5
