"""Sessions: log in, refresh, log out, list, revoke."""

import hashlib
import sqlite3
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest

from tests.conftest import TEST_SETTINGS, StartService
from tests.support.service import Account, Service

OLD_KEY, NEW_KEY = "an old key that is long enough for HS512." * 2, "a new key that is long enough for HS512." * 2


@pytest.fixture(scope="module")
def keyed() -> Iterator[Service]:
    """On SQLite, with a key that is known, for tests that forge tokens and rows."""
    with Service({**TEST_SETTINGS, "SECRET_KEY": NEW_KEY}) as service:
        yield service


@pytest.fixture(scope="module")
def signed(keyed: Service) -> Account:
    """For tests that change nothing of it."""
    return keyed.sign_up()


@pytest.fixture(scope="module")
def bystander(service: Service) -> Account:
    """For tests that change nothing of it."""
    return service.sign_up()


def database(service: Service) -> sqlite3.Connection:
    return sqlite3.connect(service.folder / "data" / "berth.db", isolation_level=None)


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


def test_an_access_token_is_a_jwt_with_the_contracts_claims(bystander: Account) -> None:
    header = jwt.get_unverified_header(bystander.access_token)
    claims = jwt.decode(bystander.access_token, options={"verify_signature": False})
    assert (header["alg"], bool(header["kid"])) == ("HS256", True)
    assert set(claims) == {"sub", "sid", "iat", "exp", "iss", "aud"}
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("berth", "berth", bystander.id)
    assert claims["exp"] - claims["iat"] == 900


def test_the_sid_of_an_access_token_is_its_sessions_id(service: Service, bystander: Account) -> None:
    [item] = sessions(service, bystander).json()["items"]
    assert session_of(bystander.access_token) == item["id"]


def test_a_refresh_token_has_256_random_bits(bystander: Account) -> None:
    assert len(bystander.refresh_token.removeprefix("brt_")) == 43


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
    assert session_of(tokens["access_token"]) == session_of(account.access_token)


def session_of(access_token: str) -> str:
    sid: str = jwt.decode(access_token, options={"verify_signature": False})["sid"]
    return sid


def test_a_spent_refresh_token_ends_its_session(service: Service, account: Account) -> None:
    newer = refresh(service, account.refresh_token).json()["refresh_token"]
    assert refresh(service, account.refresh_token).status_code == 401
    assert refresh(service, newer).status_code == 401
    assert me(service, account) == 401


def test_a_spent_refresh_token_leaves_other_sessions_alone(service: Service, account: Account) -> None:
    other = service.log_in(account.username, account.password)
    refresh(service, account.refresh_token)
    refresh(service, account.refresh_token)
    assert me(service, other) == 200


def test_a_refresh_token_used_twice_at_the_same_instant_gives_one_new_pair_at_most(service: Service) -> None:
    account = service.sign_up()
    with ThreadPoolExecutor(8) as threads:
        statuses = [a.status_code for a in threads.map(lambda _: refresh(service, account.refresh_token), range(8))]
    assert statuses.count(200) <= 1
    assert set(statuses) <= {200, 401}


@pytest.mark.parametrize("token", ["", "nonsense", "brt_" + "A" * 43, "brt_\u00fc"])
def test_a_refresh_token_that_was_never_issued_is_a_401(service: Service, token: str) -> None:
    assert refresh(service, token).status_code == 401


def test_an_expired_access_token_is_a_401_and_its_session_is_refreshed(start_service: StartService) -> None:
    service = start_service(ACCESS_TOKEN_TTL=1)
    account = service.sign_up()
    me(service, account)  # from here on the service remembers that the token is genuine
    time.sleep(2.1)
    assert me(service, account) == 401
    assert refresh(service, account.refresh_token).status_code == 200


def test_a_session_that_is_not_refreshed_in_time_ends(start_service: StartService, backend: str) -> None:
    service = start_service(backend, REFRESH_TOKEN_TTL=1)
    account = service.sign_up()
    time.sleep(2.1)
    assert refresh(service, account.refresh_token).status_code == 401
    assert me(service, account) == 401


def forged(
    account: Account,
    key: str = NEW_KEY,
    changed: dict[str, object] | None = None,
    header: dict[str, object] | None = None,
    algorithm: str = "HS256",
) -> dict[str, str]:
    """The account's token, changed and signed anew."""
    claims = jwt.decode(account.access_token, options={"verify_signature": False}) | (changed or {})
    kid = jwt.get_unverified_header(account.access_token)["kid"]
    return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm, {'kid': kid} | (header or {}))}"}


