"""MySQL through aiomysql, one connection at a time: the pool is ours.

aiomysql's own loses slots and wake-ups, hangs, and takes plain text for TLS (tests/faults/ plays it through).
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any

import aiomysql
from pymysql.constants import CLIENT

from infra import fast
from infra.base.errors import Unavailable
from infra.sql import mysql_errors
from infra.sql.errors import DETAIL
from infra.sql.mysql_options import connection_options, mysql_password, tls_required
from settings import Settings

Values = Mapping[str, Any]
Answer = tuple[list[tuple[Any, ...]], int]  # rows, and how many these are or were matched


class MySQLDriver:
    begin = "BEGIN"
    errors = mysql_errors.FAILURES
    explain = staticmethod(mysql_errors.explain)
    unavailable = staticmethod(mysql_errors.unavailable)

    def __init__(self, settings: Settings, host: str | None, port: int, unix_socket: str | None = None) -> None:
        self.url = f"mysql://{f'[{host}]' if host and ':' in host else host or 'localhost'}:{port}"
        self.options = {
            "host": host or "localhost",
            "port": port,
            "user": settings.mysql_username,
            "password": mysql_password(settings),
            "db": settings.mysql_database,
            "autocommit": True,
        } | connection_options(settings, unix_socket=unix_socket)
        self.init_command = settings.mysql_init_command
        self.tls_required = tls_required(settings) and not unix_socket
        self.answer: Callable[[aiomysql.Connection, str, Values], Awaitable[Answer]] = run_cursor
        if fast.enabled("mysql_packets"):
            from infra.fast import mysql_packets  # noqa: PLC0415 - not over another aiomysql than it knows

            self.answer = mysql_packets.run

    async def connect(self) -> aiomysql.Connection:
        raw = await aiomysql.connect(**self.options)
        # aiomysql takes plain text silently when the server's greeting doesn't offer TLS.
        if self.tls_required and not raw.server_capabilities & CLIENT.SSL:
            raw.close()
            raise Unavailable(DETAIL, "MYSQL_SSL_MODE requires TLS, the server has none")
        if self.init_command:
            try:
                await raw.query(self.init_command)
            except self.errors as error:
                raw.close()
                raise mysql_errors.init_command_failed(error) from error
        return raw

    async def run(self, raw: aiomysql.Connection, sql: str, values: Values) -> Answer:
        return await self.answer(raw, pyformat(sql), values)

    async def ping(self, raw: aiomysql.Connection) -> None:
        await raw.ping(reconnect=False)

    def may_be_kept(self, raw: aiomysql.Connection) -> bool:
        return not raw.closed and not raw.get_transaction_status()

    def in_transaction(self, raw: aiomysql.Connection) -> bool:
        return bool(raw.get_transaction_status())

    async def close(self, raw: aiomysql.Connection) -> None:
        """Without a good-bye, which would have to be waited for."""
        raw.close()


async def run_cursor(raw: aiomysql.Connection, sql: str, values: Values) -> Answer:
    async with raw.cursor() as cursor:
        await cursor.execute(sql, values)
        return list(await cursor.fetchall()), cursor.rowcount


@lru_cache(maxsize=512)
def pyformat(sql: str) -> str:
    """`:name` in PyMySQL's words, `%(name)s`; not within quotes."""
    quoted_or_name = r"'(?:[^'\\]|\\.)*'|:([A-Za-z_]\w*)"
    return re.sub(quoted_or_name, lambda found: f"%({found[1]})s" if found[1] else found[0], sql.replace("%", "%%"))
