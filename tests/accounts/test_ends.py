"""What ends a session, and what it must leave: asked with refresh tokens, and looked up in the database."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest

from tests.conftest import Sql
from tests.support.service import Account, Service


@dataclass
class Crew:
    """Two sessions of one account, and one of a stranger's."""

    service: Service
    own: Account
    other: Account
    stranger: Account

    def ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        """As the own session."""
        return self.service.client.request(method, f"/v1/auth/{path}", json=body, headers=self.own.headers)

    def refresh(self, token: str) -> httpx.Response:
        return self.service.client.post("/v1/auth/refresh", json={"refresh_token": token})


def log_out(crew: Crew) -> None:
    assert crew.ask("POST", "logout").status_code == 204


def revoke_itself(crew: Crew) -> None:
    assert crew.ask("DELETE", f"sessions/{crew.own.session_id}").status_code == 204


def revoke_the_other(crew: Crew) -> None:
    assert crew.ask("DELETE", f"sessions/{crew.other.session_id}").status_code == 204


def use_a_refresh_token_twice(crew: Crew) -> None:
    assert [crew.refresh(crew.own.refresh_token).status_code for _ in range(2)] == [200, 401]


def change_the_password(crew: Crew) -> None:
    change = {"current_password": crew.own.password, "new_password": "another password"}
    assert crew.ask("PUT", "me/password", change).status_code == 204


def delete_the_account(crew: Crew) -> None:
    assert crew.ask("DELETE", "me", {"password": crew.own.password}).status_code == 204


def revoke_a_strangers(crew: Crew) -> None:
    assert crew.ask("DELETE", f"sessions/{crew.stranger.session_id}").status_code == 404


def change_the_password_with_a_wrong_one(crew: Crew) -> None:
    change = {"current_password": "wrong one", "new_password": "another password"}
    assert crew.ask("PUT", "me/password", change).status_code == 403


def delete_with_a_wrong_password(crew: Crew) -> None:
    assert crew.ask("DELETE", "me", {"password": "wrong one"}).status_code == 403


End = Callable[[Crew], None]
LEFT: dict[End, set[str]] = {
    log_out: {"other", "stranger"},
    revoke_itself: {"other", "stranger"},
    revoke_the_other: {"own", "stranger"},
    use_a_refresh_token_twice: {"other", "stranger"},
    change_the_password: {"own", "stranger"},
    delete_the_account: {"stranger"},
    revoke_a_strangers: {"own", "other", "stranger"},
    change_the_password_with_a_wrong_one: {"own", "other", "stranger"},
    delete_with_a_wrong_password: {"own", "other", "stranger"},
}
EVERY_END = pytest.mark.parametrize("end", LEFT, ids=lambda end: end.__name__)


@pytest.fixture
def crew(service: Service, account: Account) -> Crew:
    return Crew(service, account, service.log_in(account.username, account.password), service.sign_up())


def sessions(crew: Crew) -> dict[str, Account]:
    return {"own": crew.own, "other": crew.other, "stranger": crew.stranger}


@EVERY_END
def test_the_refresh_tokens_of_what_ended_are_dead_and_all_others_live(crew: Crew, end: End) -> None:
    end(crew)
    alive = {name for name, one in sessions(crew).items() if crew.refresh(one.refresh_token).status_code == 200}
    assert alive == LEFT[end] - ({"own"} if end is change_the_password else set())  # its session has a new one


def test_a_changed_password_replaces_the_own_sessions_refresh_token(crew: Crew) -> None:
    change = {"current_password": crew.own.password, "new_password": "another password"}
    answer = crew.service.client.put(
        "/v1/auth/me/password", json=change, headers=crew.own.headers | {"Prefer": "return=representation"}
    )
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "return=representation")
    assert not ends_within(crew, 900)
    tokens = answer.json()
    assert tokens["account"] == crew.ask("GET", "me").json()
    assert crew.refresh(crew.own.refresh_token).status_code == 401  # whoever has it keeps nobody out
    refreshed = crew.refresh(tokens["refresh_token"])
    assert refreshed.status_code == 200
    for token in (tokens["access_token"], refreshed.json()["access_token"]):
        me = crew.service.client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
        assert me.status_code == 200
    claims = jwt.decode(refreshed.json()["access_token"], options={"verify_signature": False})
    assert claims["sid"] == crew.own.session_id


def ends_within(crew: Crew, seconds: int) -> bool:
    """The only session that is left."""
    [item] = crew.ask("GET", "sessions").json()["items"]
    return datetime.fromisoformat(item["expires_at"]) <= datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize("prefer", [{}, {"Prefer": "return=minimal"}, {"Prefer": "respond-async"}], ids=str)
