"""A service that is stopped, or killed, in the middle of its work."""

import asyncio
import random
import signal
from dataclasses import dataclass
from functools import partial

from tests.faults.load import HANG, PASSWORD, Load, QuickService, Rows, ask, sign_up
from tests.support.service import Environment, Service


@dataclass
class Stop:
    under_way: int  # when the signal came
    answered: int
    reset: int
    wrong: int
    status: int
    lines_missing: int  # access lines of answers


async def stop_under_load(service: Service, requests: int) -> Stop:
    """SIGTERM once the service has begun to answer so many requests that came at the same time."""
    account = await sign_up(service.port)
    name, token = account["account"]["username"], account["access_token"]
    log_in = partial(ask, service.port, "POST", "/v1/auth/login", {"login": name, "password": PASSWORD})
    me = partial(ask, service.port, "GET", "/v1/auth/me", None, token)
    tasks = [
        asyncio.create_task((me if number % 4 else log_in)(request_id=f"stop-{number}")) for number in range(requests)
    ]
    _, under_way = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    service.signal(signal.SIGTERM)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    status = await asyncio.to_thread(service.wait_for_exit)
    seen = {line.get("request_id") for line in service.log(type="access")}
    whole = {f"stop-{number}": answer for number, answer in enumerate(answers) if not isinstance(answer, BaseException)}
    return Stop(
        under_way=len(under_way),
        answered=len(whole),
        reset=len(answers) - len(whole),
        wrong=sum(answer.status_code != 200 for answer in whole.values()),
        status=status,
        lines_missing=len(whole.keys() - seen),
    )


async def kill_and_restart(env: Environment, rows: Rows, kills: int, clients: int = 12, seed: int = 1) -> Load:
    """SIGKILL at random moments of registrations and refreshes, a restart after each; raises when a promise broke."""
    chance = random.Random(seed)
    total = Load(0)
    for _ in range(kills):
        with QuickService(env) as service:
            load = Load(service.port)
            async with load.running(clients):
                await asyncio.sleep(0.3 + chance.random())
                async with asyncio.timeout(HANG):
                    while not load.spent:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                service.signal(signal.SIGKILL)
                await asyncio.to_thread(service.wait_for_exit)
                load.stopping = True
        broken = {kind: count for kind, count in load.check(rows).items() if count}
        assert not broken, (broken, load.wrong[:3])
        add(total, load)
    with QuickService(env) as service:
        await spend_again(service, total)
    return total


def add(total: Load, load: Load) -> None:
    total.accounts |= load.accounts
    total.tokens |= load.tokens
    total.spent += load.spent
    total.broken += load.broken
    total.statuses += load.statuses


async def spend_again(service: Service, load: Load, at_most: int = 2000) -> None:
    """What was acknowledged before the last kill works once, and what was spent never again."""
    for token in list(load.tokens.values())[:at_most]:
        answer = await ask(service.port, "POST", "/v1/auth/refresh", {"refresh_token": token})
        assert answer.status_code == 200, answer.body
    for token in [*list(load.tokens.values())[:at_most], *load.spent[:at_most]]:
        answer = await ask(service.port, "POST", "/v1/auth/refresh", {"refresh_token": token})
        assert answer.status_code == 401, answer.body
