"""What the drivers alone give: the same reads as `me`, 32 at a time, with no HTTP around them."""

import asyncio
import os
import sys
import time

import aiomysql
import uvloop

from infra.redis.client import new_client
from settings import NAME, load

CONCURRENCY = 32
QUERY = (
    "SELECT a.id, a.username, a.email, a.created_at, a.updated_at, s.expires_at FROM sessions s"
    " JOIN accounts a ON a.id = s.account_id WHERE s.account_id = %s AND s.id = %s AND s.expires_at > %s"
)


async def redis(account_id: str, session_id: str, seconds: float) -> float:
    keys = [f"{NAME}:{{{account_id}}}:{name}" for name in ("account", f"session:{session_id}")]
    async with new_client(load()) as client:
        await client.set(keys[0], b"x" * 180)
        return await rate(lambda: client.mget(keys), seconds)


async def mysql(account_id: str, session_id: str, seconds: float) -> float:
    settings = load()
    pool = await aiomysql.create_pool(
        host=settings.mysql_host,
        port=settings.mysql_port,
        user=settings.mysql_username,
        password=settings.mysql_password,
        db=settings.mysql_database,
        autocommit=True,
        maxsize=30,
    )

    async def read() -> None:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(QUERY, (account_id, session_id, 0))
            await cursor.fetchall()

    return await rate(read, seconds)


async def rate(read, seconds: float) -> float:
    end, done = time.perf_counter() + seconds, 0

    async def repeat() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await read()
            done += 1

    await asyncio.gather(*(repeat() for _ in range(CONCURRENCY)))
    return done / seconds


if __name__ == "__main__":
    server, account_id, session_id, seconds = sys.argv[1:]
    read_at = {"redis": redis, "mysql": mysql}[server]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(read_at(account_id, session_id, float(seconds))), flush=True)
    os._exit(0)
