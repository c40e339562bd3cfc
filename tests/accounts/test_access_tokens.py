"""Access tokens: what is in them, how long they live, and which are none."""

import hmac
import json
import math
import re
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import jwt
import pytest

from tests.conftest import TEST_SETTINGS, StartService
from tests.faults.load import QuickService
from tests.support.service import ROOT, Account, Service

OLD_KEY, NEW_KEY = "an old key that is long enough for HS512." * 2, "a new key that is long enough for HS512." * 2


@pytest.fixture(scope="module")
def keyed() -> Iterator[Service]:
    """On SQLite, with a key that is known, for tests that forge tokens."""
    with QuickService({**TEST_SETTINGS, "SECRET_KEY": NEW_KEY}) as service:
        yield service


@pytest.fixture(scope="module")
def signed(keyed: Service) -> Account:
    """For tests that change nothing of it."""
    return keyed.sign_up()


@pytest.fixture(scope="module")
def bystander(service: Service) -> Account:
    """For tests that change nothing of it."""
    return service.sign_up()


def refresh(service: Service, token: str) -> httpx.Response:
    return service.client.post("/v1/auth/refresh", json={"refresh_token": token})


def me(service: Service, account: Account) -> int:
    return service.client.get("/v1/auth/me", headers=account.headers).status_code


def test_an_access_token_is_a_jwt_with_the_contracts_claims(bystander: Account) -> None:
    header = jwt.get_unverified_header(bystander.access_token)
    claims = jwt.decode(bystander.access_token, options={"verify_signature": False})
    assert (header["alg"], header["typ"], bool(header["kid"])) == ("HS256", "at+jwt", True)
    assert set(claims) == {"sub", "sid", "iat", "exp", "iss", "aud", "jti"}
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("berth", "berth", bystander.id)
    assert claims["exp"] - claims["iat"] == 900


def test_an_expired_access_token_is_a_401_and_its_session_is_refreshed(start_service: StartService) -> None:
    service = start_service(ACCESS_TOKEN_TTL=1)
    account = service.sign_up()
    me(service, account)  # from here on the service remembers that the token is genuine
    time.sleep(2.1)
    assert me(service, account) == 401
    assert refresh(service, account.refresh_token).status_code == 200


def forged(
    account: Account,
    key: str = NEW_KEY,
    changed: dict[str, object] | None = None,
    header: dict[str, object] | None = None,
    algorithm: str = "HS256",
) -> dict[str, str]:
    """The account's token, changed and signed anew."""
    claims = jwt.decode(account.access_token, options={"verify_signature": False}) | (changed or {})
    headers = jwt.get_unverified_header(account.access_token) | (header or {})
    return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm, headers)}"}


def check_refused(service: Service, headers: dict[str, str]) -> None:
    answer = service.client.get("/v1/auth/me", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="berth", error="invalid_token"'


def test_a_token_made_with_the_services_key_is_accepted(keyed: Service, signed: Account) -> None:
    assert keyed.client.get("/v1/auth/me", headers=forged(signed)).status_code == 200


def test_a_token_signed_with_another_key_is_a_401(keyed: Service, signed: Account) -> None:
    check_refused(keyed, forged(signed, OLD_KEY))


def test_a_token_without_a_signature_is_a_401(keyed: Service, signed: Account) -> None:
    check_refused(keyed, forged(signed, "", header={"alg": "none"}, algorithm="none"))


def test_a_token_of_another_algorithm_is_a_401(keyed: Service, signed: Account) -> None:
    check_refused(keyed, forged(signed, header={"alg": "HS512"}, algorithm="HS512"))


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
    "typ", [None, "", "JWT", "at", "at+jwt ", "dpop+jwt", "application/jwt", 7, ["at+jwt"], {}], ids=repr
)
def test_a_jwt_of_another_type_is_a_401(keyed: Service, signed: Account, typ: object) -> None:
    check_refused(keyed, raw(signed, header={"typ": typ}))


@pytest.mark.parametrize("typ", ["AT+JWT", "application/at+jwt"])
def test_the_type_is_a_media_type_without_case(keyed: Service, signed: Account, typ: str) -> None:
    assert keyed.client.get("/v1/auth/me", headers=raw(signed, header={"typ": typ})).status_code == 200


