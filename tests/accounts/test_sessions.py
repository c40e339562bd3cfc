"""Sessions: log in, refresh, list, revoke. What each end of one leaves is in test_ends.py."""

import base64
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest

from tests.conftest import Sql, StartService
from tests.support.service import Account, Service

KEY = "one key that all instances have in common"


@pytest.fixture(scope="module")
def bystander(service: Service) -> Account:
    """For tests that change nothing of it."""
    return service.sign_up()


def refresh(service: Service, token: str) -> httpx.Response:
    return service.client.post("/v1/auth/refresh", json={"refresh_token": token})


def me(service: Service, account: Account) -> int:
    return service.client.get("/v1/auth/me", headers=account.headers).status_code


def sessions(service: Service, account: Account, **page: str) -> httpx.Response:
    return service.client.get("/v1/auth/sessions", params=page, headers=account.headers)


@pytest.mark.parametrize("login", ["{username}", "{email}"])
def test_a_login_by_name_or_email_in_any_case_answers_tokens(service: Service, account: Account, login: str) -> None:
    name = login.format(username=account.username, email=account.email).upper()
    answer = service.client.post("/v1/auth/login", json={"login": name, "password": account.password})
    tokens = answer.json()
    assert answer.status_code == 200
    assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in", "account"}
    assert (tokens["token_type"], tokens["expires_in"], tokens["account"]["id"]) == ("Bearer", 900, account.id)


def test_the_sid_of_an_access_token_is_its_sessions_id(service: Service, bystander: Account) -> None:
    [item] = sessions(service, bystander).json()["items"]
    assert bystander.session_id == item["id"]


def test_a_refresh_token_has_256_random_bits(bystander: Account) -> None:
    content = base64.urlsafe_b64decode(f"{bystander.refresh_token.removeprefix('brt_')}==")
    assert len(content) == 40 + 256 // 8 + 16  # ids and time before them, a code of authentication after them


def test_a_wrong_password_and_an_unknown_account_get_the_same_answer(service: Service, bystander: Account) -> None:
    bodies = [{"login": bystander.username, "password": "wrong one"}, {"login": "nobody-here", "password": "wrong one"}]
    wrong, unknown = (service.client.post("/v1/auth/login", json=body) for body in bodies)
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() | {"trace_id": ""} == unknown.json() | {"trace_id": ""}


def test_a_refresh_answers_a_new_pair_of_the_same_session(service: Service, account: Account) -> None:
    answer = refresh(service, account.refresh_token)
    tokens = answer.json()
    assert answer.status_code == 200
    assert tokens["refresh_token"] != account.refresh_token
    assert jwt.decode(tokens["access_token"], options={"verify_signature": False})["sid"] == account.session_id


def test_a_spent_refresh_token_ends_its_session(service: Service, account: Account) -> None:
    newer = refresh(service, account.refresh_token).json()["refresh_token"]
    assert refresh(service, account.refresh_token).status_code == 401
    assert refresh(service, newer).status_code == 401
    assert me(service, account) == 401


def test_of_a_refresh_token_used_at_the_same_instant_one_use_gets_a_pair_that_is_dead(service: Service) -> None:
    account = service.sign_up()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: refresh(service, account.refresh_token), range(8)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 401: 7}
    [pair] = [answer.json() for answer in answers if answer.status_code == 200]
    assert refresh(service, pair["refresh_token"]).status_code == 401
    assert me(service, account) == 401


@pytest.mark.parametrize("token", ["", "nonsense", "brt_" + "A" * 43, "brt_\u00fc"])
def test_a_refresh_token_that_was_never_issued_is_a_401(service: Service, token: str) -> None:
    assert refresh(service, token).status_code == 401


@pytest.mark.parametrize("table", ["sessions", "refresh_tokens"])
def test_a_session_and_its_refresh_token_live_as_long_as_the_setting_says(
    start_service: StartService, backend: str, sql: Sql, table: str
) -> None:
    service = start_service(backend, REFRESH_TOKEN_TTL=1000)
    before = now_ms()
    service.sign_up()
    [row] = sql(service, f"SELECT expires_at FROM {table}")
    assert before + 1_000_000 <= row["expires_at"] <= now_ms() + 1_000_000


@pytest.mark.parametrize(("left", "alive"), [(-1, False), (50_000, True)], ids=["over", "almost over"])
def test_a_session_lives_until_its_end_and_no_longer(
    service: Service, account: Account, sql: Sql, left: int, alive: bool
) -> None:
    older = service.log_in(account.username, account.password)
    ends(service, sql, "sessions", older, left)
    assert [me(service, one) for one in (account, older)] == [200, 200 if alive else 401]
    listed = {item["id"] for item in sessions(service, account).json()["items"]}
    assert (account.session_id in listed, older.session_id in listed) == (True, alive)


