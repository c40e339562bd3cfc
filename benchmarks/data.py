"""Servers, rows and tokens: the same for every subject."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from benchmarks.subjects import ROOT
from handlers.accounts.passwords import OWASP, scrypt_hash
from handlers.accounts.tokens import TokenKeys, refresh_token_hash
from infra.base.ids import new_id
from settings import NAME
from tests.support.servers import MariaDB, Redis

SECRET_KEY = " ".join(["benchmarks"] * 4)
PASSWORD = "correct horse battery staple"
SETTINGS = {
    "SYS_ENV": "test",
    "LOGIN_RATE_LIMIT": "100000/300",
    "REFRESH_RATE_LIMIT": "10000000/60",
    "SECRET_KEY": SECRET_KEY,
}
ACCOUNTS = 1100  # refreshed by 1,000 connections at once, each one of its own
SESSIONS = 20  # of each, beside the one whose token is used: a page and one more
YEAR = 365 * 24 * 3600


class Login(NamedTuple):
    account_id: str
    username: str
    access_token: str
    refresh_token: str


class World:
    """One MariaDB and one Redis with as much memory as they like, and accounts with sessions."""

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, so that nothing stays behind
        self.stack = ExitStack()
        self.mariadb = self.stack.enter_context(
            MariaDB("--innodb-buffer-pool-size=1G", "--innodb-flush-log-at-trx-commit=2", "--max-connections=2000")
        )
        self.redis = self.stack.enter_context(Redis())
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.keys = TokenKeys(NAME, SECRET_KEY, (), YEAR)
        self.password_hash = scrypt_hash(PASSWORD, OWASP)
        self.database = self.mariadb.create_database()
        self.migrate()
        self.logins = self.log_in(self.add_accounts(ACCOUNTS), each=1)
        self.log_in([(login.account_id, login.username) for login in self.logins], each=SESSIONS)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def migrate(self) -> None:
        env = {**self.env(redis=False), "PATH": os.environ["PATH"]}
        subprocess.run([sys.executable, "app.py", "migrate"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, check=True)

    def env(self, *, redis: bool) -> dict[str, str]:
        shared = {**SETTINGS, "DATA_DIR": str(self.folder), "PEER_LOG_FILE": str(self.folder / "peer.log")}
        return {**shared, **self.mariadb.environment(self.database), **(self.redis.environment() if redis else {})}

    def insert(self, table: str, columns: str, rows: Sequence[tuple[object, ...]]) -> None:
        for start in range(0, len(rows), 1000):
            part = rows[start : start + 1000]
            marks = ", ".join(f"({', '.join(['%s'] * len(part[0]))})" for _ in part)
            values = [value for row in part for value in row]
            self.mariadb.sql(f"INSERT INTO {table} ({columns}) VALUES {marks}", *values, database=self.database)

    def add_accounts(self, count: int) -> list[tuple[str, str]]:
        """Their ids and names."""
        now = time.time_ns() // 1_000_000
        added = [(new_id(), f"sailor-{new_id()}") for _ in range(count)]
        columns = "id, username, username_key, email, email_key, password_hash, created_at, updated_at"
        rows = [
            (key, name, name, f"{name}@example.com", f"{name}@example.com", self.password_hash, now, now)
            for key, name in added
        ]
        self.insert("accounts", columns, rows)
        return added

    def log_in(self, accounts: list[tuple[str, str]], each: int = 1) -> list[Login]:
        """Sessions as a login leaves them, `each` for every account."""
        now = time.time_ns() // 1_000_000
        end = now + YEAR * 1000
        held = [
            (account_id, name, new_id(), f"brt_{secrets.token_urlsafe(32)}")
            for account_id, name in accounts
            for _ in range(each)
        ]
        agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
        self.insert(
            "sessions",
            "account_id, id, created_at, last_used_at, expires_at, client, user_agent",
            [(account_id, session_id, now, now, end, "127.0.0.1", agent) for account_id, _, session_id, _ in held],
        )
        self.insert(
            "refresh_tokens",
            "token_hash, account_id, session_id, expires_at",
            [(refresh_token_hash(token), account_id, session_id, end) for account_id, _, session_id, token in held],
        )
        return [Login(key, name, self.keys.issue(key, session), token) for key, name, session, token in held]