@pytest.mark.parametrize(
    "header", [{"kid": ["x"]}, {"kid": 1}, {"alg": ["HS256"]}, {"crit": ["x"]}, {"b64": False}], ids=str
)
def test_a_token_whose_header_makes_no_sense_is_a_401(
    keyed: Service, signed: Account, header: dict[str, object]
) -> None:
    check_refused(keyed, raw(signed, header=header))


OTHER_TYPES = [None, True, "text", "", "0", 7, -1, 1.5, 10**30, [], ["x"], {}, {"x": 1}, "\u00e9", "\ud800"]
NEVER_OURS: list[object] = [None, True, "text", "1", -1, 1.5, 10**30, [], {}]


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        *((name, value) for name in ("sub", "sid", "iss", "aud") for value in OTHER_TYPES),
        *((name, value) for name in ("exp", "iat", "nbf") for value in NEVER_OURS),
        *(("jti", value) for value in OTHER_TYPES if not isinstance(value, str)),
        *((name, math.nan) for name in ("exp", "iat", "nbf")),
        *((name, math.inf) for name in ("exp", "iat", "nbf")),
        ("sub", "x" * 36),
        ("sid", "x" * 36),
        ("aud", ["berth"]),
        ("aud", "other"),
        ("iss", "other"),
        ("exp", 1),
        ("nbf", 2**40),
    ],
    ids=str,
)
def test_a_validly_signed_token_with_a_wrong_claim_is_a_401(
    keyed: Service, signed: Account, claim: str, value: object
) -> None:
    check_refused(keyed, raw(signed, changed={claim: value}))


@pytest.mark.parametrize("payload", ["[]", "null", "7", '"text"', "", "{", "[" * 300, "\xff"], ids=repr)
def test_a_validly_signed_token_that_holds_no_claims_is_a_401(keyed: Service, signed: Account, payload: str) -> None:
    check_refused(keyed, raw(signed, payload=payload.encode("latin-1")))


def raw(
    account: Account,
    changed: dict[str, object] | None = None,
    header: dict[str, object] | None = None,
    payload: bytes | None = None,
) -> dict[str, str]:
    """The account's token, changed and signed anew by hand: what no JWT library would make."""
    head = jwt.get_unverified_header(account.access_token) | (header or {})
    claims = jwt.decode(account.access_token, options={"verify_signature": False}) | (changed or {})
    parts = [json.dumps(head).encode(), json.dumps(claims).encode() if payload is None else payload]
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = urlsafe_b64encode(hmac.digest(NEW_KEY.encode(), signed, "sha256")).rstrip(b"=")
    return {"Authorization": f"Bearer {(signed + b'.' + signature).decode()}"}


def test_a_token_of_one_account_for_anothers_session_is_a_401(keyed: Service, signed: Account) -> None:
    check_refused(keyed, forged(signed, changed={"sid": keyed.sign_up().session_id}))


def test_tokens_of_a_previous_key_are_still_accepted_and_new_ones_have_the_new_key(start_service: StartService) -> None:
    old = start_service(SECRET_KEY=OLD_KEY)
    account = old.sign_up()
    new = start_service(SECRET_KEY=NEW_KEY, SECRET_KEY_PREVIOUS=OLD_KEY, DATA_DIR=old.env["DATA_DIR"])
    assert me(new, account) == 200
    newer = refresh(new, account.refresh_token).json()["access_token"]
    assert jwt.decode(newer, NEW_KEY, ["HS256"], audience="berth")["sub"] == account.id


def steps_of_the_page() -> list[dict[str, Any]]:
    """The settings before, after each step, and at the end, as docs/operations.md has them."""
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8").partition("## A new SECRET_KEY")[2]
    rows = re.findall(r"^\|[^|]+\| (old|new) \| (old|new|) ?\|$", page.partition("\n## ")[0], re.MULTILINE)
    keys = {"old": OLD_KEY, "new": NEW_KEY, "": ""}
    return [{"SECRET_KEY": keys[key], "SECRET_KEY_PREVIOUS": keys[previous]} for key, previous in rows]