@pytest.mark.parametrize(("left", "alive"), [(-1, False), (50_000, True)], ids=["over", "almost over"])
def test_a_refresh_token_lives_until_its_end_and_no_longer(
    service: Service, account: Account, sql: Sql, left: int, alive: bool
) -> None:
    ends(service, sql, "refresh_tokens", account, left)
    assert refresh(service, account.refresh_token).status_code == (200 if alive else 401)


def ends(service: Service, sql: Sql, table: str, account: Account, left: int) -> None:
    """Of the account's session: so many milliseconds from now."""
    key = {"sessions": "id", "refresh_tokens": "session_id"}[table]
    sql(service, f"UPDATE {table} SET expires_at = {now_ms() + left} WHERE {key} = '{account.session_id}'")


def now_ms() -> int:
    return int(time.time() * 1000)


def test_a_refresh_makes_a_token_and_a_session_that_live_as_long_as_new_ones(
    service: Service, account: Account, sql: Sql
) -> None:
    ends(service, sql, "sessions", account, 50_000)
    ends(service, sql, "refresh_tokens", account, 50_000)
    before = now_ms()
    assert refresh(service, account.refresh_token).status_code == 200
    where = f"WHERE session_id = '{account.session_id}' AND spent_at IS NULL"
    [token] = sql(service, f"SELECT expires_at FROM refresh_tokens {where}")
    [session] = sql(service, f"SELECT expires_at FROM sessions WHERE id = '{account.session_id}'")
    assert before + 2_592_000_000 <= token["expires_at"] == session["expires_at"] <= now_ms() + 2_592_000_000


def test_without_redis_a_revoked_session_is_refused_at_once_at_another_instance(start_service: StartService) -> None:
    one = start_service()
    two = start_service(DATA_DIR=one.env["DATA_DIR"])
    account = one.sign_up()
    assert me(two, account) == 200
    path = f"/v1/auth/sessions/{account.session_id}"
    assert one.client.delete(path, headers=account.headers).status_code == 204
    assert me(two, account) == 401


def test_own_sessions_are_listed_newest_first(service: Service, account: Account) -> None:
    newer = service.log_in(account.username, account.password)
    service.sign_up()
    page = sessions(service, account).json()
    assert [item["id"] for item in page["items"]] == [newer.session_id, account.session_id]
    assert [item["current"] for item in page["items"]] == [False, True]
    assert page["next"] is None


def test_a_listed_session_tells_where_it_came_from(service: Service, account: Account) -> None:
    [item] = sessions(service, account).json()["items"]
    keys = {"id", "created_at", "last_used_at", "expires_at", "client", "user_agent", "current"}
    assert set(item) == keys
    assert (item["client"], item["user_agent"].split("/")[0]) == ("127.0.0.1", "python-httpx")


def test_a_refresh_moves_the_time_of_last_use_and_of_the_end(service: Service, account: Account) -> None:
    [before] = sessions(service, account).json()["items"]
    refresh(service, account.refresh_token)
    [after] = sessions(service, account).json()["items"]
    assert after["created_at"] == before["created_at"]
    assert after["last_used_at"] > before["last_used_at"]
    assert after["expires_at"] > before["expires_at"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [("x" * 512, "x" * 512), ("x" * 513, "x" * 512), ("x" * 5000, "x" * 512), ("\xff" * 600, "\xff" * 512)],
)
def test_of_a_user_agent_that_says_too_much_512_characters_are_kept(
    service: Service, account: Account, said: str, kept: str
) -> None:
    assert log_in_from(service, account, {"User-Agent": said})["user_agent"] == kept


@pytest.mark.parametrize(("said", "client"), [("2001:DB8::7", "2001:db8::7"), ("x" * 64, "127.0.0.1")])
def test_a_session_names_the_address_of_its_client(service: Service, account: Account, said: str, client: str) -> None:
    assert log_in_from(service, account, {"X-Forwarded-For": said})["client"] == client


def log_in_from(service: Service, account: Account, headers: dict[str, str]) -> dict[str, Any]:
    """The new session, as it is listed."""
    body = {"login": account.username, "password": account.password}
    answer = service.client.post("/v1/auth/login", json=body, headers=httpx.Headers(headers, encoding="latin-1"))
    assert answer.status_code == 200
    newest: dict[str, Any] = sessions(service, account).json()["items"][0]
    return newest


def test_a_page_has_20_sessions_unless_asked_and_100_at_most(service: Service, account: Account, sql: Sql) -> None:
    add_sessions(service, account, sql, 119)
    for page, size in ({}, 20), ({"limit": "1"}, 1), ({"limit": "100"}, 100):
        answer = sessions(service, account, **page).json()
        assert (len(answer["items"]), answer["next"]) == (size, answer["items"][-1]["id"])


