"""What grows with the data and with the number of instances: rates at 32 connections, which should stay as they are.

Each size has a database, an account or instances of its own, so that all sizes are loaded in turn, round by round.
"""

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks import load
from benchmarks.data import World
from benchmarks.subjects import BERTH, Service
from tests.support.servers import wait_until

ACCOUNTS = (1_000, 100_000, 1_000_000)
SESSIONS = (1, 100, 10_000)
INSTANCES = (1, 2, 4)
USED = 1_000  # accounts, spread evenly, whose tokens are sent
BATCH = 50_000  # rows of a statement, which takes a second or so; a client waits thirty at most

# MariaDB's sequences make rows faster than anything that sends them.
ID = "CONCAT('00000000-0000-7000-8000-', LPAD(seq, 12, '0'))"
FILL = (
    (
        "INSERT INTO accounts (id, username, username_key, email, email_key, password_hash, created_at, updated_at)"
        f" SELECT {ID}, CONCAT('crew-', seq), CONCAT('crew-', seq), CONCAT('crew-', seq, '@example.com'),"
        f" CONCAT('crew-', seq, '@example.com'), '{{password_hash}}', 0, 0 FROM seq_{{first}}_to_{{last}}"
    ),
    (
        "INSERT INTO sessions (account_id, id, created_at, last_used_at, expires_at, client, user_agent)"
        f" SELECT {ID}, {ID}, 0, 0, 9999999999999, '127.0.0.1', 'wrk' FROM seq_{{first}}_to_{{last}}"
    ),
    (
        "INSERT INTO refresh_tokens (token_hash, account_id, session_id, expires_at)"
        f" SELECT SHA2(seq, 256), {ID}, {ID}, 9999999999999 FROM seq_{{first}}_to_{{last}}"
    ),
)

Rates = dict[str, dict[str, list[float]]]  # by size, by route, of each round


def accounts(world: World, rounds: int, seconds: int, most: int) -> Rates:
    """Rates with so many accounts, each with one session."""
    parts = {count: with_accounts(world, count) for count in ACCOUNTS if count <= most}
    await_writes(world)
    rates: Rates = {}
    with ExitStack() as running:
        services = {
            count: running.enter_context(Service(BERTH, part.env(redis=False))) for count, part in parts.items()
        }
        for count, service in services.items():
            service.first_answer("/health/live")
            load.warm_up(parts[count], service)
        for _ in range(rounds):
            for route, connections in (("me", 32), ("refresh", 32), ("login", 1)):
                for count, service in services.items():
                    keep(rates, count, route, load.run(parts[count], service, route, connections, seconds).rate)
    return rates


def with_accounts(world: World, count: int) -> World:
    """The same servers, and a database of its own."""
    part = copy.copy(world)
    part.database = world.mariadb.create_database()
    part.migrate()
    for first in range(1, count + 1, BATCH):
        span = {"first": first, "last": min(count, first + BATCH - 1)}
        for statement in FILL:
            filled = statement.format(password_hash=world.password_hash, **span)
            world.mariadb.sql(filled, database=part.database)
    numbers = range(1, count + 1, max(1, count // USED))
    part.logins = part.log_in([(f"00000000-0000-7000-8000-{number:012}", f"crew-{number}") for number in numbers])
    return part


def await_writes(world: World) -> None:
    """InnoDB writes on for a while."""

    def written() -> bool:
        pages = world.mariadb.sql("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'")
        return int(pages[0]["Value"]) < 1000

    world.mariadb.sql("SET GLOBAL innodb_max_dirty_pages_pct = 0")
    wait_until(written, "InnoDB", within=300)
    world.mariadb.sql("SET GLOBAL innodb_max_dirty_pages_pct = DEFAULT")


def sessions(world: World, rounds: int, seconds: int) -> Rates:
    """Rates of the first page of an account with so many sessions."""
    parts = {count: with_sessions(world, count) for count in SESSIONS}
    rates: Rates = {}
    with Service(BERTH, world.env(redis=True)) as service:
        service.first_answer("/health/live")
        load.warm_up(world, service)
        for _ in range(rounds):
            for title, route in (("a page of 20", "sessions"), ("me", "me")):
                for count, part in parts.items():
                    keep(rates, count, title, load.run(part, service, route, 32, seconds).rate)
    return rates


def with_sessions(world: World, count: int) -> World:
    part = copy.copy(world)
    part.logins = world.log_in(world.add_accounts(1), each=count)[-1:]
    return part


def instances(world: World, rounds: int, seconds: int) -> Rates:
    """Rates of so many instances together on the same servers and the same cores."""
    rates: Rates = {}
    with ExitStack() as running, ThreadPoolExecutor(max(INSTANCES)) as threads:
        # a name each, for each has its file of tokens
        subjects = [BERTH._replace(name=f"berth {number}") for number in range(max(INSTANCES))]
        services = [running.enter_context(Service(subject, world.env(redis=True))) for subject in subjects]
        for service in services:
            service.first_answer("/health/live")
            load.warm_up(world, service)
        for _ in range(rounds):
            for route in ("health", "me", "sessions"):
                for count in INSTANCES:
                    loads = [
                        threads.submit(load.run, world, one, route, 32 // count, seconds) for one in services[:count]
                    ]
                    keep(rates, count, route, sum(found.result().rate for found in loads))
    return rates


def keep(rates: Rates, count: int, route: str, rate: float) -> None:
    rates.setdefault(f"{count:,}", {}).setdefault(route, []).append(rate)
