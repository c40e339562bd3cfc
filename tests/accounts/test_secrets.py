"""What must not be readable where it is kept: in no column of no table, on either database."""

from typing import Any

import pytest

from tests.conftest import Sql, StartService
from tests.support.service import Account, Service
from tests.support.sink import Sink


def everything(service: Service, sql: Sql) -> dict[str, list[str]]:
    """Every value in the database as text, and bytes in hexadecimal too, by table and column."""
    if "MYSQL_HOST" in service.env:
        tables = [str(next(iter(row.values()))) for row in sql(service, "SHOW TABLES")]
    else:
        tables = [str(row["name"]) for row in sql(service, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    values: dict[str, list[str]] = {}
    for table in tables:
        for row in sql(service, f"SELECT * FROM {table}"):
            for column, value in row.items():
                values.setdefault(f"{table}.{column}", []).append(readable(value))
    return values


def readable(value: Any) -> str:
    return value.decode("latin-1") + value.hex() if isinstance(value, bytes) else str(value)


@pytest.fixture
def used(start_service: StartService, backend: str, sink: Sink) -> tuple[Service, dict[str, str]]:
    """A service in whose tables all is filled, the outbox too; and what nobody may read there."""
    sink.hold()
    service = start_service(backend, K_SINK=sink.url)
    account = service.sign_up(username="Keeper-of-secrets", password="a pass phrase to be kept")
    other = service.log_in(account.username, account.password)
    refreshed = service.client.post("/v1/auth/refresh", json={"refresh_token": other.refresh_token}).json()
    return service, secrets(account, other) | {"successor": refreshed["refresh_token"]}


def secrets(account: Account, other: Account) -> dict[str, str]:
    return {
        "password": account.password,
        "access token": account.access_token,
        "its signature": account.access_token.rpartition(".")[2],
        "refresh token": account.refresh_token,
        "spent refresh token": other.refresh_token,
    }


def test_no_password_and_no_token_is_readable_in_the_database(used: tuple[Service, dict[str, str]], sql: Sql) -> None:
    service, kept = used
    values = everything(service, sql)
    assert "Keeper-of-secrets" in values["accounts.username"]  # or nothing was looked at
    assert {"sessions.id", "refresh_tokens.token_hash", "outbox.event"} <= set(values)
    for what, secret in kept.items():
        for form in forms(secret):
            found = [column for column, held in values.items() if any(form in text.lower() for text in held)]
            assert not found, f"the {what} is in {found}"


def forms(secret: str) -> set[str]:
    """As it is, without its prefix, and in hexadecimal."""
    bare = secret.removeprefix("brt_")
    return {secret.lower(), bare.lower(), secret.encode().hex(), bare.encode().hex()}


def test_no_password_and_no_token_is_in_a_log_line_of_any_level(
    start_service: StartService, backend: str, sink: Sink
) -> None:
    service = start_service(backend, K_SINK=sink.url, LOG_LEVEL="DEBUG")
    account = service.sign_up(password="a pass phrase to be kept")
    other = service.log_in(account.username, account.password)
    service.client.post("/v1/auth/refresh", json={"refresh_token": other.refresh_token})
    service.client.get("/v1/auth/me", headers=account.headers)
    service.client.post("/v1/auth/refresh", json={"refresh_token": other.refresh_token})
    service.wait_for_log(event="refresh.reused")
    said = "\n".join(service.output)
    assert [what for what, secret in secrets(account, other).items() if secret in said] == []
