"""Scheduled work: CloudEvents in, each done once, and the same from the command line."""

import os
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import httpx
import pymysql
import pytest

from tests.conftest import TEST_SETTINGS, Sql, StartService, backend_settings
from tests.faults.load import QuickService
from tests.support.servers import MariaDB, free_port, wait_until
from tests.support.service import Service, parse, run_app
from tests.support.wire import assert_problem

TOKEN = "!a-token,with:what/a?URL@would%encode"
PURGE = "dev.berth.sessions.purge"
NUMBERS = count(1)
WEEK_MS = 7 * 24 * 3600 * 1000


@pytest.fixture(scope="module")
def service(backend: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    with QuickService({**TEST_SETTINGS, **backend_settings(backend, request), "EVENTS_TOKEN": TOKEN}) as shared:
        shared.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield shared


def new_event(**attributes: str) -> dict[str, str]:
    return {"specversion": "1.0", "id": f"e-{next(NUMBERS)}", "source": "/tests", "type": PURGE} | attributes


def binary(service: Service, event: dict[str, str], **headers: str) -> httpx.Response:
    named = {f"ce-{name}": value for name, value in event.items()}
    every = httpx.Headers({"content-type": "application/json", **named, **headers}, encoding="latin-1")
    return service.client.post("/v1/events", headers=every)


def structured(service: Service, event: dict[str, Any]) -> httpx.Response:
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    return service.client.post("/v1/events", headers=headers, json=event)


def expire_a_session(service: Service, sql: Sql) -> str:
    """Of an account of its own, whose id it returns."""
    account = service.sign_up()
    for table in ("sessions", "refresh_tokens"):
        sql(service, f"UPDATE {table} SET expires_at = 1 WHERE account_id = '{account.id}'")
    return account.id


def sessions_and_tokens(service: Service, sql: Sql, account_id: str) -> tuple[int, int]:
    counts = [
        sql(service, f"SELECT COUNT(*) AS number FROM {table} WHERE account_id = '{account_id}'")[0]["number"]
        for table in ("sessions", "refresh_tokens")
    ]
    return counts[0], counts[1]


def purges(*services: Service) -> int:
    return sum(len(service.log(type="task", message="expired sessions purged")) for service in services)


# What it takes


@pytest.mark.parametrize("send", [binary, structured])
def test_an_event_in_either_mode_is_done_and_answered_204(service: Service, sql: Sql, send: Any) -> None:
    account_id = expire_a_session(service, sql)
    answer = send(service, new_event(time="2026-11-24T08:00:00Z", subject="a", data="b", ownextension="c"))
    assert (answer.status_code, answer.content) == (204, b"")
    assert sessions_and_tokens(service, sql, account_id) == (0, 0)


def test_the_data_of_an_event_in_binary_mode_may_be_anything(service: Service) -> None:
    headers = {f"ce-{name}": value for name, value in new_event().items()} | {"content-type": "text/plain"}
    assert service.client.post("/v1/events", headers=headers, content=b"\xff{").status_code == 204


def test_the_token_may_be_the_password_of_a_url(service: Service) -> None:
    credentials = b64encode(f"anyone:{TOKEN}".encode()).decode()
    assert binary(service, new_event(), authorization=f"Basic {credentials}").status_code == 204


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Token {TOKEN}",
        "Basic %",
        f"Basic {b64encode(TOKEN.encode()).decode()}",
        "Bearer é",
    ],
)
def test_without_the_token_it_is_a_401(service: Service, authorization: str) -> None:
    answer = binary(service, new_event(), authorization=authorization)
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_without_a_token_in_the_settings_there_is_no_such_route(start_service: StartService) -> None:
    assert_problem(binary(start_service(), new_event(), authorization="Bearer None"), 404)


@pytest.mark.parametrize("send", [binary, structured])
@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_a_required_attribute_that_is_missing_is_a_422(service: Service, send: Any, name: str) -> None:
    event = new_event()
    del event[name]
    assert assert_problem(send(service, event), 422)["errors"] == [{"field": name, "message": "required"}]


@pytest.mark.parametrize("send", [binary, structured])
@pytest.mark.parametrize(("name", "value"), [("specversion", "0.3"), ("id", ""), ("time", "noon"), ("type", "x.y")])
def test_an_attribute_that_is_wrong_is_a_422_that_names_it(service: Service, send: Any, name: str, value: str) -> None:
    problem = assert_problem(send(service, new_event(**{name: value})), 422)
    assert [error["field"] for error in problem["errors"]] == [name]


