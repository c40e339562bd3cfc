"""What Berth may ask of Redis by docs/redis.md is what it does ask, and what happens when Redis refuses."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from infra.base.errors import Unavailable
from infra.redis.client import new_client
from infra.redis.commands import TRIALS, CommandRefused, try_commands
from infra.redis.store import open_store
from tests.conftest import StartService
from tests.faults.scenarios import settings_for
from tests.support.servers import Redis, RedisCluster
from tests.support.service import ROOT, Account, Service, refusal

PAGE = (ROOT / "docs/redis.md").read_text(encoding="utf-8")
[LINE] = re.findall(r"^ACL SETUSER berth (.*)$", PAGE, re.MULTILINE)
GRANTED = re.findall(r" \+(\w+)", LINE)
CONNECTING = {"hello", "select", "cluster|slots", "cluster|shards", "client|setinfo"}
AS_BERTH: dict[str, Any] = {"REDIS_USERNAME": "berth", "REDIS_PASSWORD": "the-password"}
PASSING = {  # what Redis says of a state that ends; LOADING and MISCONF with words of the real one
    "LOADING Redis is loading the dataset in memory": "Redis is loading the dataset in memory",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.": "MISCONF Redis",
    "OOM command not allowed when used memory > 'maxmemory'.": "OOM command not allowed",
    "READONLY You can't write against a read only replica.": "You can't write against a read only replica",
    "MASTERDOWN Link with MASTER is down": "Link with MASTER is down",
    "CLUSTERDOWN The cluster is down": "The cluster is down",
    "BUSY Redis is busy running a script.": "Redis is busy running a script",
    "NOREPLICAS Not enough good replicas to write.": "Not enough good replicas",
    "ERR max number of clients reached": "max number of clients reached",
    "DENIED Redis is running in protected mode because protected mode is enabled": "running in protected mode",
}
UNASKED = ("ERR max", "DENIED")  # said at once, before the client has asked for anything


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def grant(server: Redis, *more: str, line: str = LINE) -> None:
    server.command("ACL", "SETUSER", "berth", *line.split(), *more)


def settings_of(server: Redis | RedisCluster, user: dict[str, Any] = AS_BERTH) -> dict[str, Any]:
    return {**server.environment(), **user}


def use_all(service: Service) -> None:
    """Every route that asks anything of Redis."""
    account, client = service.sign_up(), service.client
    for _ in range(2):
        assert me(service, account) == 200
    assert client.post("/v1/auth/refresh", json={"refresh_token": account.refresh_token}).status_code == 200
    body = {"current_password": account.password, "new_password": "another password"}
    assert client.put("/v1/auth/me/password", json=body, headers=account.headers).status_code == 204
    client.post("/v1/auth/logout", headers=account.headers)
    for _ in range(5):  # one more than are let through, and the address's count is taken back
        client.post("/v1/auth/login", json={"login": account.username, "password": "not the right one"})
    assert client.get("/health/ready").json()["status"] == "ok"


def me(service: Service, account: Account) -> int:
    return service.client.get("/v1/auth/me", headers=account.headers).status_code


def commands_asked(server: Redis) -> dict[str, str]:
    """Redis's own count: the commands that came, also those of scripts."""
    lines = str(server.command("INFO", "commandstats")).splitlines()
    counted = dict(line.removeprefix("cmdstat_").split(":", 1) for line in lines if line.startswith("cmdstat_"))
    return {name: counts for name, counts in counted.items() if not re.match("info|acl|config|ping", name)}


def refused_calls(asked: dict[str, str]) -> list[str]:
    return [name for name, counts in asked.items() if "rejected_calls=0,failed_calls=0" not in counts]


def test_the_page_grants_what_the_code_names() -> None:
    assert [name.upper() for name in sorted(GRANTED)] == sorted(TRIALS)


def test_what_the_page_grants_is_all_that_is_asked_for(start_service: StartService, own_redis: Redis) -> None:
    grant(own_redis, "+select")
    service = start_service(**settings_of(own_redis), LOGIN_RATE_LIMIT="4/60")
    own_redis.command("CONFIG", "RESETSTAT")  # without the trials
    use_all(service)
    asked = commands_asked(own_redis)
    assert set(asked) - CONNECTING == set(GRANTED)
    assert refused_calls(asked) == []
    assert [line["message"] for line in service.log(type="system", severity="WARNING")] == []


def test_what_the_page_grants_is_enough_in_a_cluster(start_service: StartService) -> None:
    with RedisCluster() as cluster:
        for node in cluster.nodes:
            grant(node, "+cluster|slots")
            node.command("CONFIG", "RESETSTAT")
        service = start_service(**settings_of(cluster))
        use_all(service)
        for node in cluster.nodes:
            asked = {name: counts for name, counts in commands_asked(node).items() if name != "cluster|info"}
            assert set(asked) - CONNECTING <= set(GRANTED)
            assert refused_calls(asked) == []


