"""Answers of MySQL, whichever way their packets come."""

import pytest

from infra.base.errors import Unavailable
from infra.sql.database import Database, Row
from infra.sql.errors import StatementError
from tests.faults.scenarios import Environment, play
from tests.support.proxy import Proxy
from tests.support.servers import MariaDB

TYPES = "SELECT 1 AS one, 'ä' AS text, NULL AS nothing, REPEAT('x', 300) AS longer, 2.5e0 AS number, :value AS asked"
THREE = "SELECT seq, :value FROM seq_1_to_3"
FIFTH_PACKET = b"\x07\0\0\x05\0\0\0\x02\0\0\0"  # of an answer: OK
ROW = (1, "ä", None, "x" * 300, 2.5)


async def ask_three_times(database: Database) -> list[list[Row]]:
    return [await database.fetch_all(sql, {"value": value}) for value in "abc" for sql in (TYPES, THREE)]


def three_times() -> list[list[Row]]:
    return [rows for value in "abc" for rows in ([(*ROW, value)], [(1, value), (2, value), (3, value)])]


def test_an_answer_is_read_the_same_again_and_again(mysql_env: Environment) -> None:
    assert play(ask_three_times, mysql_env) == three_times()


@pytest.mark.parametrize("size", [1, 3, 50])
def test_an_answer_that_comes_in_pieces_is_read_whole(mysql_env: Environment, mysql_proxy: Proxy, size: int) -> None:
    mysql_proxy.chunk = size
    mysql_proxy.delay(0.0005)
    env = mysql_env | {"MYSQL_PORT": str(mysql_proxy.port), "MYSQL_SSL_MODE": "disabled"}
    assert play(ask_three_times, env) == three_times()


def test_other_columns_under_the_same_statement_are_seen(mysql_env: Environment, mariadb: MariaDB) -> None:
    async def scenario(database: Database) -> list[list[Row]]:
        found = []
        for kind, value in (("INT", "7"), ("VARCHAR(9)", "'7'"), ("BLOB", "'7'"), ("INT", "7")):
            mariadb.sql(f"CREATE OR REPLACE TABLE shape (x {kind})", database=mysql_env["MYSQL_DATABASE"])
            mariadb.sql(f"INSERT INTO shape VALUES ({value})", database=mysql_env["MYSQL_DATABASE"])
            found += [await database.fetch_all("SELECT x FROM shape") for _ in range(2)]
        return found

    assert play(scenario, mysql_env) == [[(7,)]] * 2 + [[("7",)]] * 2 + [[(b"7",)]] * 2 + [[(7,)]] * 2


def test_more_rows_than_sequence_numbers_are_read(mysql_env: Environment) -> None:
    async def scenario(database: Database) -> list[Row]:
        return await database.fetch_all("SELECT seq FROM seq_1_to_1000")

    assert play(scenario, mysql_env) == [(number,) for number in range(1, 1001)]


def test_a_value_longer_than_a_packet_is_read(mysql_env: Environment, mariadb: MariaDB) -> None:
    async def scenario(database: Database) -> list[tuple[int, str]]:
        rows = [await database.fetch_one(f"SELECT CONCAT(REPEAT('a', {2**24 - 1 + more}), 'z')") for more in (-6, 9)]
        return [(len(row[0]), row[0][-2:]) for row in rows if row]

    before = mariadb.sql("SELECT @@max_allowed_packet AS size")[0]["size"]
    mariadb.sql(f"SET GLOBAL max_allowed_packet = {2**26}")
    try:
        assert play(scenario, mysql_env) == [(2**24 - 6, "az"), (2**24 + 9, "az")]
    finally:
        mariadb.sql(f"SET GLOBAL max_allowed_packet = {before}")


def test_an_error_after_the_first_rows_is_an_error(mysql_env: Environment) -> None:
    """The second row's subquery has two rows, and is read after the first row was sent."""
    sql = "SELECT seq, (SELECT 1 FROM seq_1_to_2 b WHERE b.seq <= a.seq) FROM seq_1_to_2 a"

    async def scenario(database: Database) -> Row | None:
        for _ in range(3):
            with pytest.raises(StatementError, match="1242"):
                await database.fetch_all(sql)
        return await database.fetch_one("SELECT 1")

    assert play(scenario, mysql_env) == (1,)


def test_what_is_left_of_another_answer_is_not_taken_for_this_one(mysql_env: Environment) -> None:
    async def scenario(database: Database) -> Row | None:
        with pytest.raises(Unavailable) as caught:
            async with database.primary.connection() as connection:
                connection.raw_connection._reader.feed_data(FIFTH_PACKET)  # noqa: SLF001
                await connection.run("SELECT 1", {})
        assert "sequence" in str(caught.value.cause)
        return await database.fetch_one("SELECT 2")

    assert play(scenario, mysql_env) == (2,)