def check_refused(service: Service, headers: dict[str, str]) -> None:
    answer = service.client.get("/v1/auth/me", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="berth", error="invalid_token"'


def test_a_token_made_with_the_services_key_is_accepted(keyed: Service, signed: Account) -> None:
    assert keyed.client.get("/v1/auth/me", headers=forged(signed)).status_code == 200


def test_a_token_signed_with_another_key_is_a_401(keyed: Service, signed: Account) -> None:
    check_refused(keyed, forged(signed, OLD_KEY))


def test_a_token_without_a_signature_is_a_401(keyed: Service, signed: Account) -> None:
    check_refused(keyed, forged(signed, "", algorithm="none"))


def test_a_token_of_another_algorithm_is_a_401(keyed: Service, signed: Account) -> None:
    check_refused(keyed, forged(signed, algorithm="HS512"))


def test_a_token_longer_than_any_of_ours_is_a_401(keyed: Service, signed: Account) -> None:
    check_refused(keyed, forged(signed, changed={"padding": "x" * 1000}))


@pytest.mark.parametrize("kid", ["", "another", "00000000", "../../dev/null"])
def test_a_token_of_an_unknown_key_id_is_a_401(keyed: Service, signed: Account, kid: str) -> None:
    check_refused(keyed, forged(signed, header={"kid": kid}))


def test_a_token_changed_after_it_was_signed_is_a_401(keyed: Service, signed: Account) -> None:
    header, _, signature = signed.access_token.split(".")
    payload = forged(keyed.sign_up())["Authorization"].split(".")[1]
    check_refused(keyed, {"Authorization": f"Bearer {header}.{payload}.{signature}"})


@pytest.mark.parametrize(
    "change",
    [{"aud": "other"}, {"iss": "other"}, {"exp": 1}, {"exp": "never"}, {"sub": 7}, {"sub": "x"}, {"sid": "x"}],
    ids=str,
)
def test_a_token_with_a_wrong_claim_is_a_401(keyed: Service, signed: Account, change: dict[str, object]) -> None:
    check_refused(keyed, forged(signed, changed=change))


def test_a_token_of_one_account_for_anothers_session_is_a_401(keyed: Service, signed: Account) -> None:
    check_refused(keyed, forged(signed, changed={"sid": session_of(keyed.sign_up().access_token)}))


def test_tokens_of_a_previous_key_are_still_accepted_and_new_ones_have_the_new_key(start_service: StartService) -> None:
    old = start_service(SECRET_KEY=OLD_KEY)
    account = old.sign_up()
    new = start_service(SECRET_KEY=NEW_KEY, SECRET_KEY_PREVIOUS=OLD_KEY, DATA_DIR=old.env["DATA_DIR"])
    assert me(new, account) == 200
    newer = refresh(new, account.refresh_token).json()["access_token"]
    assert jwt.decode(newer, NEW_KEY, ["HS256"], audience="berth")["sub"] == account.id


def test_an_instance_with_a_new_key_only_refuses_tokens_of_the_old_one(start_service: StartService) -> None:
    old = start_service(SECRET_KEY=OLD_KEY)
    account = old.sign_up()
    new = start_service(SECRET_KEY=NEW_KEY, DATA_DIR=old.env["DATA_DIR"])
    check_refused(new, account.headers)


def test_without_redis_a_revoked_session_is_refused_at_once_at_another_instance(start_service: StartService) -> None:
    one = start_service()
    two = start_service(DATA_DIR=one.env["DATA_DIR"])
    account = one.sign_up()
    assert me(two, account) == 200
    path = f"/v1/auth/sessions/{session_of(account.access_token)}"
    assert one.client.delete(path, headers=account.headers).status_code == 204
    assert me(two, account) == 401


def test_a_hash_of_other_parameters_logs_in_and_is_made_anew(keyed: Service) -> None:
    account = keyed.sign_up()
    salt = bytes(16)
    key = hashlib.scrypt(account.password.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
    salt_text, key_text = (b64encode(part).decode().rstrip("=") for part in (salt, key))
    with database(keyed) as rows:
        old = f"$scrypt$ln=14,r=8,p=1${salt_text}${key_text}"
        rows.execute("UPDATE accounts SET password_hash = ? WHERE id = ?", (old, account.id))
        keyed.log_in(account.username, account.password)
        [[new]] = rows.execute("SELECT password_hash FROM accounts WHERE id = ?", (account.id,))
    rows.close()
    assert new.startswith("$scrypt$ln=15,r=8,p=3$")
    assert keyed.log_in(account.username, account.password).id == account.id


def test_logging_out_ends_the_session_and_its_refresh_token(service: Service, account: Account) -> None:
    assert service.client.post("/v1/auth/logout", headers=account.headers).status_code == 204
    assert me(service, account) == 401
    assert refresh(service, account.refresh_token).status_code == 401


def test_own_sessions_are_listed_newest_first(service: Service, account: Account) -> None:
    newer = service.log_in(account.username, account.password)
    service.sign_up()
    page = sessions(service, account).json()
    assert [item["id"] for item in page["items"]] == [session_of(newer.access_token), session_of(account.access_token)]
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
    "headers", [{"User-Agent": "x" * 5000}, {"User-Agent": "\xff" * 600}, {"X-Forwarded-For": "x" * 5000}]
)
def test_a_client_that_says_too_much_of_itself_logs_in_all_the_same(
    service: Service, account: Account, headers: dict[str, str]
) -> None:
    body = {"login": account.username, "password": account.password}
    answer = service.client.post("/v1/auth/login", json=body, headers=httpx.Headers(headers, encoding="latin-1"))
    newest = sessions(service, account).json()["items"][0]
    assert answer.status_code == 200
    assert (len(newest["client"]) <= 64, len(newest["user_agent"]) <= 512) == (True, True)


def test_a_page_has_20_sessions_unless_asked_and_100_at_most(keyed: Service) -> None:
    account = keyed.sign_up()
    later = int(time.time() * 1000) + 60_000
    add_sessions(keyed, account, [later] * 120)
    [usual, largest] = [sessions(keyed, account, **page).json() for page in ({}, {"limit": "100"})]
    assert [len(page["items"]) for page in (usual, largest)] == [20, 100]
    assert (usual["next"], largest["next"]) == (usual["items"][-1]["id"], largest["items"][-1]["id"])


def test_a_session_that_has_expired_is_not_listed(keyed: Service) -> None:
    account = keyed.sign_up()
    add_sessions(keyed, account, [1])
    assert [item["id"] for item in sessions(keyed, account).json()["items"]] == [session_of(account.access_token)]


def add_sessions(service: Service, account: Account, ends: list[int]) -> None:
    with database(service) as rows:
        rows.executemany(
            "INSERT INTO sessions (account_id, id, created_at, last_used_at, expires_at, client, user_agent)"
            " VALUES (?, ?, 1, 1, ?, '', '')",
            [(account.id, str(uuid4()), end) for end in ends],
        )
    rows.close()


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
    path = f"/v1/auth/sessions/{session_of(other.access_token)}"
    assert service.client.delete(path, headers=account.headers).status_code == 204
    assert me(service, other) == 401
    assert service.client.delete(path, headers=account.headers).status_code == 404


@pytest.mark.parametrize("id", ["01a20f57-2847-72e1-bca5-a8d9f4839ce3", "nonsense", "%00", "a%2Fb"])
def test_revoking_a_session_that_is_none_is_a_404(service: Service, bystander: Account, id: str) -> None:  # noqa: A002
    assert service.client.delete(f"/v1/auth/sessions/{id}", headers=bystander.headers).status_code == 404


def test_nobody_revokes_anothers_session(service: Service, bystander: Account) -> None:
    other = service.sign_up()
    path = f"/v1/auth/sessions/{session_of(other.access_token)}"
    assert service.client.delete(path, headers=bystander.headers).status_code == 404
    assert me(service, other) == 200


def test_a_session_ended_on_one_instance_is_refused_at_once_by_another(start_service: StartService) -> None:
    one = start_service("mysql+redis", SECRET_KEY=NEW_KEY)
    same: dict[str, Any] = {name: text for name, text in one.env.items() if name.startswith(("MYSQL", "REDIS"))}
    two = start_service(**same, SECRET_KEY=NEW_KEY)
    account = one.sign_up()
    assert (me(one, account), me(two, account)) == (200, 200)
    one.client.post("/v1/auth/logout", headers=account.headers)
    assert me(two, account) == 401