def test_to_whom_no_new_refresh_token_is_told_the_session_lives_as_long_as_its_access_token(
    crew: Crew, prefer: dict[str, str]
) -> None:
    change = {"current_password": crew.own.password, "new_password": "another password"}
    answer = crew.service.client.put("/v1/auth/me/password", json=change, headers=crew.own.headers | prefer)
    assert (answer.status_code, answer.content) == (204, b"")
    assert crew.refresh(crew.own.refresh_token).status_code == 401
    assert crew.ask("GET", "me").status_code == 200
    assert ends_within(crew, 900)
    assert crew.service.log_in(crew.own.username, "another password").id == crew.own.id


@EVERY_END
def test_the_rows_of_what_ended_are_gone_and_all_others_left(crew: Crew, sql: Sql, end: End) -> None:
    end(crew)
    for table, key in (("sessions", "id"), ("refresh_tokens", "session_id")):
        ids = {str(row[key]) for row in sql(crew.service, f"SELECT {key} FROM {table}")}
        assert {name for name, one in sessions(crew).items() if one.session_id in ids} == LEFT[end], table


@EVERY_END
def test_a_session_of_the_same_id_of_another_account_is_left(crew: Crew, sql: Sql, end: End) -> None:
    """No two have one in practice; but every key begins with the account, and so must whoever deletes."""
    crew.service.client.get("/v1/auth/me", headers=crew.stranger.headers)
    for ended in (crew.own, crew.other):
        add_twin(crew, sql, ended.session_id)
    end(crew)
    for table in ("sessions", "refresh_tokens"):
        rows = sql(crew.service, f"SELECT * FROM {table} WHERE account_id = '{crew.stranger.id}'")
        assert len(rows) == 3, table


def add_twin(crew: Crew, sql: Sql, session_id: str) -> None:
    account, later = crew.stranger.id, 99999999999999
    digest = hashlib.sha256(f"{account} {session_id}".encode()).hexdigest()
    sql(
        crew.service,
        "INSERT INTO sessions (account_id, id, created_at, last_used_at, expires_at, client, user_agent)"
        f" VALUES ('{account}', '{session_id}', 1, 1, {later}, '', '')",
    )
    sql(
        crew.service,
        "INSERT INTO refresh_tokens (token_hash, account_id, session_id, expires_at)"
        f" VALUES ('{digest}', '{account}', '{session_id}', {later})",
    )


def test_a_deletion_leaves_every_other_account(crew: Crew) -> None:
    delete_the_account(crew)
    me = crew.service.client.get("/v1/auth/me", headers=crew.stranger.headers)
    assert (me.status_code, me.json()["id"]) == (200, crew.stranger.id)


def test_a_deletion_leaves_nothing_of_from_where_the_account_was_logged_in_to(crew: Crew, sql: Sql) -> None:
    delete_the_account(crew)
    left = {row["account_id"] for row in sql(crew.service, "SELECT account_id FROM known_clients")}
    assert (crew.own.id in left, crew.stranger.id in left) == (False, True)


def test_a_new_password_is_the_own_accounts_only(crew: Crew) -> None:
    change_the_password(crew)
    assert crew.service.log_in(crew.stranger.username, crew.stranger.password).id == crew.stranger.id


def test_a_change_of_the_name_is_the_own_accounts_only(crew: Crew) -> None:
    change = {"username": f"{crew.own.username}-2", "current_password": crew.own.password}
    assert crew.ask("PATCH", "me", change).status_code == 200
    assert crew.service.log_in(crew.stranger.username, crew.stranger.password).username == crew.stranger.username


def test_a_refresh_spends_its_own_token_only_and_prolongs_its_own_session_only(crew: Crew, sql: Sql) -> None:
    before = ends(crew, sql)
    assert crew.refresh(crew.own.refresh_token).status_code == 200
    after = ends(crew, sql)
    assert [name for name in before if before[name] != after[name]] == ["own"]
    assert [crew.refresh(one.refresh_token).status_code for one in (crew.other, crew.stranger)] == [200, 200]


def ends(crew: Crew, sql: Sql) -> dict[str, object]:
    rows = {row["id"]: row["expires_at"] for row in sql(crew.service, "SELECT id, expires_at FROM sessions")}
    return {name: rows[one.session_id] for name, one in sessions(crew).items()}


def test_an_access_token_that_outlives_its_session_ends_nothing(crew: Crew) -> None:
    log_out(crew)
    assert [crew.ask("POST", "logout").status_code, crew.ask("DELETE", "sessions/x").status_code] == [401, 401]
    assert crew.refresh(crew.other.refresh_token).status_code == 200
