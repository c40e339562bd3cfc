"""Each connection to MySQL says what it speaks, whatever the server's own settings are."""

from collections.abc import Iterator
from typing import Any

import pytest

from infra.sql.database import Database
from tests.conftest import StartService
from tests.faults.scenarios import Environment, list_sessions, migrate, play
from tests.support.servers import MariaDB
from tests.support.service import refusal

TEXTS = [
    "Ærøskøbing, Łódź, Ђорђе, Αθήνα",
    "مرحبا, שלום, नमस्ते, สวัสดี",
    "港湾サービス, 한국어, 𠮷野家",
    "🛟⚓️👩‍👩‍👧‍👦🏴‍☠️",
    "e\u0301 is not \u00e9",
    "'; DROP TABLE texts; -- \\' \\\\ \" `%s` :text",
    "ends with a blank ",
]
TEXTS_TABLE = "(id INT PRIMARY KEY, text TEXT) ENGINE InnoDB CHARSET utf8mb4 COLLATE utf8mb4_bin"
SESSION = (
    "character_set_client",
    "character_set_connection",
    "character_set_results",
    "collation_connection",
    "sql_mode",
    "time_zone",
    "autocommit",
    "completion_type",
    "unique_checks",
    "sql_auto_is_null",
    "sql_safe_updates",
    "sql_big_selects",
    "sql_select_limit",
    "tx_isolation",
    "innodb_lock_wait_timeout",
    "max_statement_time",
)
HOSTILE = {
    "init_connect": "SET NAMES latin1; SET time_zone = '+02:00', autocommit = 0, sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "character_set_server": "latin1",
    "character_set_client": "latin1",
    "character_set_connection": "latin1",
    "character_set_results": "latin1",
    "collation_server": "utf16_bin",
    "collation_connection": "utf8mb4_unicode_ci",
    "sql_mode": "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,IGNORE_SPACE",
    "time_zone": "+05:30",
    "autocommit": 0,
    "completion_type": "RELEASE",
    "tx_isolation": "SERIALIZABLE",
    "unique_checks": 0,
    "sql_auto_is_null": 1,
    "sql_safe_updates": 1,
    "sql_big_selects": 0,
    "sql_select_limit": 1,
    "max_statement_time": 0.001,
}
OPTIONS = (  # of which some can only be given at the start
    "--skip-character-set-client-handshake",
    "--character-set-server=latin1",
    "--collation-server=latin1_german2_ci",
    "--lower-case-table-names=1",
    "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES",
    "--default-time-zone=+05:30",
    "--autocommit=0",
    "--completion-type=CHAIN",
    "--transaction-isolation=SERIALIZABLE",
    "--default-storage-engine=MyISAM",
    "--innodb-default-row-format=redundant",
    "--init-connect=SET NAMES latin1",
)


@pytest.fixture(scope="module")
def own() -> Iterator[MariaDB]:
    """A server that tests here reconfigure; each leaves it as it was."""
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="module")
def env(own: MariaDB) -> Environment:
    name = own.create_database()
    own.sql(f"CREATE TABLE texts {TEXTS_TABLE}", database=name)
    return own.environment(name)


async def session(database: Database) -> Any:
    return await database.fetch_one(f"SELECT {', '.join(f'@@{name}' for name in SESSION)}")


async def texts(database: Database) -> list[str]:
    """They, written and read again; two rows a statement, one of them in a transaction."""
    await database.execute("DELETE FROM texts WHERE text IS NOT NULL")
    for number, text in enumerate(TEXTS):
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO texts VALUES (:id, :text)", {"id": number, "text": text})
    found = []
    for text in TEXTS:
        rows = await database.fetch_all("SELECT text FROM texts WHERE text = :text", {"text": text})
        found += [str(row[0]) for row in rows]
    assert len(await database.fetch_all("SELECT id FROM texts")) == len(TEXTS)
    return found


@pytest.mark.parametrize("variable", HOSTILE)
def test_no_setting_of_the_server_changes_what_a_connection_speaks(
    own: MariaDB, env: Environment, variable: str
) -> None:
    usual = play(session, env)
    [[before]] = [row.values() for row in own.sql(f"SELECT @@GLOBAL.{variable}")]
    own.sql(f"SET GLOBAL {variable} = %s", HOSTILE[variable])
    try:
        assert play(session, env) == usual
        assert play(texts, env) == TEXTS
    finally:
        own.sql(f"SET GLOBAL {variable} = %s", before)


def test_a_service_works_on_a_server_that_is_set_up_for_something_else(start_service: StartService) -> None:
    with MariaDB(*OPTIONS) as server:
        env = migrate(server.environment(server.create_database()))
        service = start_service(**env)
        for text in TEXTS[:4]:
            account = service.sign_up(password=f"{text} is long enough")
            assert list_sessions(service, account).json()["items"]
            assert service.client.post("/v1/auth/logout", headers=account.headers).status_code == 204
        tables = server.sql(
            "SELECT table_name AS name, engine, row_format, table_collation FROM information_schema.tables"
            " WHERE table_schema = %s",
            env["MYSQL_DATABASE"],
        )
        assert {row["engine"] for row in tables} == {"InnoDB"}
        own = [row for row in tables if row["name"] != "alembic_version"]
        assert {(row["row_format"], row["table_collation"]) for row in own} == {("Dynamic", "utf8mb4_bin")}
        migrate(env)  # once more, and finds its own table
        server.sql(f"CREATE TABLE texts {TEXTS_TABLE}", database=env["MYSQL_DATABASE"])
        assert play(texts, env) == TEXTS


# MYSQL_INIT_COMMAND


def test_a_statement_of_the_operators_runs_on_each_new_connection(own: MariaDB, env: Environment) -> None:
    async def scenario(database: Database) -> list[Any]:
        async with database.primary.connection() as one, database.primary.connection() as other:
            return [(await each.run("SELECT @@sort_buffer_size", {}))[0] for each in (one, other)]

    command = "SET SESSION sort_buffer_size = 123904"
    assert play(scenario, env, MYSQL_INIT_COMMAND=command) == [[(123904,)], [(123904,)]]


@pytest.mark.parametrize("arguments", [(), ("migrate",)], ids=["serve", "migrate"])
def test_a_statement_that_the_server_refuses_is_a_wrong_setting(env: Environment, arguments: tuple[str, ...]) -> None:
    said = refusal(env | {"MYSQL_INIT_COMMAND": "SET no_such_variable = 1"}, *arguments)
    assert "Unknown system variable 'no_such_variable'" in said
    assert said.endswith("look at MYSQL_INIT_COMMAND")
