"""Rows with an `expires_at`, in Unix milliseconds: deleted when it has come."""

from infra.base.times import now_ms
from infra.sql.database import Database

BATCH = 500  # rows deleted at a time


async def delete_expired(database: Database, table: str, key: str) -> int:
    """The number of rows deleted. `key`: the columns of the table's primary key.

    In batches, each a transaction of its own: what is done stays done.
    """
    batch = f"{table} WHERE expires_at <= :now ORDER BY expires_at LIMIT {BATCH}"
    if not database.mysql:  # SQLite's DELETE may know no LIMIT
        batch = f"{table} WHERE ({key}) IN (SELECT {key} FROM {batch})"  # noqa: S608
    total, now = 0, now_ms()
    while deleted := await database.execute(f"DELETE FROM {batch}", {"now": now}):  # noqa: S608
        total += deleted
    return total
