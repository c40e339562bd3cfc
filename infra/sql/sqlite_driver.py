"""SQLite through aiosqlite: each connection has a thread of its own, and is closed after its use."""

import asyncio
import os
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.base.errors import Duplicate, Unavailable
from infra.sql.errors import DETAIL, StatementError, field_of
from settings import Settings

if TYPE_CHECKING:
    import aiosqlite

PRIVATE = 0o600  # the rights of a file that holds password hashes
CLOSE_TIMEOUT = 0.25  # seconds: its thread may be waiting for another process's lock, and closes when it has it
DUPLICATE_CODES = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_ROWID,
}
# Of the disk, and of others who use the file.
PASSING_CODES = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM),
}


def explain(error: BaseException, statement: str) -> Duplicate | Unavailable | StatementError:
    """What to raise in its place."""
    if getattr(error, "sqlite_errorcode", None) in DUPLICATE_CODES:
        return Duplicate(field_of(str(error)))  # "UNIQUE constraint failed: t.username_key"
    if is_passing(error):
        return unavailable(error)
    return StatementError(f"SQLite's {getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}", statement)


def is_passing(error: BaseException) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # its low byte is the kind
    return isinstance(error, OSError) or (code is not None and code & 0xFF in PASSING_CODES)


def unavailable(error: BaseException) -> Unavailable:
    return Unavailable(DETAIL, error)


def make_private(path: Path) -> None:
    """Makes the database's file where there is none: its owner's only, whatever the umask and whoever made it.

    Its -wal and -shm too: SQLite gives new ones the rights of the database. What can't be done SQLite will tell of.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE))
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            path.with_name(path.name + suffix).chmod(PRIVATE)


class SQLiteDriver:
    begin = "BEGIN IMMEDIATE"  # the write lock at once, or two transactions that read first would refuse each other
    errors = (sqlite3.Error, OSError)
    explain = staticmethod(explain)
    unavailable = staticmethod(unavailable)

    def __init__(self, path: Path, settings: Settings) -> None:
        self.url = f"sqlite:///{path}"
        self.path = path
        self.timeout = settings.mysql_query_timeout

    async def connect(self) -> "aiosqlite.Connection":
        import aiosqlite  # noqa: PLC0415 - where there is a MySQL, it isn't needed

        return await aiosqlite.connect(self.path, isolation_level=None, timeout=self.timeout)

    async def run(self, raw: Any, sql: str, values: Mapping[str, Any]) -> tuple[list[tuple[Any, ...]], int]:
        cursor = await raw.cursor()
        try:
            await cursor.execute(sql, dict(values))
            return list(await cursor.fetchall()) if cursor.description else [], cursor.rowcount
        except sqlite3.IntegrityError:
            await cursor.close()  # or the connection would stay open until the cursor is collected
            raise

    async def ping(self, raw: Any) -> None:
        raise NotImplementedError  # none is kept

    def may_be_kept(self, _: Any) -> bool:
        """Never: the end of a cursor that is collected later would wait for what the connection's thread does then,
        and that for the interpreter's lock.
        """
        return False

    def in_transaction(self, raw: Any) -> bool:
        return bool(raw.in_transaction)

    async def close(self, raw: Any) -> None:
        await asyncio.wait([asyncio.ensure_future(raw.close())], timeout=CLOSE_TIMEOUT)
