"""What is done to an account leaves an audit line: what, whose, of which session, and from where."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pymysql

from tests.accounts.test_cache import waits_for_the_row
from tests.conftest import StartService
from tests.support.servers import MariaDB, wait_until
from tests.support.service import Service

PASSWORD, NEW = "correct horse", "battery staple"
TOLD = ("severity", "event", "account_id", "session_id", "client", "limit", "changed")
HERE = {"client": "127.0.0.1"}


def told(service: Service, answer: httpx.Response) -> dict[str, Any]:
    """Of the audit line of the request that was answered so."""
    line = service.wait_for_log(type="audit", request_id=answer.headers["x-request-id"])
    return {name: line[name] for name in TOLD if name in line}


def info(event: str, **more: object) -> dict[str, object]:
    return {"severity": "INFO", "event": event, **more}


def warning(event: str, **more: str) -> dict[str, str]:
    return {"severity": "WARNING", "event": event, **more}


def log_in(service: Service, login: str, password: str = PASSWORD) -> httpx.Response:
    return service.client.post("/v1/auth/login", json={"login": login, "password": password})


def test_what_is_done_to_an_account_is_told(quick_service: Service) -> None:
    service, client = quick_service, quick_service.client
    body = {"username": "audited", "email": "audited@example.com", "password": PASSWORD}
    registered = client.post("/v1/auth/register", json=body)
    who = {"account_id": registered.json()["id"]}
    assert told(service, registered) == info("account.registered", **who)
    assert told(service, log_in(service, "audited", "wrong one")) == warning("login.failed", **who, **HERE)
    assert told(service, log_in(service, "nobody-here")) == warning("login.failed", **HERE)
    answer = log_in(service, "audited")
    account, other = (service.log_in("audited", PASSWORD) for _ in range(2))
    told_then = told(service, answer)
    assert told_then.pop("session_id")
    assert told_then == info("login.succeeded", **who)
    session = {"session_id": account.session_id}

    change = {"username": "audited-2", "current_password": PASSWORD}
    changed = client.patch("/v1/auth/me", json=change, headers=account.headers)
    assert told(service, changed) == info("account.updated", **who, changed=["username"])
    revoked = client.delete(f"/v1/auth/sessions/{other.session_id}", headers=account.headers)
    assert told(service, revoked) == info("session.revoked", **who, session_id=other.session_id)
    passwords = {"current_password": "wrong one", "new_password": NEW}
    refused = client.put("/v1/auth/me/password", json=passwords, headers=account.headers)
    assert told(service, refused) == warning("password.refused", **who)
    passwords["current_password"] = PASSWORD
    headers = account.headers | {"Prefer": "return=representation"}
    changed = client.put("/v1/auth/me/password", json=passwords, headers=headers)
    assert told(service, changed) == info("password.changed", **who)

    spend = {"refresh_token": changed.json()["refresh_token"]}
    refreshed = [client.post("/v1/auth/refresh", json=spend) for _ in range(2)]
    assert told(service, refreshed[0]) == info("session.refreshed", **who, **session)
    assert told(service, refreshed[1]) == warning("refresh.reused", **who, **session)

    account, other = (service.log_in("audited-2", NEW) for _ in range(2))
    ended = client.post("/v1/auth/logout", headers=other.headers)
    assert told(service, ended) == info("logout", **who, session_id=other.session_id)
    deleted = client.request("DELETE", "/v1/auth/me", json={"password": NEW}, headers=account.headers)
    assert told(service, deleted) == info("account.deleted", **who)


def test_attempts_that_are_refused_are_told_in_one_line_per_address_with_a_count(
    start_quick_service: StartService,
) -> None:
    service = start_quick_service()
    ended, other = service.sign_up(), service.sign_up()
    service.client.post("/v1/auth/logout", headers=ended.headers)
    for _ in range(3):
        assert service.client.get("/v1/auth/me", headers=ended.headers).status_code == 401
        answer = service.client.delete(f"/v1/auth/sessions/{ended.session_id}", headers=other.headers)
        assert answer.status_code == 404
    for event, kinds in (("token.refused", "token of an ended session"), ("session.refused", None)):
        line = service.wait_for_log(type="audit", event=event)
        assert (line["client"], line["count"], line.get("kinds")) == ("127.0.0.1", 3, kinds)


def test_a_log_in_whose_password_was_changed_meanwhile_is_told_as_failed(
    start_quick_service: StartService, mariadb: MariaDB
) -> None:
    service = start_quick_service("mysql+redis")
    account = service.sign_up()
    connection = pymysql.connect(unix_socket=str(mariadb.unix_socket), user="root")
    with connection, connection.cursor() as cursor, ThreadPoolExecutor(1) as threads:
        cursor.execute(f"USE {service.env['MYSQL_DATABASE']}")
        cursor.execute("UPDATE accounts SET password_hash = 'another' WHERE id = %s", (account.id,))
        waiting = threads.submit(log_in, service, account.username, account.password)
        wait_until(lambda: waits_for_the_row(mariadb, service.env), "the log-in that waits for the row", within=10)
        connection.commit()
        answer = waiting.result()
    assert answer.status_code == 401
    assert told(service, answer) == warning("login.failed", account_id=account.id, **HERE)


def test_attempts_that_are_limited_are_told(start_quick_service: StartService) -> None:
    service = start_quick_service(LOGIN_RATE_LIMIT="1/300")
    body = {"username": "limited", "email": "limited@example.com", "password": PASSWORD}
    account_id = service.client.post("/v1/auth/register", json=body).json()["id"]
    answers = [log_in(service, "limited", "wrong one") for _ in range(4)]
    assert told(service, answers[0]) == warning("login.failed", account_id=account_id, **HERE)
    service.client.post("/v1/auth/refresh", json={"refresh_token": "brt_nonsense"})
    for event, count in (("login.limited", 3), ("token.refused", 1)):  # one line for an address and a minute
        line = service.wait_for_log(type="audit", event=event)
        assert (line["severity"], line["client"], line["count"]) == ("WARNING", "127.0.0.1", count)
