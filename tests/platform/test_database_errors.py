"""Which error of a database is a 409, which a 503, and which a 500 that names its statement and no value."""

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from infra.base.errors import Duplicate, Unavailable
from infra.sql.database import Database
from infra.sql.errors import Demoted, StatementError
from infra.sql.sqlite_driver import explain
from tests.conftest import Sql, StartService
from tests.faults.scenarios import Environment, connection_id, play
from tests.support.servers import MariaDB
from tests.support.service import Service

SECRET = "secret value"  # in every statement's values
LANGUAGES = ["en_US", "de_DE", "fr_FR", "hu_HU", "ja_JP", "ko_KR", "ru_RU", "zh_CN"]

TABLES = {
    "mysql": (
        "CREATE TABLE ships (id INT NOT NULL PRIMARY KEY)",
        """
        CREATE TABLE crew (
            id VARCHAR(60) NOT NULL PRIMARY KEY, nick VARCHAR(60) NOT NULL, nick_key VARCHAR(60), age INT, ship INT,
            UNIQUE KEY nick_key (nick_key), CHECK (age > 0), FOREIGN KEY (ship) REFERENCES ships (id)
        )
        """,
    ),
    "sqlite": (
        "CREATE TABLE ships (name TEXT)",
        """
        CREATE TABLE crew (
            id TEXT NOT NULL PRIMARY KEY, nick TEXT NOT NULL, nick_key TEXT UNIQUE, age INTEGER CHECK (age > 0)
        ) WITHOUT ROWID
        """,
        """
        CREATE TRIGGER full AFTER DELETE ON crew BEGIN SELECT RAISE(ABORT, 'they stay'); END
        """,
    ),
}

Failure = tuple[type[Exception], str]


class Case(NamedTuple):
    statement: str
    raised: type[Exception]
    said: str


FIRST = "INSERT INTO crew (id, nick, nick_key) VALUES (:secret, 'ada', 'ada')"
ON_BOTH = [
    Case("INSERT INTO crew (id, nick, nick_key) VALUES ('2', :secret, 'ada')", Duplicate, "nick"),
    Case("INSERT INTO crew (id, nick) VALUES (:secret, 'ada')", Duplicate, "value"),
    Case("INSERT INTO crew (id, nick, age) VALUES ('2', :secret, -1)", StatementError, "CONSTRAINT"),
    Case("INSERT INTO crew (id, nick) VALUES (:secret, NULL)", StatementError, "nick"),
    Case("SELECT * FROM crews WHERE id = :secret", StatementError, "crews"),
    Case("SELECT nickname FROM crew WHERE id = :secret", StatementError, "nickname"),
    Case("SELECT id FORM crew WHERE id = :secret", StatementError, "FORM"),
    Case("INSERT INTO crew (id) VALUES (:secret)", StatementError, "nick"),
]
ON_MYSQL = [
    Case("INSERT INTO crew (id, nick) VALUES ('2', REPEAT(:secret, 9))", StatementError, "1406 DATA_TOO_LONG"),
    Case("INSERT INTO crew (id, nick, age) VALUES ('2', '', :secret)", StatementError, "1366"),
    Case("INSERT INTO crew (id, nick, ship) VALUES ('2', :secret, 7)", StatementError, "1452 NO_REFERENCED_ROW_2"),
    Case("SELECT (SELECT seq FROM seq_1_to_3) FROM crew WHERE id = :secret", StatementError, "1242"),
]
ON_SQLITE = [
    Case("INSERT INTO ships (rowid, name) VALUES (1, :secret)", Duplicate, "value"),
    Case("DELETE FROM crew WHERE id = :secret", StatementError, "SQLITE_CONSTRAINT_TRIGGER"),
    Case("SELECT :secret, :forgotten", StatementError, "forgotten"),
]
PASSING = {
    "too many connections": (1040, 1041, 1203, 1226),
    "locks": (1020, 1205, 1206, 1213, 1223, 1412, 1637),
    "disk and memory": (1021, 1030, 1037, 1038, 1114),
    "a statement that was ended": (1317, 1969, 3024),
    "shutting down": (1053, 1152, 1927, 4031),
    "a commit that a cluster refuses": (1047, 1180, 3100, 3101),
    "read-only": (1036, 1290, 1792, 1836),
    "Vitess, TiDB and ProxySQL": (1105, 9001, 9007),
}
DEFECTS = (1054, 1064, 1142, 1146, 1265, 1305, 1364, 1451, 1526, 3819)