@pytest.mark.parametrize(("number", "page"), [(20, {}), (1, {"limit": "1"}), (100, {"limit": "100"})], ids=str)
def test_a_last_page_that_is_exactly_full_has_no_next(
    service: Service, account: Account, sql: Sql, number: int, page: dict[str, str]
) -> None:
    add_sessions(service, account, sql, number - 1)
    answer = sessions(service, account, **page).json()
    assert (len(answer["items"]), answer["next"]) == (number, None)


def test_a_second_page_that_is_exactly_full_has_no_next(service: Service, account: Account, sql: Sql) -> None:
    add_sessions(service, account, sql, 3)
    first = sessions(service, account, limit="2").json()
    second = sessions(service, account, limit="2", after=first["next"]).json()
    assert [len(page["items"]) for page in (first, second)] == [2, 2]
    assert (first["next"], second["next"]) == (first["items"][-1]["id"], None)


def test_after_the_last_session_is_an_empty_page(service: Service, account: Account) -> None:
    assert sessions(service, account, after=account.session_id).json() == {"items": [], "next": None}


def test_a_page_holds_the_own_sessions_only(service: Service, account: Account, sql: Sql) -> None:
    add_sessions(service, service.sign_up(), sql, 3)
    assert [item["id"] for item in sessions(service, account).json()["items"]] == [account.session_id]


def add_sessions(service: Service, account: Account, sql: Sql, number: int) -> None:
    rows = ", ".join(f"('{account.id}', '{uuid4()}', 1, 1, 99999999999999, '', '')" for _ in range(number))
    columns = "account_id, id, created_at, last_used_at, expires_at, client, user_agent"
    if number:
        sql(service, f"INSERT INTO sessions ({columns}) VALUES {rows}")


def test_pages_follow_one_another_without_gap_or_repetition(service: Service, account: Account) -> None:
    for _ in range(2):
        service.log_in(account.username, account.password)
    whole = [item["id"] for item in sessions(service, account).json()["items"]]
    page = sessions(service, account, limit="2").json()
    paged = [item["id"] for item in page["items"]]
    while page["next"]:
        page = sessions(service, account, limit="2", after=page["next"]).json()
        paged += [item["id"] for item in page["items"]]
    assert (len(whole), paged) == (3, whole)


@pytest.mark.parametrize(
    "page",
    [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"limit": "\u0663"}, {"after": "x"}, {"page": "2"}],
    ids=str,
)
def test_a_page_that_can_not_be_is_a_422(service: Service, bystander: Account, page: dict[str, str]) -> None:
    answer = sessions(service, bystander, **page)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] in page


@pytest.mark.parametrize("limit", ["0", "101", "x"])
def test_a_page_of_the_wrong_size_is_told_the_right_ones(service: Service, bystander: Account, limit: str) -> None:
    [error] = sessions(service, bystander, limit=limit).json()["errors"]
    assert error["message"] == "expected an integer from 1 to 100"


def test_a_revoked_session_is_refused_at_once(service: Service, account: Account) -> None:
    other = service.log_in(account.username, account.password)
    assert me(service, other) == 200
    path = f"/v1/auth/sessions/{other.session_id}"
    assert service.client.delete(path, headers=account.headers).status_code == 204
    assert me(service, other) == 401
    assert service.client.delete(path, headers=account.headers).status_code == 404


@pytest.mark.parametrize("id", ["01a20f57-2847-72e1-bca5-a8d9f4839ce3", "nonsense", "%00", "a%2Fb"])
def test_revoking_a_session_that_is_none_is_a_404(service: Service, bystander: Account, id: str) -> None:  # noqa: A002
    assert service.client.delete(f"/v1/auth/sessions/{id}", headers=bystander.headers).status_code == 404


def test_a_session_ended_on_one_instance_is_refused_at_once_by_another(start_service: StartService) -> None:
    one = start_service("mysql+redis", SECRET_KEY=KEY)
    same: dict[str, Any] = {name: text for name, text in one.env.items() if name.startswith(("MYSQL", "REDIS"))}
    two = start_service(**same, SECRET_KEY=KEY)
    account = one.sign_up()
    assert (me(one, account), me(two, account)) == (200, 200)
    one.client.post("/v1/auth/logout", headers=account.headers)
    assert me(two, account) == 401


@pytest.mark.parametrize(("field", "longest"), [("login", 1024), ("password", 1024), ("refresh_token", 256)])
def test_a_credential_may_be_as_long_as_ours_are_in_any_form_and_no_longer(
    service: Service, field: str, longest: int
) -> None:
    path, others = ("refresh", {}) if field == "refresh_token" else ("login", {"login": "nobody-here", "password": "x"})

    def ask(length: int) -> int:
        return service.client.post(f"/v1/auth/{path}", json=others | {field: "x" * length}).status_code

    assert (ask(longest), ask(longest + 1)) == (401, 422)
