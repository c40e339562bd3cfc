"""What grows with the data and with the number of instances: rates at 32 connections, which should stay as they are."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks import load
from benchmarks.data import World
from benchmarks.subjects import BERTH, Service

ACCOUNTS = (1_000, 100_000, 1_000_000)
SESSIONS = (1, 100, 10_000)
INSTANCES = (1, 2, 4)

# MariaDB's sequences make rows faster than anything that sends them.
FILL = """INSERT INTO accounts (id, username, username_key, email, email_key, password_hash, created_at, updated_at)
SELECT CONCAT('00000000-0000-7000-8000-', LPAD(seq, 12, '0')), CONCAT('crew-', seq), CONCAT('crew-', seq),
CONCAT('crew-', seq, '@example.com'), CONCAT('crew-', seq, '@example.com'), %s, 0, 0 FROM seq_{first}_to_{last}"""
FILL_SESSIONS = """INSERT INTO sessions (account_id, id, created_at, last_used_at, expires_at, client, user_agent)
SELECT id, id, 0, 0, 9999999999999, '127.0.0.1', 'wrk' FROM accounts WHERE created_at = 0"""
FILL_TOKENS = """INSERT INTO refresh_tokens (token_hash, account_id, session_id, expires_at)
SELECT SHA2(id, 256), id, id, 9999999999999 FROM accounts WHERE created_at = 0"""


def accounts(world: World, seconds: int, most: int) -> dict[str, dict[str, float]]:
    """Rates with so many accounts, each with one session, beside those that are used."""
    rates, filled = {}, 0
    with Service(BERTH, world.env(redis=False)) as service:
        service.first_answer("/health/live")
        load.warm_up(world, service)
        for count in (count for count in ACCOUNTS if count <= most):
            world.mariadb.sql("DELETE FROM sessions WHERE user_agent = 'wrk'", database=world.database)
            world.mariadb.sql("DELETE FROM refresh_tokens WHERE expires_at = 9999999999999", database=world.database)
            world.mariadb.sql(FILL.format(first=filled + 1, last=count), world.password_hash, database=world.database)
            world.mariadb.sql(FILL_SESSIONS, database=world.database)
            world.mariadb.sql(FILL_TOKENS, database=world.database)
            filled = count
            time.sleep(2)  # InnoDB writes on for a while
            found = {route: load.run(world, service, route, 32, seconds).rate for route in ("me", "refresh")}
            rates[f"{count:,}"] = found | {"login": load.run(world, service, "login", 1, seconds).rate}
    return rates


def sessions(world: World, seconds: int) -> dict[str, dict[str, float]]:
    """Rates of the first page of an account with so many sessions."""
    rates = {}
    logins = world.logins
    with Service(BERTH, world.env(redis=True)) as service:
        service.first_answer("/health/live")
        load.warm_up(world, service)
        for count in SESSIONS:
            world.logins = world.log_in(world.add_accounts(1), each=count)[-1:]
            rates[f"{count:,}"] = {
                "a page of 20": load.run(world, service, "sessions", 32, seconds).rate,
                "me": load.run(world, service, "me", 32, seconds).rate,
            }
    world.logins = logins
    return rates


def instances(world: World, seconds: int) -> dict[str, dict[str, float]]:
    """Rates of so many instances together on the same servers and the same cores."""
    rates: dict[str, dict[str, float]] = {}
    for count in INSTANCES:
        with ExitStack() as running, ThreadPoolExecutor(count) as threads:
            services = [running.enter_context(Service(BERTH, world.env(redis=True))) for _ in range(count)]
            for service in services:
                service.first_answer("/health/live")
                load.warm_up(world, service)
            for route in ("health", "me", "sessions"):
                runs = [threads.submit(load.run, world, one, route, 32 // count, seconds) for one in services]
                rates.setdefault(str(count), {})[route] = sum(run.result().rate for run in runs)
    return rates
