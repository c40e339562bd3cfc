"""Accounts: register, read, change, delete, change the password."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from uuid import UUID

import httpx
import pytest

from tests.support.service import Account, Service

PASSWORD = "correct horse"


def register(service: Service, username: str, **chosen: str) -> httpx.Response:
    body = {"username": username, "email": f"{username}@example.com", "password": PASSWORD} | chosen
    return service.client.post("/v1/auth/register", json=body)


def test_registering_answers_201_with_the_account_and_no_password(service: Service) -> None:
    answer = register(service, "Grace", email="Grace@Example.com")
    account = answer.json()
    assert answer.status_code == 201
    assert set(account) == {"id", "username", "email", "created_at", "updated_at"}
    assert (account["username"], account["email"]) == ("Grace", "Grace@Example.com")


def test_an_id_is_a_uuid_version_7_and_times_are_in_utc(service: Service) -> None:
    account = register(service, "uuid-seven").json()
    assert UUID(account["id"]).version == 7
    assert account["created_at"].endswith("Z")
    assert datetime.fromisoformat(account["created_at"]).utcoffset() is not None


def test_ids_are_in_the_order_of_registration(service: Service) -> None:
    ids = [register(service, f"in-order-{n}").json()["id"] for n in range(3)]
    assert ids == sorted(ids)


@pytest.mark.parametrize("again", [{"username": "taken-NAME"}, {"email": "TAKEN@example.com"}], ids=["name", "email"])
def test_a_name_or_email_taken_in_another_case_is_a_409_that_says_which(
    service: Service, again: dict[str, str]
) -> None:
    [field] = again
    register(service, "taken-name", email="taken@example.com")
    fresh = {"username": f"fresh-{field}", "email": f"fresh-{field}@example.com"}
    answer = register(service, **{**fresh, **again})
    assert answer.status_code == 409
    assert answer.json()["errors"] == [{"field": field, "message": "is taken"}]


def test_an_email_in_wide_letters_is_the_same_as_in_narrow_ones(service: Service) -> None:
    register(service, "narrow", email="narrow@example.com")
    assert register(service, "wide", email="\uff4earrow@example.com").status_code == 409


def test_two_registrations_of_one_name_at_the_same_instant_give_one_201_and_one_409(service: Service) -> None:
    def attempt(number: int) -> int:
        return register(service, "Race", email=f"race-{number}@example.com").status_code

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(attempt, range(4)))
    assert sorted(statuses) == [201, 409, 409, 409]
    assert service.log_in(f"race-{statuses.index(201)}@example.com", PASSWORD).username == "Race"


@pytest.mark.parametrize("username", ["Abc", "x" * 64, "0.9", "-_."], ids=lambda name: name[:8])
def test_a_username_of_3_to_64_plain_characters_is_taken(service: Service, username: str) -> None:
    answer = register(service, username, email=f"{len(username)}-{username[:3]}-x@example.com")
    assert (answer.status_code, answer.json()["username"]) == (201, username)


LOCAL, LABEL = "l" * 64, "d" * 60


@pytest.mark.parametrize(
    ("email", "status"),
    [
        ("a@b.c", 201),
        (f"{LOCAL}@example.com", 201),
        (f"{LOCAL}l@example.com", 422),
        (f"{'o' * 63}x@{LABEL}.{LABEL}.{LABEL}.abcdef", 201),
        (f"{'o' * 63}x@{LABEL}.{LABEL}.{LABEL}.abcdefg", 422),
    ],
    ids=["shortest", "local part", "local part too long", "longest", "too long"],
)
def test_an_email_may_have_254_characters_64_before_the_at(service: Service, email: str, status: int) -> None:
    assert register(service, f"{status}-{len(email)}", email=email).status_code == status


def test_a_longest_name_and_a_longest_email_log_in(service: Service) -> None:
    email = f"{LOCAL}@{LABEL}.{LABEL}.{LABEL}.abcdef"
    account = service.sign_up(username="y" * 64, email=email)
    assert len(email) == 254
    assert {service.log_in(login, account.password).id for login in ("y" * 64, email)} == {account.id}


@pytest.mark.parametrize("username", ["ab", "x" * 65, "a b c", "name@host", "näme", "line\n", "abc\x00", ""])
def test_a_username_that_is_not_3_to_64_plain_characters_is_a_422(service: Service, username: str) -> None:
    answer = register(service, username, email="well@formed.example")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "username"


@pytest.mark.parametrize(
    "email", ["plain", "@example.com", "a@", "a@b", "a b@example.com", f"{'x' * 250}@e.com", "a@b.c\n"]
)
def test_an_email_that_is_none_is_a_422(service: Service, email: str) -> None:
    answer = register(service, "well-formed", email=email)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "email"


@pytest.mark.parametrize(("sharp", "status"), [(2, 201), (3, 422)])
def test_an_email_whose_key_would_not_fit_its_column_is_a_422(service: Service, sharp: int, status: int) -> None:
    """Without case \u00df is ss: of 254 characters come 320, which the column holds, or one more."""
    domain = "\u00df" * sharp + "x" * (185 - sharp) + ".com"
    answer = register(service, "sharp-s", email="\u00df" * 64 + "@" + domain)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("password", ["seven77", "x" * 257, "with\x00nul-inside"])
def test_a_password_that_is_too_short_too_long_or_holds_nul_is_a_422(service: Service, password: str) -> None:
    answer = register(service, "well-formed", password=password)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "password"


def change(service: Service, account: Account, **changes: object) -> httpx.Response:
    """With the account's password, unless another is given."""
    body = {"current_password": account.password} | changes
    return service.client.patch("/v1/auth/me", json=body, headers=account.headers)