async def fail(database: Database, statement: str) -> Failure:
    """What the statement raises, and what that says."""
    error: Duplicate | Unavailable | StatementError
    with pytest.raises((Duplicate, Unavailable, StatementError)) as caught:
        await database.execute(statement, {"secret": SECRET})
    error = caught.value  # type: ignore[assignment]
    if isinstance(error, StatementError):
        assert error.statement == statement
        assert SECRET not in str(error)
        assert error.__cause__ is None
        return type(error), str(error)
    if isinstance(error, Duplicate):
        return type(error), str(error).removesuffix(" is taken")
    return type(error), error.cause


async def fail_each(database: Database, kind: str, cases: list[Case]) -> list[Failure]:
    for statement in TABLES[kind]:
        await database.execute(statement)
    await database.execute(FIRST, {"secret": SECRET})
    if kind == "sqlite":
        await database.execute(ON_SQLITE[0].statement, {"secret": SECRET})
    return [await fail(database, case.statement) for case in cases]


@pytest.fixture
def sqlite_env(tmp_path: Path) -> Environment:
    return {"DATA_DIR": str(tmp_path), "MYSQL_QUERY_TIMEOUT": "0.2"}


def check(cases: list[Case], failures: list[Failure]) -> None:
    for case, (raised, said) in zip(cases, failures, strict=True):
        assert (case.statement, raised) == (case.statement, case.raised), said
        assert case.said in said


def test_mysql_refuses_a_duplicate_with_409_and_anything_else_that_is_wrong_with_500(
    mariadb: MariaDB, mysql_env: Environment
) -> None:
    cases = ON_BOTH + ON_MYSQL
    check(cases, play(lambda database: fail_each(database, "mysql", cases), mysql_env))


def test_sqlite_refuses_a_duplicate_with_409_and_anything_else_that_is_wrong_with_500(sqlite_env: Environment) -> None:
    cases = ON_BOTH + ON_SQLITE
    check(cases, play(lambda database: fail_each(database, "sqlite", cases), sqlite_env))


@pytest.mark.parametrize("codes", PASSING.values(), ids=PASSING.keys())
def test_what_passes_on_mysql_is_a_503(mysql_env: Environment, codes: tuple[int, ...]) -> None:
    async def scenario(database: Database) -> list[Failure]:
        return [await fail(database, signal(code)) for code in codes]

    for code, (raised, cause) in zip(codes, play(scenario, mysql_env), strict=True):
        assert issubclass(raised, Unavailable), code
        assert str(code) in cause
        assert (raised is Demoted) == (code in (1290, 1836))


def test_what_does_not_pass_on_mysql_is_a_500(mysql_env: Environment) -> None:
    async def scenario(database: Database) -> list[Failure]:
        return [await fail(database, signal(code)) for code in DEFECTS]

    for code, (raised, said) in zip(DEFECTS, play(scenario, mysql_env), strict=True):
        assert raised is StatementError, code
        assert str(code) in said


def signal(code: int) -> str:
    return f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'it is so'"


@pytest.mark.parametrize("key", ["nick_key", "PRIMARY"])
def test_a_duplicate_is_named_whatever_language_the_server_speaks(mysql_env: Environment, key: str) -> None:
    """The value that is taken looks like a key's name."""

    async def scenario(database: Database) -> list[Failure]:
        for statement in TABLES["mysql"]:
            await database.execute(statement)
        await database.execute("INSERT INTO crew (id, nick, nick_key) VALUES ('1', '', 'x'' for key ''age_key')")
        found = []
        for language in LANGUAGES:
            await database.execute(f"SET lc_messages = '{language}'")
            number, taken = ("2", "x'' for key ''age_key") if key == "nick_key" else ("1", "y")
            found.append(
                await fail(database, f"INSERT INTO crew (id, nick, nick_key) VALUES ({number}, '', '{taken}')")
            )
        return found

    expected = (Duplicate, "nick" if key == "nick_key" else "value")
    assert play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=1) == [expected] * len(LANGUAGES)


