"""The pool as a backend of `databases`, in its registry of backends: `databases.Database(url, pool=pool)`."""

from contextlib import nullcontext

from infra import fast
from infra.fast import lean_imports
from infra.sql.pool import Pool, PooledConnection

with lean_imports.without("sqlalchemy") if fast.enabled("lean_databases") else nullcontext():
    import databases
    from databases.interfaces import DatabaseBackend


class PoolBackend(DatabaseBackend):
    def __init__(self, _: databases.DatabaseURL, pool: Pool) -> None:
        self.pool = pool

    async def connect(self) -> None:
        await self.pool.open()

    async def disconnect(self) -> None:
        await self.pool.close()

    def connection(self) -> PooledConnection:
        return self.pool.connection()


databases.Database.SUPPORTED_BACKENDS |= dict.fromkeys(("mysql", "sqlite"), f"{__name__}:{PoolBackend.__name__}")


def with_pool(pool: Pool) -> databases.Database:
    return databases.Database(pool.driver.url, pool=pool)
