"""Ten times what the service can do, asked by the clock whether it has answered or not."""

import asyncio
import os
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from handlers.accounts.passwords import QUEUE_TIMEOUT, available_cores
from tests.faults.load import HANG, ask, encode
from tests.support.proxy import Proxy
from tests.support.service import Environment, Service, read_all
from tests.support.wire import Answer, assert_problem, parse_answers

Request = tuple[str, str, object, str]  # method, path, body, token
Outcomes = list[tuple[float, Answer | str]]  # seconds; the answer, or why there is none

TIMES = 10
ROUND_TRIP = 0.2  # seconds of a query
AT_ONCE = 10  # connections, or requests: so many in ROUND_TRIP are the capacity
POOL_TIMEOUT = 0.5
PROBE_EVERY = 0.02
SPAWN = get_context("spawn")  # whoever asks or probes has a process of its own: nothing here holds it up


@dataclass
class Overload:
    """What became of the requests, in seconds from when each was due."""

    rate: float
    bound: float  # what the settings let an accepted one take
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)  # 503, a problem document, Retry-After
    wrong: list[str] = field(default_factory=list)
    live: list[float] = field(default_factory=list)  # of /health/live meanwhile
    ran: float = 0  # the event loop, meanwhile
    waited: float = 0  # of the event loop, for a core: what the machine adds

    def add(self, seconds: float, answer: Answer | str) -> None:
        if isinstance(answer, str):
            self.wrong.append(answer)
        elif answer.status_code == 200:
            self.accepted.append(seconds)
        elif is_refusal(answer):
            self.refused.append(seconds)
        else:
            self.wrong.append(f"{answer.status_code} {answer.body[:300]!r}")

    def told(self) -> list[str]:
        sent = len(self.accepted) + len(self.refused) + len(self.wrong)
        return [
            f"{sent} requests, {self.rate:.0f} a second where {self.rate / TIMES:.0f} can be done",
            f"{len(self.accepted)} accepted: {milliseconds(self.accepted)}, bound {self.bound * 1000:.0f} ms",
            f"{len(self.refused)} refused with 503 and Retry-After: {milliseconds(self.refused)}",
            f"{len(self.live)} probes of /health/live: {milliseconds(self.live)}",
            f"the event loop ran {self.ran:.1f} s and waited {self.waited:.1f} s for a core",
        ]


def milliseconds(seconds: list[float]) -> str:
    values = {"p50": statistics.median(seconds), "p99": percentile_99(seconds), "longest": max(seconds)}
    return ", ".join(f"{name} {value * 1000:.0f}" for name, value in values.items()) + " ms"


def percentile_99(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100]


def exhaust_pool(env: Environment, mariadb_port: int, count: int) -> Overload:
    """Reads that each need one of a few connections for a while."""
    few = {"MYSQL_POOL_MIN_SIZE": AT_ONCE, "MYSQL_POOL_MAX_SIZE": AT_ONCE, "MYSQL_POOL_TIMEOUT": POOL_TIMEOUT}
    return read_slowly({**env, **few}, mariadb_port, count, bound=POOL_TIMEOUT + ROUND_TRIP)


def exceed_concurrency(env: Environment, mariadb_port: int, count: int) -> Overload:
    """The same reads, with connections for all that may run at once."""
    enough = {"MYSQL_POOL_MIN_SIZE": AT_ONCE, "MYSQL_POOL_MAX_SIZE": AT_ONCE, "MAX_CONCURRENCY": AT_ONCE}
    return read_slowly({**env, **enough}, mariadb_port, count, bound=ROUND_TRIP)


def read_slowly(env: Environment, mariadb_port: int, count: int, bound: float) -> Overload:
    with closing(Proxy(mariadb_port)) as proxy, Service({**env, "MYSQL_PORT": proxy.port}) as service:
        account = service.sign_up()
        proxy.delay(ROUND_TRIP / 2)
        rate = TIMES * AT_ONCE / ROUND_TRIP
        return play(service, [("GET", "/v1/auth/me", None, account.access_token)], count, rate, bound)