def test_an_unknown_type_is_told_the_known_ones(service: Service) -> None:
    assert PURGE in assert_problem(binary(service, new_event(type="dev.berth.sail")), 422)["detail"]


def test_a_batch_is_a_415(service: Service) -> None:
    headers = {"content-type": "application/cloudevents-batch+json"}
    assert_problem(service.client.post("/v1/events", headers=headers, json=[new_event()]), 415)


def test_broken_json_is_a_400(service: Service) -> None:
    headers = {"content-type": "application/cloudevents+json"}
    assert_problem(service.client.post("/v1/events", headers=headers, content=b"{"), 400)


# Once


def test_an_event_delivered_twice_is_done_once(service: Service, sql: Sql) -> None:
    event = new_event()
    assert binary(service, event).status_code == 204
    account_id = expire_a_session(service, sql)
    assert structured(service, event).status_code == 204
    assert sessions_and_tokens(service, sql, account_id) == (1, 1)


def test_an_id_of_another_source_is_another_event(service: Service, sql: Sql) -> None:
    event = new_event()
    binary(service, event)
    account_id = expire_a_session(service, sql)
    binary(service, event | {"source": "/elsewhere"})
    assert sessions_and_tokens(service, sql, account_id) == (0, 0)


def test_an_id_is_the_same_percent_encoded_in_a_header_and_plain_in_a_body(service: Service, sql: Sql) -> None:
    event = new_event(id="caf\u00e9")
    structured(service, event)
    account_id = expire_a_session(service, sql)
    assert binary(service, event | {"id": "caf%C3%A9"}).status_code == 204
    assert sessions_and_tokens(service, sql, account_id) == (1, 1)


def test_each_schedule_time_of_a_cloud_scheduler_job_is_an_event(service: Service, sql: Sql) -> None:
    event = new_event(source="/scheduler")
    del event["id"]

    def tick(time: str) -> int:
        return binary(service, event, **{"X-CloudScheduler-ScheduleTime": time}).status_code

    assert tick("2026-11-24T08:00:00Z") == 204
    account_id = expire_a_session(service, sql)
    assert tick("2026-11-24T08:00:00Z") == 204
    assert sessions_and_tokens(service, sql, account_id) == (1, 1)
    assert tick("2026-11-24T09:00:00Z") == 204
    assert sessions_and_tokens(service, sql, account_id) == (0, 0)


def test_an_event_at_two_instances_at_once_is_done_once(service: Service, start_service: StartService) -> None:
    shared: dict[str, Any] = {name: value for name, value in service.env.items() if name not in ("PATH", "PORT")}
    other = start_service(**shared)
    other.client.headers["authorization"] = f"Bearer {TOKEN}"
    before, event = purges(service), new_event()
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(binary, [service, other][number % 2], event) for number in range(8)]
        statuses = [answer.result().status_code for answer in answers]
    assert set(statuses) <= {204, 503}
    assert 204 in statuses
    for last in (binary(service, new_event()), binary(other, new_event()), binary(other, event)):
        assert last.status_code == 204
    wait_until(lambda: purges(service, other) - before >= 3, "the last line of each", within=5)
    assert purges(service, other) - before == 3


def test_an_event_that_fails_is_a_5xx_and_done_when_it_comes_again(service: Service, sql: Sql) -> None:
    account_id, event = expire_a_session(service, sql), new_event()
    sql(service, "ALTER TABLE refresh_tokens RENAME TO tokens_elsewhere")
    try:
        assert binary(service, event).status_code >= 500
    finally:
        sql(service, "ALTER TABLE tokens_elsewhere RENAME TO refresh_tokens")
    assert binary(service, event).status_code == 204
    assert sessions_and_tokens(service, sql, account_id) == (0, 0)


def test_an_event_that_fails_is_forgotten_and_no_other(service: Service, sql: Sql) -> None:
    done, event = new_event(), new_event()
    assert binary(service, done).status_code == 204
    sql(service, "ALTER TABLE refresh_tokens RENAME TO tokens_elsewhere")
    try:
        assert binary(service, event).status_code >= 500
    finally:
        sql(service, "ALTER TABLE tokens_elsewhere RENAME TO refresh_tokens")
    account_id = expire_a_session(service, sql)
    assert binary(service, done).status_code == 204
    assert sessions_and_tokens(service, sql, account_id) == (1, 1)
    assert binary(service, event).status_code == 204
    assert sessions_and_tokens(service, sql, account_id) == (0, 0)