def test_me_is_the_account_of_the_token(service: Service, account: Account) -> None:
    answer = service.client.get("/v1/auth/me", headers=account.headers)
    assert answer.status_code == 200
    assert answer.json()["id"] == account.id


@pytest.mark.parametrize("authorization", ["", "Basic YTpi", "Bearer", "Bearer a b", "Bearer nonsense", "Bearer a.b.c"])
def test_me_without_a_valid_token_is_a_401_with_a_challenge(service: Service, authorization: str) -> None:
    answer = service.client.get("/v1/auth/me", headers={"Authorization": authorization})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PATCH", "me"), ("DELETE", "me"), ("PUT", "me/password"), ("GET", "sessions"), ("POST", "logout")],
)
def test_whatever_needs_an_account_is_a_401_without_a_token(service: Service, method: str, path: str) -> None:
    answer = service.client.request(method, f"/v1/auth/{path}", json={})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="berth"'


def test_a_change_of_the_name_is_seen_at_once_and_leaves_the_email(service: Service, account: Account) -> None:
    changed = change(service, account, username="Renamed")
    now = service.client.get("/v1/auth/me", headers=account.headers).json()
    assert changed.status_code == 200
    assert changed.json() == now
    assert (now["username"], now["email"]) == ("Renamed", account.email)
    assert now["updated_at"] > now["created_at"]


def test_the_new_email_logs_in_and_the_old_one_does_not(service: Service, account: Account) -> None:
    change(service, account, email="New.Email@example.com")
    body = {"login": account.email, "password": account.password}
    assert service.client.post("/v1/auth/login", json=body).status_code == 401
    assert service.log_in("new.email@example.com", account.password).id == account.id


def test_a_change_to_a_name_that_is_taken_is_a_409_and_changes_nothing(service: Service, account: Account) -> None:
    other = service.sign_up()
    answer = change(service, account, username=other.username.upper(), email="unused@example.com")
    assert answer.status_code == 409
    assert service.client.get("/v1/auth/me", headers=account.headers).json()["email"] == account.email


def test_a_change_to_an_email_that_is_taken_is_a_409_that_says_which(service: Service, account: Account) -> None:
    answer = change(service, account, email=service.sign_up().email.upper())
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (409, "email")


def test_ones_own_name_in_another_case_is_not_taken(service: Service, account: Account) -> None:
    assert change(service, account, username=account.username.upper()).status_code == 200


def test_a_field_set_to_null_is_a_422(service: Service, account: Account) -> None:
    answer = change(service, account, email=None)
    assert answer.status_code == 422


def test_a_change_to_what_is_no_username_is_told_what_one_is(service: Service, account: Account) -> None:
    answer = change(service, account, username="a b")
    assert answer.json()["errors"][0]["message"] == "expected 3 to 64 of the characters A-Z a-z 0-9 . _ -"