def flood_with_logins(env: Environment, count: int) -> Overload:
    """Logins with the passwords' real cost: how many can be done in a second is found out before."""
    with Service(env) as service:
        accounts = [service.sign_up() for _ in range(8)]
        requests: list[Request] = [
            ("POST", "/v1/auth/login", {"login": account.username, "password": account.password}, "")
            for account in accounts
        ]
        capacity = asyncio.run(most_a_second(service.port, requests))
        bound = QUEUE_TIMEOUT + available_cores() / capacity
        return play(service, requests, count, TIMES * capacity, bound)


async def most_a_second(port: int, requests: list[Request], seconds: float = 3) -> float:
    """Of requests of which so many run at once that no core waits."""
    started = time.monotonic()

    async def one_after_the_other(request: Request) -> int:
        done = 0
        while time.monotonic() < started + seconds:
            assert (await ask(port, *request)).status_code == 200
            done += 1
        return done

    done = sum(await asyncio.gather(*(one_after_the_other(request) for request in requests)))
    return done / (time.monotonic() - started)


def play(service: Service, requests: list[Request], count: int, rate: float, bound: float) -> Overload:
    result = Overload(rate, bound)
    with ProcessPoolExecutor(1, mp_context=SPAWN) as process:

        def answers(count: int, rate: float) -> Outcomes:
            return process.submit(send, service.port, requests, count, rate).result()

        answers(AT_ONCE, rate / TIMES)  # warms up
        before = on_core(service.pid)
        with probing(service.port, result.live):
            for seconds, answer in answers(count, rate):
                result.add(seconds, answer)
        result.ran, result.waited = (after - once for after, once in zip(on_core(service.pid), before, strict=True))
        for _, answer in answers(AT_ONCE, rate / TIMES):
            if isinstance(answer, str) or answer.status_code != 200:
                result.wrong.append(f"after the load: {answer}")
    assert result.accepted, f"none was accepted; {result.wrong[:3]}"
    assert result.refused, f"none was refused; {result.wrong[:3]}"
    return result


def send(port: int, requests: list[Request], count: int, rate: float) -> Outcomes:
    """The requests in turn, `rate` a second."""
    return asyncio.run(send_by_the_clock(port, requests, count, rate))


async def send_by_the_clock(port: int, requests: list[Request], count: int, rate: float) -> Outcomes:
    started = time.monotonic()

    async def send_one(number: int) -> tuple[float, Answer | str]:
        due = started + number / rate
        await asyncio.sleep(due - time.monotonic())
        try:
            answer: Answer | str = await ask(port, *requests[number % len(requests)])
        except OSError as error:  # a TimeoutError, too: it hung
            answer = repr(error)
        return time.monotonic() - due, answer

    return await asyncio.gather(*(send_one(number) for number in range(count)))


def is_refusal(answer: Answer) -> bool:
    try:
        assert_problem(answer, 503)
        return int(answer.headers["retry-after"]) > 0
    except (AssertionError, LookupError, ValueError):
        return False


def on_core(pid: int) -> tuple[float, float]:
    """Seconds that the main thread ran, and that it waited for a core to run on."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


@contextmanager
def probing(port: int, live: list[float], pid: int | None = None) -> Iterator[None]:
    """Collects how long /health/live took meanwhile, each time on a connection of its own, as a platform asks.

    Given the service's process, without the time for which it and who asks waited for a core.
    """
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=probe, args=(port, pid, theirs))
    process.start()
    theirs.close()
    try:
        ours.recv()
        yield
        ours.send("stop")
        live += ours.recv()
    finally:
        process.kill()
        process.join()


def probe(port: int, pid: int | None, told: Connection) -> None:
    pids = (pid, os.getpid()) if pid else ()
    seconds = [ask_live(port)]
    told.send("begun")
    while not told.poll(PROBE_EVERY):
        before = sum(on_core(pid)[1] for pid in pids)
        seconds.append(ask_live(port) + before - sum(on_core(pid)[1] for pid in pids))
    told.send(seconds)


def ask_live(port: int) -> float:
    """Seconds; infinite when there was no answer, or a wrong one."""
    started = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=HANG) as connection:
            connection.sendall(encode("GET", "/health/live"))
            [answer] = parse_answers(read_all(connection))
    except (OSError, AssertionError, ValueError):
        return float("inf")
    return time.monotonic() - started if answer.status_code == 200 else float("inf")