@pytest.mark.parametrize(("left", "status"), [(-1, 204), (50_000, 503)], ids=["over", "almost over"])
def test_a_claim_holds_until_its_end_and_no_longer(service: Service, sql: Sql, left: int, status: int) -> None:
    event, other = new_event(), new_event()
    for each in (event, other):
        assert binary(service, each).status_code == 204
    claimed_until = int(time.time() * 1000) + left
    sql(service, f"UPDATE received_events SET claimed_until = {claimed_until}")
    assert binary(service, event).status_code == status
    claims = [row["claimed_until"] for row in sql(service, "SELECT claimed_until FROM received_events")]
    assert None in claims or status == 503
    assert claimed_until in claims  # the other event's


def test_a_claim_outlasts_a_request_and_a_done_event_is_known_for_a_week(
    start_service: StartService, sql: Sql, mariadb: MariaDB
) -> None:
    service = start_service("mysql+redis", EVENTS_TOKEN=TOKEN, REQUEST_TIMEOUT=8)
    service.client.headers["authorization"] = f"Bearer {TOKEN}"
    expire_a_session(service, sql)
    before = int(time.time() * 1000)
    with ThreadPoolExecutor(1) as threads:
        with locked_sessions(mariadb, service.env["MYSQL_DATABASE"]):
            delivery = threads.submit(binary, service, new_event())
            wait_until(lambda: bool(sql(service, "SELECT * FROM received_events")), "the claim", within=5)
            [row] = sql(service, "SELECT * FROM received_events")
        assert delivery.result().status_code == 204
    assert before + 8_000 < row["claimed_until"] < before + 30_000
    assert before + WEEK_MS <= row["expires_at"] < before + WEEK_MS + 30_000
    [row] = sql(service, "SELECT * FROM received_events")
    assert row["claimed_until"] is None


@contextmanager
def locked_sessions(mariadb: MariaDB, database: str) -> Iterator[None]:
    """Another client of the database holds every session."""
    connection = pymysql.connect(unix_socket=str(mariadb.unix_socket), user="root", database=database)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM sessions FOR UPDATE")
        yield
        connection.rollback()


def test_an_event_that_is_being_worked_on_is_a_503_until_its_claim_ends(service: Service, sql: Sql) -> None:
    event = new_event()
    binary(service, event)
    sql(service, "UPDATE received_events SET claimed_until = 99999999999999")
    answer = binary(service, event)
    assert_problem(answer, 503)
    assert answer.headers["retry-after"]
    account_id = expire_a_session(service, sql)
    sql(service, "UPDATE received_events SET claimed_until = 1")  # whoever had it has crashed
    assert binary(service, event).status_code == 204
    assert sessions_and_tokens(service, sql, account_id) == (0, 0)


def test_events_of_a_week_ago_are_forgotten_by_a_task_of_their_own(service: Service, sql: Sql) -> None:
    account_id = expire_a_session(service, sql)
    sql(service, "INSERT INTO received_events (event_key, expires_at) VALUES ('old', 1), ('known', 99999999999999)")
    assert binary(service, new_event(type="dev.berth.events.purge")).status_code == 204
    left = {row["event_key"] for row in sql(service, "SELECT event_key FROM received_events")}
    assert ("old" in left, "known" in left) == (False, True)
    assert service.wait_for_log(type="task", message="expired events purged")["received_events"] == 1
    assert sessions_and_tokens(service, sql, account_id) == (1, 1)
    assert binary(service, new_event()).status_code == 204  # which takes it from the tests that count


# python app.py run


def test_run_does_the_work_and_ends_with_0(service: Service, sql: Sql) -> None:
    account_id = expire_a_session(service, sql)
    done = run_app("run", PURGE, env=service.env)
    [line] = [line for line in map(parse, done.stdout.splitlines()) if line["type"] == "task"]
    assert (done.returncode, done.stderr) == (0, "")
    assert (line["sessions"], line["refresh_tokens"]) == (1, 1)
    assert sessions_and_tokens(service, sql, account_id) == (0, 0)


@pytest.mark.parametrize("arguments", [("run",), ("run", "dev.berth.sail"), ("run", PURGE, PURGE)])
def test_run_of_an_unknown_type_ends_with_64_and_tells_the_known_ones(arguments: tuple[str, ...]) -> None:
    done = run_app(*arguments, env={})
    assert (done.returncode, done.stdout) == (os.EX_USAGE, "")
    assert PURGE in done.stderr


def test_run_without_the_database_ends_with_69() -> None:
    env = {**TEST_SETTINGS, "MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(free_port()), "STARTUP_TIMEOUT": "0.5"}
    assert run_app("run", PURGE, env=env).returncode == os.EX_UNAVAILABLE
