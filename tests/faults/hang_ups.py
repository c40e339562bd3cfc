"""Clients that leave at a random moment of a request, beside others whose answers are checked."""

import asyncio
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

import jwt

from tests.faults.load import PASSWORD, ask, encode, new_account, sign_up
from tests.support.service import Service

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST instead of FIN


@dataclass
class HangUps:
    left: int = 0
    checked: int = 0
    refused: int = 0  # of those, with a 503: more was asked than could be done
    wrong: list[str] = field(default_factory=list)


async def hang_up(service: Service, count: int, at_once: int = 20, seed: int = 1) -> HangUps:
    """`count` clients leave, `at_once` at a time."""
    chance = random.Random(seed)
    accounts = [await signed_up(service.port) for _ in range(16)]
    result = HangUps()

    async def leave_many(share: int) -> None:
        for number in range(share):
            await leave(service.port, chance.choice(accounts), chance)
            result.left += 1
            if number % 4 == 0:  # which also keeps the service from being asked more than it can do
                await check(service.port, chance.choice(accounts), result)

    await asyncio.gather(*(leave_many(count // at_once) for _ in range(at_once)))
    return result


async def signed_up(port: int) -> dict[str, Any]:
    """An account's tokens, and the id of its only session."""
    tokens = await sign_up(port)
    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    return tokens | {"session_id": claims["sid"]}


async def check(port: int, account: dict[str, Any], result: HangUps) -> None:
    """The account from Redis, its session from the database, and the request's own id on both."""
    for path in ("/v1/auth/me", "/v1/auth/sessions?limit=1"):
        result.checked += 1
        asked = f"check-{result.checked}"
        answer = await ask(port, "GET", path, token=account["access_token"], request_id=asked)
        if answer.status_code == 503:
            result.refused += 1
            continue
        found = (answer.json().get("items") or [answer.json()])[0].get("id")
        expected = account["account"]["id"] if path.endswith("me") else account["session_id"]
        if (answer.status_code, answer.headers["x-request-id"], found) != (200, asked, expected):
            result.wrong.append(f"{path} of {account['account']['id']}: {answer.status_code} {answer.body!r}")


async def leave(port: int, account: dict[str, Any], chance: random.Random) -> None:
    token, name = account["access_token"], account["account"]["username"]
    change = {"username": chance.choice((name, name.upper())), "current_password": PASSWORD}
    request = chance.choice(
        [
            encode("GET", "/v1/auth/me", token=token),
            encode("GET", "/v1/auth/sessions", token=token),
            encode("PATCH", "/v1/auth/me", change, token),
            encode("POST", "/v1/auth/register", new_account()),
            encode("POST", "/v1/auth/login", {"login": account["account"]["username"], "password": "wrong one"}),
            encode("POST", "/v1/auth/refresh", {"refresh_token": "brt_unknown"}),
        ]
    )
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    whole = chance.random() < 0.8
    writer.write(request if whole else request[: chance.randrange(len(request))])
    await asyncio.sleep(chance.random() ** 3 * 0.05)
    if chance.random() < 0.5:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
