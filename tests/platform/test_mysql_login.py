"""caching_sha2_password, MySQL 8's default: over TLS, over plain TCP, with and without a server that remembers it."""

import asyncio
import os
from pathlib import Path

import pytest

from infra.sql.database import open_database
from tests.conftest import TEST_SETTINGS
from tests.faults.scenarios import settings_for
from tests.support.mysql_login import LoginServer
from tests.support.servers import free_port
from tests.support.service import parse, run_app

PASSWORD = "pässword %@"


def log_in(server: LoginServer, mode: str) -> None:
    async def open_and_close() -> None:
        before = open_files()
        async with asyncio.timeout(10):
            database = await open_database(settings_for(server.environment(), MYSQL_SSL_MODE=mode))
            await database.close()
            while open_files() > before:  # noqa: ASYNC110 - TLS says good-bye both ways after close() has returned
                await asyncio.sleep(0.01)

    asyncio.run(open_and_close())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("mode", ["preferred", "required"])
def test_over_tls_a_server_that_asks_for_the_password_gets_it(tmp_path: Path, mode: str) -> None:
    with LoginServer(tmp_path, PASSWORD, tls=True) as server:
        log_in(server, mode)
        assert server.received == [PASSWORD.encode() + b"\0"]


@pytest.mark.parametrize(("mode", "tls"), [("required", True), ("disabled", True), ("preferred", False)])
def test_a_server_that_remembers_the_password_lets_in_whoever_proves_it(tmp_path: Path, mode: str, tls: bool) -> None:
    with LoginServer(tmp_path, PASSWORD, tls=tls, remembers=True) as server:
        log_in(server, mode)
        assert server.received == []


@pytest.mark.parametrize(("mode", "tls", "command"), [("disabled", True, ()), ("preferred", False, ("migrate",))])
def test_without_tls_the_password_stays_and_the_last_line_says_what_is_needed(
    tmp_path: Path, mode: str, tls: bool, command: tuple[str, ...]
) -> None:
    with LoginServer(tmp_path, PASSWORD, tls=tls) as server:
        env = TEST_SETTINGS | server.environment() | {"MYSQL_SSL_MODE": mode, "STARTUP_TIMEOUT": "30"}
        done = run_app(*command, env=env | {"DATA_DIR": tmp_path, "HOST": "127.0.0.1", "PORT": free_port()})
        assert not any(PASSWORD.encode() in sent for sent in server.received)
    assert done.returncode == os.EX_CONFIG, done.stdout
    last = parse(done.stdout.splitlines()[-1])
    assert last["severity"] == "CRITICAL"
    assert "caching_sha2_password needs TLS: MYSQL_SSL_MODE is disabled, or the server offers none" in last["message"]