def test_a_key_is_replaced_in_three_steps_and_no_client_gets_a_401(start_service: StartService) -> None:
    """Each roll-out is a time in which one instance has the settings of a step, and another still those before."""
    steps = steps_of_the_page()
    assert [step["SECRET_KEY"] for step in (steps[0], steps[-1])] == [OLD_KEY, NEW_KEY]
    first = start_service(**steps[0])
    instances = [first, *(start_service(**step, DATA_DIR=first.env["DATA_DIR"]) for step in steps[1:])]
    assert len(instances) == 4
    tokens = vars(first.sign_up())
    for before, after in pairwise(instances):
        if after is instances[-1]:  # ACCESS_TOKEN_TTL later: what the old key has signed has expired
            tokens = refresh(before, tokens["refresh_token"]).json()
        for issuer in (before, after, before):
            headers = {"Authorization": f"Bearer {tokens['access_token']}"}
            assert [each.client.get("/v1/auth/me", headers=headers).status_code for each in (before, after)] == [
                200,
                200,
            ]
            tokens = refresh(issuer, tokens["refresh_token"]).json()


def test_an_instance_with_a_new_key_only_refuses_tokens_of_the_old_one(start_service: StartService) -> None:
    old = start_service(SECRET_KEY=OLD_KEY)
    account = old.sign_up()
    new = start_service(SECRET_KEY=NEW_KEY, DATA_DIR=old.env["DATA_DIR"])
    check_refused(new, account.headers)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_schemes_case_does_not_matter(service: Service, bystander: Account, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {bystander.access_token}"}
    assert service.client.get("/v1/auth/me", headers=headers).status_code == 200


@pytest.mark.parametrize("scheme", ["Basic", "Token", "Digest", "JWT", "DPoP", "Bearer Bearer", "Bearer:", ""])
def test_a_valid_token_under_another_scheme_is_a_401(service: Service, bystander: Account, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {bystander.access_token}".strip()}
    answer = service.client.get("/v1/auth/me", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_valid_token_as_a_password_is_a_401(service: Service, bystander: Account) -> None:
    credentials = b64encode(f"{bystander.username}:{bystander.access_token}".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}"}
    assert service.client.get("/v1/auth/me", headers=headers).status_code == 401


@pytest.mark.parametrize("where", ["query", "form", "cookie"])
def test_a_valid_token_anywhere_but_in_the_header_is_a_401(service: Service, bystander: Account, where: str) -> None:
    token = bystander.access_token
    requests = {
        "query": lambda: service.client.get("/v1/auth/me", params={"access_token": token}),
        "form": lambda: service.client.post("/v1/auth/logout", data={"access_token": token}),
        "cookie": lambda: service.client.get("/v1/auth/me", headers={"Cookie": f"access_token={token}"}),
    }
    assert requests[where]().status_code == 401


def test_a_refresh_token_is_no_access_token(service: Service, bystander: Account) -> None:
    headers = {"Authorization": f"Bearer {bystander.refresh_token}"}
    assert service.client.get("/v1/auth/me", headers=headers).status_code == 401


@pytest.mark.parametrize(("seconds", "status"), [(-1, 401), (0, 401), (30, 200)])
def test_a_token_lives_until_its_exp_and_no_longer(keyed: Service, signed: Account, seconds: int, status: int) -> None:
    headers = forged(signed, changed={"exp": int(time.time()) + seconds})
    assert keyed.client.get("/v1/auth/me", headers=headers).status_code == status


@pytest.mark.parametrize("claim", ["sub", "sid", "iat", "exp", "iss", "aud", "jti"])
def test_a_token_without_one_of_its_claims_is_a_401(keyed: Service, signed: Account, claim: str) -> None:
    claims = jwt.decode(signed.access_token, options={"verify_signature": False})
    del claims[claim]
    check_refused(keyed, raw(signed, payload=json.dumps(claims).encode()))


def test_a_token_of_another_instance_whose_clock_is_ahead_is_accepted(keyed: Service, signed: Account) -> None:
    headers = forged(signed, changed={"iat": int(time.time()) + 60})
    assert keyed.client.get("/v1/auth/me", headers=headers).status_code == 200


def test_access_tokens_live_as_long_as_the_setting_says(start_service: StartService) -> None:
    account = start_service(ACCESS_TOKEN_TTL=61).sign_up()
    claims = jwt.decode(account.access_token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 61
    assert 0 <= time.time() - claims["iat"] < 20
