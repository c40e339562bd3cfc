"""The pool as a backend of `databases`, in its registry of backends: `databases.Database(url, pool=pool)`."""

from contextlib import nullcontext
from typing import Any, NamedTuple

from infra import fast
from infra.fast import lean_imports
from infra.sql.pool import Pool, PooledConnection, Values

# SQLAlchemy would compile queries, where all of ours are text.
with lean_imports.without("sqlalchemy") if fast.enabled("lean_databases") else nullcontext():
    import databases
    from databases.interfaces import ConnectionBackend, DatabaseBackend


class Statement(NamedTuple):
    """Names its values as `:name`. `databases` passes on untouched what isn't text."""

    sql: str
    values: Values


class BackendConnection(PooledConnection, ConnectionBackend):
    async def fetch_all(self, query: Any) -> list[Any]:
        rows, _ = await self.run(*query)
        return rows

    async def execute(self, query: Any) -> int:
        _, matched = await self.run(*query)
        return matched


class PoolBackend(DatabaseBackend):
    def __init__(self, _: databases.DatabaseURL, pool: Pool) -> None:
        self.pool = pool

    async def connect(self) -> None:
        await self.pool.open()

    async def disconnect(self) -> None:
        await self.pool.close()

    def connection(self) -> BackendConnection:
        return BackendConnection(self.pool)


databases.Database.SUPPORTED_BACKENDS |= dict.fromkeys(("mysql", "sqlite"), f"{__name__}:{PoolBackend.__name__}")


def with_pool(pool: Pool) -> databases.Database:
    return databases.Database(pool.driver.url, pool=pool)
