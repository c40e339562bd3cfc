"""docs/mysql.md, as an administrator and an operator would follow it, on a server of its own."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pymysql
import pytest

from tests.conftest import TEST_SETTINGS
from tests.support.servers import MariaDB
from tests.support.service import ROOT, Service, clean_environment

PAGE = (ROOT / "docs/mysql.md").read_text(encoding="utf-8")
[SQL] = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
[COMMANDS] = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def commands() -> list[tuple[dict[str, str], list[str]]]:
    """The variables and the words of each."""
    split = [shlex.split(line) for line in COMMANDS.splitlines()]
    return [
        (
            dict(word.split("=", 1) for word in words if re.match("[A-Z_]+=", word)),
            [word for word in words if not re.match("[A-Z_]+=", word)],
        )
        for words in split
    ]


@pytest.fixture(scope="module")
def server(commands: list[tuple[dict[str, str], list[str]]]) -> Iterator[MariaDB]:
    """With the page's database and users, and migrated by the page's command."""
    with MariaDB() as server:
        server.sql("DROP USER berth")  # the tests' own
        for statement in filter(str.strip, SQL.split(";")):
            server.sql(statement)
        variables, words = commands[0]
        assert words == ["python", "app.py", "migrate"]
        env = clean_environment({**TEST_SETTINGS, **address(server), **variables})
        migrated = subprocess.run(
            [sys.executable, *words[1:]], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert migrated.returncode == 0, migrated.stdout
        yield server


def address(server: MariaDB) -> dict[str, str]:
    return {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(server.port)}


@pytest.fixture(scope="module")
def service(server: MariaDB, commands: list[tuple[dict[str, str], list[str]]]) -> Iterator[Service]:
    variables, words = commands[1]
    assert words == ["python", "app.py"]
    with Service({**TEST_SETTINGS, **address(server), **variables}) as service:
        yield service


def test_the_user_that_serves_may_do_all_that_requests_ask_for(service: Service) -> None:
    account = service.sign_up()
    client, headers = service.client, account.headers
    assert client.post("/v1/auth/refresh", json={"refresh_token": account.refresh_token}).status_code == 200
    change = {"username": "another", "current_password": account.password}
    assert client.patch("/v1/auth/me", json=change, headers=headers).status_code == 200
    assert client.get("/v1/auth/sessions", headers=headers).status_code == 200
    deleted = client.request("DELETE", "/v1/auth/me", json={"password": account.password}, headers=headers)
    assert deleted.status_code == 204


def test_the_user_that_serves_may_not_change_tables(server: MariaDB, service: Service) -> None:
    user, password = service.env["MYSQL_USERNAME"], service.env["MYSQL_PASSWORD"]
    with (
        pymysql.connect(
            host="127.0.0.1", port=server.port, user=user, password=password, database="berth"
        ) as connection,
        connection.cursor() as cursor,
    ):
        for statement in ("CREATE TABLE x (y INT)", "DROP TABLE accounts", "ALTER TABLE accounts ADD COLUMN x INT"):
            with pytest.raises(pymysql.OperationalError, match="denied"):
                cursor.execute(statement)


def test_neither_user_may_do_more_than_that_to_any_database(server: MariaDB) -> None:
    for user in ("berth_migrate", "berth"):
        given = [next(iter(row.values())) for row in server.sql(f"SHOW GRANTS FOR {user}")]
        assert [line.partition(" TO ")[0].partition(" ON ")[2] for line in given] == ["*.*", "`berth`.*"]
        assert given[0].startswith("GRANT USAGE ON")
        assert "GRANT OPTION" not in given[1]