@pytest.mark.parametrize("command", TRIALS)
def test_a_command_that_is_forbidden_is_found_out_before_redis_is_used(redis: Redis, command: str) -> None:
    user = {"REDIS_USERNAME": f"without-{command}", "REDIS_PASSWORD": "the-password"}
    redis.command("ACL", "SETUSER", user["REDIS_USERNAME"], *LINE.split(), "+select", f"-{command}")
    settings = settings_for({**redis.environment(), **user})

    async def trial() -> None:
        async with new_client(settings) as client:
            with pytest.raises(CommandRefused, match=f"^{command}$"):
                await try_commands(client, "berth:{trial}")

    asyncio.run(trial())


@pytest.mark.parametrize(
    ("rights", "named"),
    [
        ("-eval", "CommandRefused: EVAL (AuthorizationError: this user has no permissions to run the 'eval' command)"),
        ("-select", "this user has no permissions to run the 'select' command"),
        ("resetkeys ~another:*", "CommandRefused: SET (AuthorizationError: this user has no permissions to access"),
        ("resetkeys %R~berth:*", "CommandRefused: SET (AuthorizationError: this user has no permissions to access"),
    ],
)
def test_a_right_that_is_missing_ends_the_start_and_is_named(own_redis: Redis, rights: str, named: str) -> None:
    grant(own_redis, "+select", *rights.split())
    message = refusal(own_redis.environment() | AS_BERTH)
    assert named in message
    assert message.endswith("look at the commands that docs/redis.md asks for")


def test_a_command_that_is_renamed_ends_the_start_and_is_named() -> None:
    with Redis("--rename-command", "EVAL", "") as server:
        assert "CommandRefused: EVAL (UnknownCommandError: unknown command 'EVAL'" in refusal(server.environment())


def test_a_right_that_is_taken_away_loses_redis_once_until_it_is_given_back(
    start_service: StartService, own_redis: Redis
) -> None:
    grant(own_redis, "+select")
    service = start_service(**settings_of(own_redis))
    account = service.sign_up()
    own_redis.command("ACL", "SETUSER", "berth", "-eval")
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        service.log_in(account.username, account.password)
        time.sleep(0.3)
    assert readiness(service) == "degraded"
    [told] = [line["message"] for line in service.log(type="system") if line["message"].startswith("Redis is")]
    assert "no permissions to run the 'eval' command" in told
    own_redis.command("ACL", "SETUSER", "berth", "+eval")
    service.wait_for_log(message="Redis is back")


def readiness(service: Service) -> str:
    status: str = service.client.get("/health/ready").json()["status"]
    return status


def test_an_answer_about_one_key_does_not_lose_redis(own_redis: Redis) -> None:
    settings = settings_for(own_redis.environment(0))
    own_redis.command("LPUSH", "berth:{a}:list", "of another version")

    async def scenario() -> list[Any]:
        async with open_store(settings) as store:
            await store.ping()
            refused = [await store.run(lambda client: client.incr("berth:{a}:list")) for _ in range(3)]
            return [*refused, store.client is not None, store.errors]

    assert asyncio.run(scenario()) == [None, None, None, True, 3]


# Redis's own words


@contextmanager
def saying(words: str) -> Iterator[int]:
    """A Redis that answers all but HELLO with this error; its port."""
    hello = b"%3\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                while received := connection.recv(65536):
                    commands = max(1, len(re.findall(rb"\*\d+\r\n", received)))
                    error = f"-{words}\r\n".encode()
                    connection.sendall(hello if b"HELLO" in received else error * commands)

        def refuse(connection: socket.socket) -> None:
            """Unasked, and then it hangs up."""
            with connection, suppress(OSError):
                connection.sendall(f"-{words}\r\n".encode())

        serve = refuse if words.startswith(UNASKED) else answer

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("words", PASSING)
def test_what_redis_says_when_it_refuses_is_the_cause(words: str) -> None:
    async def cause(port: int) -> str:
        settings = settings_for({"REDIS_HOST": "127.0.0.1", "REDIS_PORT": port})
        async with open_store(settings) as store:
            with pytest.raises(Unavailable) as caught:
                await store.ping()
            return caught.value.cause

    with saying(words) as port:
        assert PASSING[words] in asyncio.run(cause(port))


def test_a_full_redis_says_so_in_the_lines_of_the_log_and_is_waited_for(
    start_service: StartService, own_redis: Redis
) -> None:
    own_redis.command("CONFIG", "SET", "maxclients", "1")
    with socket.create_connection(("127.0.0.1", own_redis.port)):
        service = start_service(wait=False, **settings_of(own_redis, {}))
        line = service.wait_for_log(type="system", severity="WARNING")
        assert "max number of clients reached" in line["message"]
    service.wait_for_log(message="Redis is back")
