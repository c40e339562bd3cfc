"""Clients that sign up, log in, read and refresh, and remember what they were promised."""

import asyncio
import hashlib
import itertools
import json
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.servers import MariaDB
from tests.support.service import Service
from tests.support.wire import Answer, parse_answers

HANG = 60  # seconds without an answer: longer than all time-outs of a request together
PASSWORD = "a long password"
NAMES = itertools.count(1)

Rows = Callable[[str], list[tuple[Any, ...]]]


class QuickService(Service):
    command = (sys.executable, "-m", "tests.faults.quick_app")


def rows_of(env: Mapping[str, str], mariadb: MariaDB | None) -> Rows:
    """Runs a query on the database of a service with these settings, past the service."""
    if mariadb and "MYSQL_DATABASE" in env:
        return lambda sql: [tuple(row.values()) for row in mariadb.sql(sql, database=env["MYSQL_DATABASE"])]

    def query(sql: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(Path(env["DATA_DIR"]) / "berth.db", timeout=10)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    return query


def encode(method: str, path: str, body: object = None, token: str = "", request_id: str = "") -> bytes:
    """A whole request on a connection of its own."""
    content = json.dumps(body).encode() if body is not None else b""
    lines = [f"{method} {path} HTTP/1.1", "Host: berth", "Connection: close", f"Content-Length: {len(content)}"]
    lines += ["Content-Type: application/json"] if content else []
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"X-Request-ID: {request_id}"] if request_id else []
    return "\r\n".join([*lines, "\r\n"]).encode() + content


async def ask(
    port: int, method: str, path: str, body: object = None, token: str = "", *, request_id: str = ""
) -> Answer:
    """Raises OSError when the connection breaks before the answer's end, TimeoutError when there is none."""
    async with asyncio.timeout(HANG):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(encode(method, path, body, token, request_id))
            received = await reader.read()
        finally:
            writer.close()
    try:
        [answer] = parse_answers(received)
    except (AssertionError, ValueError):
        raise ConnectionResetError(f"cut off after {len(received)} bytes") from None
    return answer


def new_account() -> dict[str, str]:
    name = f"mate-{next(NAMES)}-{time.time_ns()}"
    return {"username": name, "email": f"{name}@example.com", "password": PASSWORD}


async def sign_up(port: int) -> dict[str, Any]:
    """The answer of the login of a new account."""
    body = new_account()
    registered = await ask(port, "POST", "/v1/auth/register", body)
    assert registered.status_code == 201, registered.body
    answer = await ask(port, "POST", "/v1/auth/login", {"login": body["username"], "password": PASSWORD})
    assert answer.status_code == 200, answer.body
    tokens: dict[str, Any] = answer.json()
    return tokens


class Load:
    """What was asked and answered; `check()` holds it against the database."""

    def __init__(self, port: int, pause: float = 0) -> None:
        self.port = port
        self.pause = pause  # seconds of a client between two refreshes
        self.stopping = False
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.accounts: dict[str, str] = {}  # id: username, acknowledged
        self.tokens: dict[str, str] = {}  # account id: the refresh token that must still work
        self.spent: list[str] = []  # refresh tokens whose successor was handed out
        self.wrong: list[str] = []  # an answer that isn't the question's, a 500, a 503 without Retry-After
        self.broken = 0  # connections that broke before the answer's end

    async def ask(self, method: str, path: str, body: object = None, token: str = "") -> Answer | None:
        started = time.monotonic()
        try:
            answer = await ask(self.port, method, path, body, token)
        except TimeoutError:
            self.wrong.append(f"{method} {path} hung")
            return None
        except OSError:
            self.broken += 1
            await asyncio.sleep(0.02)
            return None
        self.seconds.append(time.monotonic() - started)
        self.statuses[answer.status_code] += 1
        refused = answer.status_code in (503, 504) and "problem+json" in answer.headers["content-type"]
        if answer.status_code >= 500 and not (refused and (answer.status_code == 504 or answer.headers["retry-after"])):
            self.wrong.append(f"{method} {path} {answer.status_code} {answer.body[:300]!r}")
        return answer

    @asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator[None]:
        self.stopping = False
        tasks = [asyncio.create_task(self.client()) for _ in range(clients)]
        try:
            yield
        finally:
            self.stopping = True
            await asyncio.gather(*tasks)

    async def client(self) -> None:
        while not self.stopping:
            body = new_account()
            registered = await self.ask("POST", "/v1/auth/register", body)
            if registered is None or registered.status_code != 201:
                continue
            account = registered.json()
            self.accounts[account["id"]] = body["username"]
            answer = await self.ask("POST", "/v1/auth/login", {"login": body["email"], "password": PASSWORD})
            if answer is None or answer.status_code != 200:
                continue
            tokens = answer.json()
            self.tokens[account["id"]] = tokens["refresh_token"]
            for _ in range(8):
                if self.stopping or not await self.use(account, tokens):
                    break

    async def use(self, account: dict[str, Any], tokens: dict[str, Any]) -> bool:
        """One look at the account and one refresh; False when the session can't be used any longer."""
        await asyncio.sleep(self.pause)
        for path in ("/v1/auth/me", "/v1/auth/sessions"):
            answer = await self.ask("GET", path, token=tokens["access_token"])
            if answer and answer.status_code == 200:
                right = answer.json() == account if path.endswith("me") else len(answer.json()["items"]) == 1
                if not right:
                    self.wrong.append(f"{path} of {account['id']}: {answer.body!r}")
            elif answer and answer.status_code < 500:
                self.wrong.append(f"{path} of {account['id']}: {answer.status_code}")
        old = self.tokens.pop(account["id"])  # unless the answer says so, nobody knows which one works
        answer = await self.ask("POST", "/v1/auth/refresh", {"refresh_token": old})
        if answer is None or answer.status_code != 200:
            return False
        tokens |= answer.json()
        self.tokens[account["id"]] = tokens["refresh_token"]
        self.spent.append(old)
        return True

    def check(self, rows: Rows) -> dict[str, int]:
        """How many of the promises the database doesn't keep, by kind. All zero: nothing lost, nothing half made."""
        accounts: dict[str, str] = dict(rows("SELECT id, username FROM accounts"))
        unspent = {row[0] for row in rows("SELECT token_hash FROM refresh_tokens WHERE spent_at IS NULL")}
        return {
            "accounts lost": sum(accounts.get(key) != name for key, name in self.accounts.items()),
            "sessions lost": sum(digest(token) not in unspent for token in self.tokens.values()),
            "spent tokens alive": sum(digest(token) in unspent for token in self.spent),
            "half made": half_made(rows),
            "wrong answers": len(self.wrong),
        }


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def half_made(rows: Rows) -> int:
    """Sessions without an account, refresh tokens without a session, sessions that haven't one unspent token."""
    orphans = (
        "SELECT s.id FROM sessions s LEFT JOIN accounts a ON a.id = s.account_id WHERE a.id IS NULL",
        """SELECT t.token_hash FROM refresh_tokens t LEFT JOIN sessions s
        ON s.account_id = t.account_id AND s.id = t.session_id WHERE s.id IS NULL""",
        """SELECT s.id FROM sessions s LEFT JOIN refresh_tokens t
        ON s.account_id = t.account_id AND s.id = t.session_id AND t.spent_at IS NULL
        GROUP BY s.account_id, s.id HAVING COUNT(t.token_hash) <> 1""",
    )
    return sum(len(rows(sql)) for sql in orphans)