def test_a_refused_duplicate_leaves_no_transaction_open_in_the_pool(mariadb: MariaDB, mysql_env: Environment) -> None:
    async def scenario(database: Database) -> tuple[int, int]:
        for statement in TABLES["mysql"]:
            await database.execute(statement)
        before = await connection_id(database)
        with pytest.raises(Duplicate):
            async with database.transaction() as transaction:
                for _ in range(2):
                    await transaction.execute(FIRST, {"secret": SECRET})
        assert mariadb.sql("SELECT * FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = %s", before) == []
        assert await database.fetch_all("SELECT * FROM crew") == []
        return before, await connection_id(database)

    before, after = play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=1)
    assert before == after


def test_a_transaction_that_was_left_open_is_not_given_to_the_next(mariadb: MariaDB, mysql_env: Environment) -> None:
    async def scenario(database: Database) -> None:
        await database.execute("BEGIN")
        await database.execute("UPDATE accounts SET updated_at = 0")
        async with database.primary.connection() as connection:
            assert not connection.raw_connection.get_transaction_status()

    play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=1)


def test_sqlite_without_room_or_leave_to_write_is_a_503(sqlite_env: Environment) -> None:
    async def scenario(database: Database) -> None:
        await database.execute("CREATE TABLE t (x BLOB)")
        for pragma in ("max_page_count = 3", "query_only = 1"):
            with pytest.raises(Unavailable):
                async with database.transaction() as transaction:
                    await transaction.execute(f"PRAGMA {pragma}")
                    await transaction.execute("INSERT INTO t VALUES (ZEROBLOB(100000))")

    play(scenario, sqlite_env)


def test_sqlite_that_another_process_has_locked_is_a_503(sqlite_env: Environment) -> None:
    async def scenario(database: Database) -> None:
        await database.execute("CREATE TABLE t (x)")
        with sqlite3.connect(Path(sqlite_env["DATA_DIR"]) / "berth.db", isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(Unavailable):
                await database.execute("INSERT INTO t VALUES (1)")
            other.execute("ROLLBACK")
        other.close()
        await database.execute("INSERT INTO t VALUES (1)")

    play(scenario, sqlite_env)


def test_sqlite_that_can_not_be_opened_is_a_503(start_service: StartService) -> None:
    service = start_service("sqlite")
    account = service.sign_up()
    for file in service.data.glob("berth.db*"):
        file.unlink()
    (service.data / "berth.db").mkdir()
    answer = service.client.get("/v1/auth/me", headers=account.headers)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


@pytest.mark.parametrize("name", ["SQLITE_IOERR_WRITE", "SQLITE_IOERR_READ", "SQLITE_READONLY_DIRECTORY"])
def test_a_disk_that_fails_under_sqlite_is_a_503(name: str) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
    assert isinstance(explain(error, "SELECT 1"), Unavailable)


def break_schema(service: Service, sql: Sql) -> None:
    sql(service, "ALTER TABLE sessions RENAME COLUMN user_agent TO agent")


def test_a_wrong_statement_is_a_500_with_its_text_in_the_log_and_none_of_its_values(
    start_service: StartService, sql: Sql, backend: str
) -> None:
    service = start_service(backend, DEBUG="false")
    account = service.sign_up()
    break_schema(service, sql)
    answer = service.client.get("/v1/auth/sessions", headers=account.headers)
    assert answer.status_code == 500
    assert "agent" not in answer.text
    line: dict[str, Any] = service.wait_for_log(severity="ERROR")
    assert "user_agent" in line["exception"]
    assert "FROM sessions WHERE account_id = :account_id" in line["exception"]
    assert "Traceback" in line["exception"]
    assert account.id not in line["exception"]
