"""Every statement that the service sends finds its rows by an index, whatever the tables hold."""

import re
from collections.abc import Iterator

import pytest

from tests.conftest import StartService
from tests.support.servers import MariaDB, wait_until
from tests.support.service import Service
from tests.support.sink import Sink

BY_INDEX = {"const", "eq_ref", "ref", "range"}
NONE_LEFT = "Impossible WHERE noticed after reading const tables"  # a unique key was looked up and had no row

# Enough rows for the optimizer to prefer an index where there is one.
FILL = """
INSERT INTO accounts (id, username, username_key, email, email_key, password_hash, created_at, updated_at)
SELECT UUID(), CONCAT('crew-', seq), CONCAT('crew-', seq), '', CONCAT('crew-', seq), '', 0, 0 FROM seq_1_to_2000;
INSERT INTO sessions (account_id, id, created_at, last_used_at, expires_at, client, user_agent)
SELECT id, UUID(), 0, 0, 9999999999999, '', '' FROM accounts;
INSERT INTO refresh_tokens (token_hash, account_id, session_id, expires_at)
SELECT SHA2(id, 256), account_id, id, 9999999999999 FROM sessions;
INSERT INTO known_clients (account_id, network, expires_at) SELECT id, '203.0.113.7', 9999999999999 FROM accounts;
INSERT INTO received_events (event_key, expires_at) SELECT token_hash, 9999999999999 FROM refresh_tokens;
INSERT INTO outbox (id, account_id, event, attempts, attempt_at) SELECT UUID(), id, '', 0, 9999999999999 FROM accounts;
ANALYZE TABLE accounts, sessions, refresh_tokens, known_clients, received_events, outbox
"""


def use_what_asks_the_database(service: Service) -> None:
    account = service.sign_up()
    second = service.log_in(account.email, account.password)
    client, bearer = service.client, account.headers
    new = "another pass 1"
    change = {"username": f"{account.username}-2", "current_password": account.password}
    asked = [
        client.get("/v1/auth/me", headers=bearer),
        client.patch("/v1/auth/me", headers=bearer, json=change),
        client.get("/v1/auth/sessions?limit=1", headers=bearer),
        client.get(f"/v1/auth/sessions?limit=1&after={'f' * 8}-ffff-7fff-8fff-{'f' * 12}", headers=bearer),
        client.post("/v1/auth/refresh", json={"refresh_token": second.refresh_token}),
        client.post("/v1/auth/refresh", json={"refresh_token": second.refresh_token}),
        client.delete("/v1/auth/sessions/00000000-0000-7000-8000-000000000000", headers=bearer),
        client.put(
            "/v1/auth/me/password", headers=bearer, json={"current_password": account.password, "new_password": new}
        ),
    ]
    third = service.log_in(account.email, new)
    asked += [
        client.post("/v1/auth/logout", headers=third.headers),
        client.request("DELETE", "/v1/auth/me", headers=bearer, json={"password": new}),
    ]
    purge = {"ce-specversion": "1.0", "ce-type": "dev.berth.sessions.purge", "ce-source": "/", "ce-id": "1"}
    asked += [client.post("/v1/events", headers={"Authorization": "Bearer events", **purge}) for _ in range(2)]
    assert [answer.status_code for answer in asked] == [200, 200, 200, 200, 200, 401, 404, 204, 204, 204, 204, 204]


@pytest.fixture(scope="module")
def logged(mariadb: MariaDB) -> Iterator[MariaDB]:
    """The server, which keeps what it is asked in mysql.general_log."""
    mariadb.sql("SET GLOBAL log_output = 'TABLE'")
    mariadb.sql("SET GLOBAL general_log = ON")
    yield mariadb
    mariadb.sql("SET GLOBAL general_log = OFF")


def test_every_statement_that_is_sent_uses_an_index(logged: MariaDB, start_service: StartService, sink: Sink) -> None:
    sink.answers = [500]
    service = start_service("mysql+redis", EVENTS_TOKEN="events", K_SINK=sink.url)
    database = str(service.env["MYSQL_DATABASE"])
    for statement in FILL.split(";"):
        logged.sql(statement, database=database)
    logged.sql("TRUNCATE mysql.general_log")

    use_what_asks_the_database(service)
    wait_until(lambda: sink.asked >= 3, "the events, one of them twice", within=20)

    found = logged.sql(
        "SELECT argument FROM mysql.general_log WHERE command_type = 'Query' AND user_host LIKE 'berth%%'"
    )
    tables = [str(name) for row in logged.sql("SHOW TABLES", database=database) for name in row.values()]
    of_a_table = re.compile(rf"\b({'|'.join(tables)})\b")
    statements = {str(row["argument"]) for row in found if of_a_table.search(str(row["argument"]))}
    plans = {
        statement: logged.sql(f"EXPLAIN {statement.replace('%', '%%')}", database=database)
        for statement in statements
        if not statement.startswith("INSERT")
    }
    assert len(plans) >= 28, "too few statements were seen for this test to say anything"
    for statement, plan in plans.items():
        for step in plan:
            assert step["type"] in BY_INDEX or step["Extra"] == NONE_LEFT, f"{statement}\n{step}"
            assert "filesort" not in (step["Extra"] or ""), f"{statement}\n{step}"
            # or in a small table the optimizer might lock every row on its way through the other one: deadlocks
            if not statement.startswith("SELECT"):
                assert "," not in (step["possible_keys"] or ""), f"two indexes to choose from: {statement}\n{step}"