@pytest.mark.parametrize("changes", [{"username": "Thief"}, {"email": "thief@example.com"}], ids=["name", "email"])
def test_a_change_needs_the_password(service: Service, account: Account, changes: dict[str, object]) -> None:
    wrong = change(service, account, current_password="wrong one", **changes)
    missing = service.client.patch("/v1/auth/me", json=changes, headers=account.headers)
    assert (wrong.status_code, missing.status_code) == (403, 422)
    assert missing.json()["errors"][0]["field"] == "current_password"
    me = service.client.get("/v1/auth/me", headers=account.headers).json()
    assert (me["username"], me["email"]) == (account.username, account.email)


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"username": "Audited-1"}, ["username"]),
        ({"email": "audited-2@example.com"}, ["email"]),
        ({"username": "Audited-3", "email": "audited-3@example.com"}, ["email", "username"]),
    ],
    ids=["name", "email", "both"],
)
def test_the_audit_line_says_which_fields_changed_and_not_to_what(
    service: Service, account: Account, changes: dict[str, object], changed: list[str]
) -> None:
    changes = {name: f"{service.port}-{text}" for name, text in changes.items()}
    assert change(service, account, **changes).status_code == 200
    line = service.wait_for_log(event="account.updated", account_id=account.id)
    assert line["changed"] == changed
    assert not any(str(text) in str(line) for text in changes.values())


def test_a_change_to_what_is_so_already_changes_nothing_and_is_not_told(service: Service, account: Account) -> None:
    before = service.client.get("/v1/auth/me", headers=account.headers).json()
    assert change(service, account, username=account.username, email=account.email).json() == before
    assert change(service, account).json() == before
    service.client.post("/v1/auth/logout", headers=account.headers)
    service.wait_for_log(event="logout", account_id=account.id)
    assert service.log(event="account.updated", account_id=account.id) == []


def test_deleting_needs_the_password(service: Service, account: Account) -> None:
    wrong = service.client.request("DELETE", "/v1/auth/me", json={"password": "wrong one"}, headers=account.headers)
    missing = service.client.request("DELETE", "/v1/auth/me", headers=account.headers)
    assert (wrong.status_code, missing.status_code) == (403, 422)
    assert service.client.get("/v1/auth/me", headers=account.headers).status_code == 200


def test_a_deleted_account_is_gone_with_its_sessions_and_its_name_is_free(service: Service, account: Account) -> None:
    body = {"password": account.password}
    assert service.client.request("DELETE", "/v1/auth/me", json=body, headers=account.headers).status_code == 204
    assert service.client.get("/v1/auth/me", headers=account.headers).status_code == 401
    refresh = service.client.post("/v1/auth/refresh", json={"refresh_token": account.refresh_token})
    assert refresh.status_code == 401
    assert register(service, account.username).status_code == 201


def test_a_new_password_ends_the_access_tokens_of_every_other_session(service: Service, account: Account) -> None:
    other = service.log_in(account.username, account.password)
    change = {"current_password": account.password, "new_password": "another password"}
    assert service.client.put("/v1/auth/me/password", json=change, headers=account.headers).status_code == 204
    assert service.client.get("/v1/auth/me", headers=account.headers).status_code == 200
    assert service.client.get("/v1/auth/me", headers=other.headers).status_code == 401


@pytest.mark.parametrize("new", ["seven77", "x" * 257])
def test_a_new_password_that_is_too_short_or_too_long_is_a_422(service: Service, account: Account, new: str) -> None:
    change = {"current_password": account.password, "new_password": new}
    answer = service.client.put("/v1/auth/me/password", json=change, headers=account.headers)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "new_password")


def test_after_a_change_only_the_new_password_logs_in(service: Service, account: Account) -> None:
    change = {"current_password": account.password, "new_password": "another password"}
    service.client.put("/v1/auth/me/password", json=change, headers=account.headers)
    body = {"login": account.username, "password": account.password}
    assert service.client.post("/v1/auth/login", json=body).status_code == 401
    assert service.log_in(account.username, "another password").id == account.id


def test_a_wrong_current_password_is_a_403_and_changes_nothing(service: Service, account: Account) -> None:
    change = {"current_password": "wrong one", "new_password": "another password"}
    answer = service.client.put("/v1/auth/me/password", json=change, headers=account.headers)
    assert answer.status_code == 403
    assert service.log_in(account.username, account.password).id == account.id


def test_two_changes_of_one_password_at_the_same_instant_leave_one_of_them(service: Service, account: Account) -> None:
    def attempt(new: str) -> int:
        change = {"current_password": account.password, "new_password": new}
        return service.client.put("/v1/auth/me/password", json=change, headers=account.headers).status_code

    news = ["first new one", "second new one"]
    with ThreadPoolExecutor(2) as threads:
        statuses = list(threads.map(attempt, news))
    [changed] = [new for new, status in zip(news, statuses, strict=True) if status == 204]
    assert {403, 409}.issuperset(set(statuses) - {204})
    for password in (account.password, *news):
        answer = service.client.post("/v1/auth/login", json={"login": account.username, "password": password})
        assert (password, answer.status_code) == (password, 200 if password == changed else 401)
