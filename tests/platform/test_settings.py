"""Settings: every variable has its documented default, and all that is wrong with them is said at once."""

import base64
import dataclasses
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin, get_type_hints

import pytest

import settings
from infra.base import variables
from infra.base.near_misses import near_misses
from infra.base.settings_command import FORMATS, as_env, as_markdown
from tests.support.servers import LOOPBACK_NAMES, make_certificates

ROOT = Path(__file__).parents[2]
KEY = "k" * 32
OTHER_KEY = "o" * 32
MADE_BY_CHANCE = os.urandom(32).hex()  # whatever stood here would be published
PROD = {
    "SYS_ENV": "prod",
    "MYSQL_HOST": "localhost",
    "MYSQL_PASSWORD": "pw",
    "REDIS_HOST": "localhost",
    "SECRET_KEY": MADE_BY_CHANCE,
}

# The contract: a name or a default that changes here changes for everyone who runs the service.
DEFAULTS = {
    "SYS_ENV": "local",
    "DEBUG": True,
    "HOST": "0.0.0.0",  # noqa: S104 - what the container listens on
    "PORT": 8000,
    "MYSQL_HOST": None,
    "MYSQL_PORT": 3306,
    "MYSQL_DATABASE": "berth",
    "MYSQL_USERNAME": "berth",
    "MYSQL_PASSWORD": None,
    "MYSQL_READ_HOST": None,
    "MYSQL_POOL_MIN_SIZE": 1,
    "MYSQL_POOL_MAX_SIZE": 30,
    "MYSQL_POOL_TIMEOUT": 5.0,
    "MYSQL_POOL_RECYCLE": 1800.0,
    "MYSQL_CONNECT_TIMEOUT": 5.0,
    "MYSQL_QUERY_TIMEOUT": 10.0,
    "MYSQL_SSL_MODE": "preferred",
    "MYSQL_SSL_CA": None,
    "MYSQL_SSL_CERT": None,
    "MYSQL_SSL_KEY": None,
    "MYSQL_UNIX_SOCKET": None,
    "MYSQL_INIT_COMMAND": None,
    "MYSQL_SLOW_QUERY": 0.5,
    "REDIS_HOST": None,
    "REDIS_PORT": 6379,
    "REDIS_DB": 0,
    "REDIS_USERNAME": None,
    "REDIS_PASSWORD": None,
    "REDIS_SSL": False,
    "REDIS_SSL_CA": None,
    "REDIS_SSL_CERT": None,
    "REDIS_SSL_KEY": None,
    "REDIS_CLUSTER": False,
    "REDIS_MAX_CONNECTIONS": 50,
    "REDIS_TIMEOUT": 1.0,
    "SECRET_KEY": KEY,
    "SECRET_KEY_PREVIOUS": (),
    "ACCESS_TOKEN_TTL": 900,
    "REFRESH_TOKEN_TTL": 2592000,
    "SESSION_MAX_AGE": 7776000,
    "MAX_SESSIONS": 50,
    "LOGIN_RATE_LIMIT": (10, 300),
    "REGISTER_RATE_LIMIT": (20, 3600),
    "REFRESH_RATE_LIMIT": (60, 60),
    "RESERVED_USERNAMES": (),
    "FAST": "on",
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "json",
    "NO_COLOR": None,
    "STARTUP_TIMEOUT": 30.0,
    "SHUTDOWN_DELAY": 0.0,
    "SHUTDOWN_TIMEOUT": 8.0,
    "MAX_BODY_BYTES": 1048576,
    "REQUEST_TIMEOUT": 30.0,
    "MAX_CONCURRENCY": 1000,
    "MAX_CONNECTIONS": 2000,
    "MAX_CONNECTIONS_PER_CLIENT": 256,
    "KEEP_ALIVE": 75.0,
    "CORS_ORIGINS": (),
    "ALLOWED_HOSTS": ("*",),
    "FORWARDED_ALLOW_IPS": "127.0.0.1",
    "DOCS_ENABLED": True,
    "METRICS_TOKEN": None,
    "EVENTS_TOKEN": None,
    "GOOGLE_CLOUD_PROJECT": None,
    "K_SERVICE": None,
    "K_REVISION": None,
    "K_SINK": None,
    "K_CE_OVERRIDES": {},
    "DATA_DIR": Path("data"),
    "ENV_FILE": None,
}
SECRETS = [
    "MYSQL_PASSWORD",
    "REDIS_PASSWORD",
    "SECRET_KEY",
    "SECRET_KEY_PREVIOUS",
    "METRICS_TOKEN",
    "EVENTS_TOKEN",
]
SECONDS = [name for name, value in DEFAULTS.items() if isinstance(value, float)]


def load(**given: str) -> settings.Settings:
    """In local, with a key given so that nothing is made."""
    key = {} if "SECRET_KEY_FILE" in given else {"SECRET_KEY": KEY}
    return settings.load(key | given)


def problems(environ: dict[str, str]) -> dict[str, str]:
    with pytest.raises(variables.SettingsError) as caught:
        settings.load(environ)
    return {problem.variable: problem.text for problem in caught.value.problems}


def refused(**given: str) -> dict[str, str]:
    return problems({"SECRET_KEY": KEY} | given)


def command(*arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "settings.py", *arguments],
        cwd=ROOT,
        env=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def row(output: str, name: str) -> list[str]:
    return next(line.split() for line in output.splitlines() if line.split()[:1] == [name])


# The table


def test_every_variable_of_the_contract_is_there_in_its_order() -> None:
    assert list(settings.VARIABLES) == list(DEFAULTS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_default(name: str) -> None:
    assert getattr(load(), name.lower()) == DEFAULTS[name]


def test_fields_are_the_names_in_lower_case_and_warnings() -> None:
    names = [field.name for field in dataclasses.fields(settings.Settings)]
    assert names == [*(name.lower() for name in DEFAULTS), "warnings"]


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_default_has_the_declared_type(name: str) -> None:
    declared = get_type_hints(settings.Settings)[name.lower()]
    types = get_args(declared) if isinstance(declared, UnionType) else (get_origin(declared) or declared,)
    assert isinstance(getattr(load(), name.lower()), types)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().port = 1  # type: ignore[misc]


def test_only_the_mapping_given_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9999")
    assert load().port == 8000


def test_without_a_mapping_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setenv("PORT", "9999")
    assert settings.load().port == 9999


def test_loading_leaves_the_environment_alone(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("PORT=81\n")
    before = dict(os.environ)
    load(ENV_FILE=str(tmp_path / "env"))
    assert dict(os.environ) == before


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "SECRET_KEY"])
def test_an_empty_variable_counts_as_unset(name: str) -> None:
    assert getattr(load(**{name: ""}), name.lower()) == DEFAULTS[name]


# Values


GOOD = [
    ("SYS_ENV", "test", "test"),
    ("PORT", "1", 1),
    ("PORT", "65535", 65535),
    ("HOST", "::1", "::1"),
    ("MYSQL_HOST", "db.svc.cluster.local.", "db.svc.cluster.local."),
    ("MYSQL_HOST", "mysql_1", "mysql_1"),
    ("REDIS_HOST", "10.1.2.3", "10.1.2.3"),
    ("MYSQL_POOL_MIN_SIZE", "0", 0),
    ("MYSQL_POOL_MAX_SIZE", "1", 1),
    ("MYSQL_QUERY_TIMEOUT", "0.25", 0.25),
    ("SHUTDOWN_DELAY", "0", 0.0),
    ("MYSQL_SSL_MODE", "DISABLED", "disabled"),
    ("MYSQL_SSL_MODE", "Required", "required"),
    ("LOGIN_RATE_LIMIT", "5/60", (5, 60)),
    ("REGISTER_RATE_LIMIT", "1/1", (1, 1)),
    ("REFRESH_RATE_LIMIT", "100/10", (100, 10)),
    ("SESSION_MAX_AGE", "3600", 3600),
    ("MAX_SESSIONS", "1", 1),
    ("RESERVED_USERNAMES", "admin, Root,system", ("admin", "Root", "system")),
    ("FAST", "OFF", "off"),
    ("LOG_LEVEL", "debug", "DEBUG"),
    ("LOG_FORMAT", "ecs", "ecs"),
    ("CORS_ORIGINS", "https://a.example, http://localhost:3000", ("https://a.example", "http://localhost:3000")),
    ("CORS_ORIGINS", "*", ("*",)),
    (
        "CORS_ORIGINS",
        "https://a.example:443,http://b:80, http://b:443",
        ("https://a.example", "http://b", "http://b:443"),
    ),
    ("CORS_ORIGINS", "http://[0:0:0::1]:80,https://[2001:db8::0]:08443", ("http://[::1]", "https://[2001:db8::]:8443")),
    ("ALLOWED_HOSTS", "a.example,*.b.example", ("a.example", "*.b.example")),
    ("FORWARDED_ALLOW_IPS", "10.0.0.0/8, ::1", "10.0.0.0/8,::1"),
    ("FORWARDED_ALLOW_IPS", "*", "*"),
    ("SECRET_KEY_PREVIOUS", f"{KEY},{OTHER_KEY}", (KEY, OTHER_KEY)),
    ("SECRET_KEY", "é" * 16, "é" * 16),
    ("MYSQL_USERNAME", "zoé", "zoé"),
    ("MAX_BODY_BYTES", "1", 1),
    ("GOOGLE_CLOUD_PROJECT", "p-1", "p-1"),
    ("K_SINK", "http://broker-ingress.knative-eventing.svc/a/b", "http://broker-ingress.knative-eventing.svc/a/b"),
    ("K_SINK", "https://[::1]:8443/a?b=c", "https://[::1]:8443/a?b=c"),
    ("K_SINK", "http://sink", "http://sink"),
    ("K_CE_OVERRIDES", '{"extensions": {"tenant": "é", "x1": ""}}', {"tenant": "é", "x1": ""}),
    ("K_CE_OVERRIDES", "{}", {}),
    ("K_CE_OVERRIDES", '{"extensions": null}', {}),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_is_accepted(name: str, text: str, value: object) -> None:
    assert getattr(load(**{name: text}), name.lower()) == value


BAD = [
    ("SYS_ENV", ["production", "PROD", "prod ", "staging"]),
    ("DEBUG", ["maybe", "2", " "]),
    ("REDIS_SSL", ["enabled"]),
    ("HOST", ["a b", "http://x", "x\n"]),
    ("PORT", ["abc", "0", "65536", "-1", "+1", "1_000", " 8000", "8000 ", "8000.0", "٣", "9" * 5000]),
    ("MYSQL_HOST", ["db:3306", "mysql://db", "a,b", "/run/mysql.sock"]),
    ("MYSQL_USERNAME", ["berth\n", "a\x00b", "\udcff"]),
    ("MYSQL_POOL_MIN_SIZE", ["-1", "1.5"]),
    ("MYSQL_POOL_MAX_SIZE", ["0"]),
    ("MYSQL_SSL_MODE", ["verify-ca", "true", "verify"]),
    ("MYSQL_SSL_CA", ["/nowhere/ca.pem", "/", "/proc/self/mem", __file__]),
    ("REDIS_SSL_CA", ["/nowhere/ca.pem", "/", "/proc/self/mem", __file__]),
    ("MYSQL_INIT_COMMAND", ["SET a = 1\n", "a\x00b"]),
    ("REDIS_DB", ["-1", "x"]),
    ("REDIS_MAX_CONNECTIONS", ["0"]),
    ("ACCESS_TOKEN_TTL", ["0", "1.5", "15m", "99999999999"]),
    ("REFRESH_TOKEN_TTL", ["0"]),
    ("SESSION_MAX_AGE", ["0", "-1", "90d"]),
    ("MAX_SESSIONS", ["0", "none"]),
    ("REGISTER_RATE_LIMIT", ["0/3600", "20"]),
    ("REFRESH_RATE_LIMIT", ["60/0", "60 a minute"]),
    ("LOGIN_RATE_LIMIT", ["10", "10/", "/300", "0/300", "10/0", "10/300/1", "-1/5", "10 / 300"]),
    ("RESERVED_USERNAMES", ["a b", "admin,", "@", "admin;root"]),
    ("FAST", ["false", "0", "offf"]),
    ("LOG_LEVEL", ["TRACE", "10"]),
    ("LOG_FORMAT", ["text"]),
    ("MAX_BODY_BYTES", ["0", "1MB"]),
    ("MAX_CONCURRENCY", ["0"]),
    ("MAX_CONNECTIONS", ["0"]),
    ("MAX_CONNECTIONS_PER_CLIENT", ["0"]),
    (
        "CORS_ORIGINS",
        ["a.example", "https://a.example/", "https://a.example/x", "ftp://a", "https://a,,https://b", ","],
    ),
    (
        "CORS_ORIGINS",
        [
            "https://u:p@a.example",
            "https://a.example?x",
            "https://A.example",
            "http://x:0",
            "http://x:65536",
            "http://[::g]",
        ],
    ),
    ("ALLOWED_HOSTS", ["a.*.example", "*example", "https://a.example", "a.example/", "a.example,"]),
    ("FORWARDED_ALLOW_IPS", ["proxy", "10.0.0.1/8", "10.0.0.0/33", "127.0.0.1,", "*,127.0.0.1", "10.0.0"]),
    ("DOCS_ENABLED", ["nope"]),
    ("K_SINK", ["sink", "ftp://sink", "http://user:password@sink", "http://", "http://sink?x", "http://sink/a b"]),
    ("K_CE_OVERRIDES", ["x", "[]", "1", '{"extensions": 1}', '{"extensions": {"a": 1}}', '{"extensions": {"A": "b"}}']),
    ("K_CE_OVERRIDES", ['{"a":' * 100_000, "[" * 100_000, '{"extensions": {"a\\n": "b"}}']),
    *((name, ["-1", "nan", "inf", "1e400", "1e3", "1_0", "5s", " 5", "9" * 400, "3000000"]) for name in SECONDS),
    *((name, ["0", "0.0"]) for name in SECONDS if name != "SHUTDOWN_DELAY"),
]


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD for text in texts])
def test_is_refused_with_what_it_holds_and_what_was_expected(name: str, text: str) -> None:
    said = refused(**{name: text})
    assert list(said) == [name]
    shown = re.sub(r"\?.*", "?***", re.sub(r"//\w*:\w+@", "//***@", text))
    shown = "***" if name == "K_CE_OVERRIDES" else shown
    assert said[name].startswith(f"{name} is {repr(shown)[:77]}")
    assert ": expected " in said[name]
    assert len(said[name]) < 250
    assert said[name].isprintable()


@pytest.mark.parametrize("part", ['{"a":', "//a:", "//", "a:", ": ", "@"])
def test_a_long_wrong_value_is_refused_as_fast_as_a_short_one(part: str) -> None:
    started = time.process_time()
    refused(K_CE_OVERRIDES=part * 100_000)
    assert time.process_time() - started < 5  # a pattern that tries each place anew takes half a minute


def test_the_sentence() -> None:
    assert refused(PORT="abc") == {"PORT": "PORT is 'abc': expected an integer from 1 to 65535"}


def test_a_long_value_is_cut_to_80_characters() -> None:
    assert refused(PORT="x" * 1000)["PORT"].removeprefix("PORT is ").split(": expected")[0] == "'" + "x" * 76 + "..."


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "1", "yes", "on", "y", "t"])
def test_is_true(word: str) -> None:
    assert load(REDIS_SSL=word).redis_ssl is True


@pytest.mark.parametrize("word", ["false", "False", "FALSE", "0", "no", "off", "n", "f"])
def test_is_false(word: str) -> None:
    assert load(DOCS_ENABLED=word).docs_enabled is False


def test_all_problems_are_reported_at_once_in_the_tables_order() -> None:
    said = problems({"SYS_ENV": "prod", "PORT": "x", "LOG_FORMAT": "y", "EVENTS_TOKEN_FILE": "/nowhere", "DEBUG": "1"})
    assert list(said) == [
        "DEBUG",
        "PORT",
        "MYSQL_HOST",
        "MYSQL_PASSWORD",
        "REDIS_HOST",
        "SECRET_KEY",
        "LOG_FORMAT",
        "EVENTS_TOKEN_FILE",
    ]


def test_the_error_prints_as_one_line_a_problem() -> None:
    with pytest.raises(variables.SettingsError) as caught:
        load(PORT="x", LOG_LEVEL="y")
    assert str(caught.value).splitlines() == [problem.text for problem in caught.value.problems]


# What depends on where it runs


@pytest.mark.parametrize(("where", "debug"), [("local", True), ("dev", True), ("test", False), ("prod", False)])
def test_debug_follows_sys_env(where: str, debug: bool) -> None:
    assert settings.load(PROD | {"SYS_ENV": where}).debug is debug


@pytest.mark.parametrize(("where", "docs"), [("local", True), ("dev", True), ("test", True), ("prod", False)])
def test_docs_follow_sys_env(where: str, docs: bool) -> None:
    assert settings.load(PROD | {"SYS_ENV": where}).docs_enabled is docs


def test_docs_can_be_enabled_in_prod() -> None:
    assert settings.load(PROD | {"DOCS_ENABLED": "true"}).docs_enabled


def test_debug_is_refused_in_prod() -> None:
    assert problems(PROD | {"DEBUG": "true"}) == {"DEBUG": "DEBUG is 'true': expected false, since SYS_ENV is prod"}


def test_debug_false_is_fine_in_prod() -> None:
    assert settings.load(PROD | {"DEBUG": "false"}).debug is False


@pytest.mark.parametrize("where", ["dev", "prod"])
@pytest.mark.parametrize("name", ["MYSQL_HOST", "MYSQL_PASSWORD", "REDIS_HOST", "SECRET_KEY"])
def test_is_required(where: str, name: str) -> None:
    said = problems(PROD | {"SYS_ENV": where, name: ""})
    assert list(said) == [name]
    assert said[name].startswith(f"{name} is not set: expected ")


@pytest.mark.parametrize("where", ["local", "test"])
def test_is_not_required_in_local_and_test(where: str) -> None:
    assert not load(SYS_ENV=where).mysql_enabled


def test_a_wrong_value_is_not_called_missing_too() -> None:
    assert list(problems(PROD | {"MYSQL_HOST": "a b", "SECRET_KEY": "short"})) == ["MYSQL_HOST", "SECRET_KEY"]


def test_an_unreadable_secret_file_is_not_called_missing_too() -> None:
    given = PROD | {"MYSQL_PASSWORD": "", "MYSQL_PASSWORD_FILE": "/nowhere"}
    assert list(problems(given)) == ["MYSQL_PASSWORD_FILE"]


def test_a_unix_socket_stands_in_for_the_host() -> None:
    loaded = settings.load(PROD | {"MYSQL_HOST": "", "MYSQL_UNIX_SOCKET": "/cloudsql/p:r:i"})
    assert (loaded.mysql_host, loaded.mysql_enabled) == (None, True)


def test_a_host_enables_mysql() -> None:
    assert load(MYSQL_HOST="db").mysql_enabled


@pytest.mark.parametrize("mode", ["verify_ca", "VERIFY_IDENTITY"])
def test_verifying_needs_a_ca(mode: str) -> None:
    assert list(refused(MYSQL_SSL_MODE=mode)) == ["MYSQL_SSL_CA"]


def test_verifying_with_a_ca(tmp_path: Path) -> None:
    make_certificates(tmp_path, LOOPBACK_NAMES)
    loaded = load(MYSQL_SSL_MODE="verify_ca", MYSQL_SSL_CA=str(tmp_path / "ca.pem"))
    assert loaded.mysql_ssl_ca == tmp_path / "ca.pem"


PAIR = {"Cert": "a", "Key": "b"}
CERTIFICATE, KEY_FILE = "a readable PEM file of certificates", "a readable file"
NOT_ITS_KEY = {"Key": "the private key of {0}_SSL_CERT, as PEM without a passphrase"}
# a and b are a client's certificate and its key, c is another's key, s the key under a passphrase, n no PEM.
CLIENT_CERTIFICATES = [
    ({"Cert": "a"}, {"Key": f"{KEY_FILE}, since {{0}}_SSL_CERT is set"}),
    ({"Key": "b"}, {"Cert": f"{CERTIFICATE}, since {{0}}_SSL_KEY is set"}),
    ({"Cert": "a", "Key": "c"}, NOT_ITS_KEY),
    ({"Cert": "a", "Key": "a"}, NOT_ITS_KEY),
    ({"Cert": "a", "Key": "s"}, NOT_ITS_KEY),
    ({"Cert": "a", "Key": "n"}, NOT_ITS_KEY),
    ({"Cert": "n", "Key": "b"}, {"Cert": CERTIFICATE}),
    ({"Cert": "b", "Key": "b"}, {"Cert": CERTIFICATE}),
    ({"Cert": "a", "Key": "/"}, {"Key": KEY_FILE}),
    (
        {"Cert": "/nowhere", "Key": "/nowhere"},
        {"Cert": CERTIFICATE, "Key": KEY_FILE},
    ),
]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folder, others = (tmp_path_factory.mktemp(name) for name in ("own", "others"))
    for each in (folder, others):
        make_certificates(each, LOOPBACK_NAMES)
    text = {name: (folder / file).read_text() for name, file in (("a", "server.pem"), ("b", "server.key"))}
    text |= {"c": (others / "server.key").read_text(), "n": "not a certificate"}
    secret = ["openssl", "pkcs8", "-topk8", "-in", "server.key", "-passout", "pass:secret", "-out", "secret.key"]
    subprocess.run(secret, cwd=folder, check=True, capture_output=True)
    text["s"] = (folder / "secret.key").read_text()

    def path_of(letters: str) -> str:
        if "/" in letters:
            return letters
        (folder / letters).write_text("".join(text[letter] for letter in letters))
        return str(folder / letters)

    return path_of


@pytest.mark.parametrize("given", [PAIR, {"Cert": "ab", "Key": "ab"}], ids=["two files", "one file"])
def test_a_clients_certificate_has_its_key(pem: Callable[[str], str], given: dict[str, str]) -> None:
    files = {part: pem(letters) for part, letters in given.items()}
    loaded = load(MYSQL_SSL_CERT=files["Cert"], MYSQL_SSL_KEY=files["Key"])
    assert (str(loaded.mysql_ssl_cert), str(loaded.mysql_ssl_key)) == (files["Cert"], files["Key"])


@pytest.mark.parametrize("server", ["MYSQL", "REDIS"])
@pytest.mark.parametrize(("given", "expected"), CLIENT_CERTIFICATES)
def test_a_clients_certificate_and_its_key_are_a_pair(
    pem: Callable[[str], str], server: str, given: dict[str, str], expected: dict[str, str]
) -> None:
    env = {f"{server}_SSL_{part.upper()}": pem(letters) for part, letters in given.items()} | {"REDIS_SSL": "true"}
    said = {name: text.partition(": expected ")[2] for name, text in problems(env | {"SYS_ENV": "test"}).items()}
    assert said == {f"{server}_SSL_{part.upper()}": text.format(server) for part, text in expected.items()}


def test_a_clients_certificate_is_of_no_use_without_tls(pem: Callable[[str], str]) -> None:
    pairs = {f"{server}_SSL_{part.upper()}": pem(text) for server in ("MYSQL", "REDIS") for part, text in PAIR.items()}
    assert list(problems({"SYS_ENV": "test", "MYSQL_SSL_MODE": "disabled", **pairs})) == ["MYSQL_SSL_MODE", "REDIS_SSL"]


def test_the_pool_cannot_be_larger_at_least_than_at_most() -> None:
    assert refused(MYSQL_POOL_MIN_SIZE="31") == {
        "MYSQL_POOL_MIN_SIZE": "MYSQL_POOL_MIN_SIZE is '31': expected at most MYSQL_POOL_MAX_SIZE, which is 30"
    }


def test_the_pool_may_be_as_large_at_least_as_at_most() -> None:
    assert load(MYSQL_POOL_MIN_SIZE="30").mysql_pool_min_size == 30


def test_a_redis_cluster_has_database_0_only() -> None:
    assert list(refused(REDIS_CLUSTER="true", REDIS_DB="1")) == ["REDIS_DB"]
    assert load(REDIS_CLUSTER="true").redis_cluster
    assert load(REDIS_DB="1").redis_db == 1


def test_a_knative_service_logs_in_gcps_format_unless_told_otherwise() -> None:
    assert load(K_SERVICE="berth").log_format == "gcp"
    assert load(K_SERVICE="berth", LOG_FORMAT="json").log_format == "json"


# Secrets


@pytest.mark.parametrize("name", ["SECRET_KEY", "SECRET_KEY_PREVIOUS"])
def test_a_key_of_31_bytes_is_too_short(name: str) -> None:
    text = refused(**{name: "s" * 31})[name]
    assert text.startswith(f"{name} is too short: expected ")
    assert "at least 32 bytes" in text
    assert "sss" not in text


def test_one_short_previous_key_among_good_ones_is_refused() -> None:
    assert list(refused(SECRET_KEY_PREVIOUS=f"{KEY},short")) == ["SECRET_KEY_PREVIOUS"]


@pytest.mark.parametrize("file", [False, True], ids=["variable", "file"])
@pytest.mark.parametrize("name", ["SECRET_KEY", "SECRET_KEY_PREVIOUS"])
@pytest.mark.parametrize("around", ["{}", " {}", "{}\t", "{}\n", "\t{}\r\n\n"], ids=repr)
def test_a_key_is_the_same_bytes_in_either_variable_and_in_either_ones_file(
    name: str, around: str, file: bool, tmp_path: Path
) -> None:
    key = f"with blanks {KEY} in it"
    (tmp_path / "key").write_bytes(around.format(key).encode())
    given = {f"{name}_FILE": str(tmp_path / "key")} if file else {name: around.format(key)}
    assert getattr(load(**given), name.lower()) in {key, (key,)}


def test_a_key_that_could_not_stand_among_previous_ones_is_refused_in_prod() -> None:
    key = f"{MADE_BY_CHANCE},{MADE_BY_CHANCE[::-1]}"
    text = problems(PROD | {"SECRET_KEY": key})["SECRET_KEY"]
    assert "without a comma" in text
    assert MADE_BY_CHANCE not in text
    assert load(SECRET_KEY=key).secret_key == key


@pytest.mark.parametrize("token", ["two words", "é", "a\nb", "\na"])
@pytest.mark.parametrize("name", ["METRICS_TOKEN", "EVENTS_TOKEN"])
def test_a_token_that_no_header_can_carry_is_refused(name: str, token: str) -> None:
    said = refused(**{name: token})
    assert list(said) == [name]
    assert token not in said[name]


@pytest.mark.parametrize("name", SECRETS)
def test_a_refused_secret_is_never_quoted(name: str) -> None:
    said = refused(**{name: "Xyzzy\udcffQ"})
    assert list(said) == [name]
    assert "Xyzzy" not in said[name]
    assert "udcff" not in said[name]


def test_repr_shows_no_secret() -> None:
    given = {name: f"{index}-{'Xyzzy' * 10}" for index, name in enumerate(SECRETS)}
    assert "Xyzzy" not in repr(settings.load(given))


def test_secrets_holds_every_secret_value() -> None:
    given = {name: f"{index}-{'Xyzzy' * 10}" for index, name in enumerate(SECRETS)} | {
        "SECRET_KEY_PREVIOUS": f"{KEY},{OTHER_KEY}"
    }
    expected = {text for name, text in given.items() if name != "SECRET_KEY_PREVIOUS"} | {KEY, OTHER_KEY}
    assert set(settings.load(given).secrets) == expected


def test_secrets_holds_nothing_that_is_unset() -> None:
    assert load().secrets == (KEY,)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_comes_from_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(OTHER_KEY)
    value = getattr(load(**{f"{name}_FILE": str(tmp_path / "secret")}), name.lower())
    assert value in {OTHER_KEY, (OTHER_KEY,)}


BARE = "Xyzzy-" + "0b6f" * 8  # a value that every secret may have


@pytest.mark.parametrize(
    "around", ["{}\n", "{}\r\n", "{}\n\n", "{}\r", "{}\r\n\r\n", "\ufeff{}", "\ufeff{}\n"], ids=ascii
)
@pytest.mark.parametrize("name", SECRETS)
def test_a_byte_order_mark_and_line_ends_are_no_part_of_a_secret(name: str, around: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(around.format(BARE).encode())
    for given in ({name: around.format(BARE)}, {f"{name}_FILE": str(tmp_path / "secret")}):
        loaded = load(**given)
        assert getattr(loaded, name.lower()) in {BARE, (BARE,)}
        assert BARE in loaded.secrets


@pytest.mark.parametrize("text", [" pw ", "a\r\nb", "\npw", "pw\ufeff", "p\ufeffw", "\tpw\t"], ids=ascii)
def test_all_else_is_part_of_a_password(text: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(text.encode())
    assert load(MYSQL_PASSWORD_FILE=str(tmp_path / "secret")).mysql_password == text
    assert load(MYSQL_PASSWORD=text).mysql_password == text


@pytest.mark.parametrize("nothing", ["\n", "\r\n", "\ufeff", "\ufeff\n"], ids=ascii)
@pytest.mark.parametrize("name", [name for name in SECRETS if name != "SECRET_KEY"])
def test_a_secret_of_nothing_else_counts_as_unset(name: str, nothing: str) -> None:
    assert getattr(load(**{name: nothing}), name.lower()) == DEFAULTS[name]


def test_a_byte_order_mark_before_the_file_of_variables_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert load(ENV_FILE=env_file(tmp_path, "\ufeffPORT=81\n")).port == 81


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"\xff\xfe"])
def test_a_secret_file_that_is_empty_or_not_utf8_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(content)
    said = refused(MYSQL_PASSWORD_FILE=str(tmp_path / "secret"))
    assert list(said) == ["MYSQL_PASSWORD_FILE"]
    assert str(tmp_path / "secret")[:70] in said["MYSQL_PASSWORD_FILE"]


def test_a_secret_file_that_never_ends_or_never_begins_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", str(tmp_path / "pipe")):
        assert list(refused(MYSQL_PASSWORD_FILE=path)) == ["MYSQL_PASSWORD_FILE"]


def test_a_secret_may_come_through_a_pipe() -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(["sh", "-c", "sleep 0.2; echo late"], stdout=writing):
        os.close(writing)
        assert load(MYSQL_PASSWORD_FILE=f"/dev/fd/{reading}").mysql_password == "late"
    os.close(reading)


@pytest.mark.parametrize("path", ["/nowhere/secret", "/", "x" * 5000, "a\x00b"])
def test_a_secret_file_that_cannot_be_read_is_refused(path: str) -> None:
    assert list(refused(REDIS_PASSWORD_FILE=path)) == ["REDIS_PASSWORD_FILE"]


def test_a_bad_secret_in_a_file_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short-Xyzzy")
    said = problems({"SECRET_KEY_FILE": str(tmp_path / "secret")})
    assert said == {"SECRET_KEY": "SECRET_KEY is too short: expected at least 32 bytes"}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_given_both_ways_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(OTHER_KEY)
    said = refused(**{name: KEY, f"{name}_FILE": str(tmp_path / "secret")})
    assert said == {name: f"{name} and {name}_FILE are both set: expected one of them"}


def test_an_empty_file_variable_counts_as_unset() -> None:
    assert load(MYSQL_PASSWORD="pw", MYSQL_PASSWORD_FILE="").mysql_password == "pw"


def test_an_empty_secret_beside_its_file_counts_as_unset(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file")
    assert load(MYSQL_PASSWORD="", MYSQL_PASSWORD_FILE=str(tmp_path / "secret")).mysql_password == "from-file"


def test_only_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("81")
    assert load(PORT_FILE=str(tmp_path / "port")).port == 8000


# What production refuses and warns of

WEAK_KEYS = [
    "a" * 32,
    "k" * 64,
    "ab" * 16,
    "a" * 31 + "b",
    "\u00e9" * 16,
    "0123456789abcdef" * 2,
    "9876543210" * 4,
    "abcdefghijklmnopqrstuvwxyz012345",
    "zyxwvutsrqponmlkjihgfedcba9876543210",
    "00112233445566778899aabbccddeeff",
    "qwertyuiopasdfghjklzxcvbnm123456",
    "changeme" * 4,
    "deadbeef" * 8,
    "secret" * 6,
    "password1password2password3password",
    "thisisaverysecretkeyforproduction",
    "your-256-bit-secret-your-256-bit-secret",
    "Please-Change-This-2-a-Secret-Key-In-Production",
    "django-insecure-7f3a9c1e5b2d8f4a6c0e",
    "the quick brown fox jumps over the lazy dog",
    "QAZWSXEDCRFVTGBYHNUJMIKOLPQAZWSXEDC",
    "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6",
    "aaaabbbbccccddddeeeeffffgggghhhh",
    "Supersecret-Supersecret-Supersecret",
    "development-only-secret-key-of-32-bytes-or-more",
    "DEVELOPMENT-only-secret-key-of-32-bytes-or-more ",
    "development-only-secret-key-of-32-bytes-or-more-2026",
]


@pytest.mark.parametrize("key", WEAK_KEYS)
def test_a_key_that_anybody_could_guess_is_refused_in_prod(key: str) -> None:
    said = problems(PROD | {"SECRET_KEY": key})
    assert list(said) == ["SECRET_KEY"]
    assert said["SECRET_KEY"].startswith("SECRET_KEY is ***: expected ")
    assert said["SECRET_KEY"].endswith(", since SYS_ENV is prod")
    assert list(problems(PROD | {"SECRET_KEY_PREVIOUS": f"{MADE_BY_CHANCE},{key}"})) == ["SECRET_KEY_PREVIOUS"]
    for where in ("local", "dev", "test"):
        assert settings.load(PROD | {"SYS_ENV": where, "SECRET_KEY": key}).secret_key == key.strip()


def test_a_key_of_blanks_is_refused_everywhere() -> None:
    for where in ("local", "dev", "test", "prod"):
        assert list(problems(PROD | {"SYS_ENV": where, "SECRET_KEY": " " * 32})) == ["SECRET_KEY"]


WEAK_TOKENS = [
    "short",
    "a" * 16,
    "1234567890123456",
    "abcd" * 8,
    "development-only-events-token",
    "15-characters-!",
    "a-token-for-your-Prometheus",
    "a-token-for-services-that-introspect",
    "changemechangeme",
    "password12345678",
    "please-change-this-token-2026",
]


@pytest.mark.parametrize("token", WEAK_TOKENS)
@pytest.mark.parametrize("name", ["METRICS_TOKEN", "EVENTS_TOKEN"])
def test_a_token_that_anybody_could_guess_is_refused_in_prod(name: str, token: str) -> None:
    said = problems(PROD | {name: token})
    assert list(said) == [name]
    assert said[name].startswith(f"{name} is ***: expected ")
    assert getattr(load(**{name: token}), name.lower()) == token


@pytest.mark.parametrize(
    "password",
    [
        "development-only-mysql-password",
        "the-password-that-serves",
        "the password of Redis",
        "password",
        "Root",
        "changeme1",
    ],
)
@pytest.mark.parametrize("name", ["MYSQL_PASSWORD", "REDIS_PASSWORD"])
def test_a_published_password_is_refused_in_prod(name: str, password: str, tmp_path: Path) -> None:
    assert list(problems(PROD | {name: password})) == [name]
    (tmp_path / "secret").write_text(password + "\n")
    assert list(problems(PROD | {name: "", f"{name}_FILE": str(tmp_path / "secret")})) == [name]


@pytest.mark.parametrize("length", [16, 32, 48])
def test_a_key_or_token_made_by_chance_is_taken_in_prod(length: int) -> None:
    chance = random.Random(length)  # the same each time: one in tens of thousands of 128 bits looks poor
    for _ in range(200):
        made = chance.randbytes(length)
        for text in (made.hex(), base64.b64encode(made).decode()):
            given = {"METRICS_TOKEN": text, "EVENTS_TOKEN": text, "MYSQL_PASSWORD": text}
            given |= {"SECRET_KEY": text} if len(text) >= 32 else {}
            assert settings.load(PROD | given).metrics_token == text


SELDOM = [
    ("FORWARDED_ALLOW_IPS", ["*", "0.0.0.0/0", "10.0.0.0/8,::/0", "0.0.0.0/1,128.0.0.0/1", "::/3", "::ffff:0:0/96"]),
    ("CORS_ORIGINS", ["*", "https://a.example,*"]),
    ("LOGIN_RATE_LIMIT", ["1000/300", "999999999/1", "1/999999999", "2/1"]),
    ("ACCESS_TOKEN_TTL", ["1", "86401", "2147483647"]),
    ("REFRESH_TOKEN_TTL", ["60", "99999999", "2147483647"]),
    ("SESSION_MAX_AGE", ["1", "2147483647"]),
]


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in SELDOM for text in texts])
def test_what_production_seldom_means_is_warned_of(name: str, text: str) -> None:
    [warning] = settings.load(PROD | {name: text}).warnings
    assert warning.startswith(name)
    assert settings.load(PROD | {"SYS_ENV": "dev", name: text}).warnings == ()


@pytest.mark.parametrize("mode", ["disabled", "preferred", "required"])
def test_in_prod_a_server_elsewhere_that_is_not_verified_is_warned_of(mode: str) -> None:
    [mysql] = settings.load(PROD | {"MYSQL_HOST": "db", "MYSQL_SSL_MODE": mode}).warnings
    assert mysql.startswith(f"MYSQL_SSL_MODE is {mode}: ")
    [redis] = settings.load(PROD | {"REDIS_HOST": "redis"}).warnings
    assert redis.startswith("REDIS_SSL is false: ")


@pytest.mark.parametrize("mode", ["verify_ca", "verify_identity"])
def test_servers_that_are_verified_are_not_warned_of(mode: str, tmp_path: Path) -> None:
    make_certificates(tmp_path, LOOPBACK_NAMES)
    ca = str(tmp_path / "ca.pem")
    elsewhere = {"MYSQL_HOST": "db", "MYSQL_SSL_MODE": mode, "MYSQL_SSL_CA": ca, "REDIS_HOST": "redis"}
    assert settings.load(PROD | elsewhere | {"REDIS_SSL": "true"}).warnings == ()


def test_what_is_usual_is_not_warned_of() -> None:
    usual = {
        "FORWARDED_ALLOW_IPS": "10.0.0.0/8,fd00::/8,127.0.0.1,::ffff:10.0.0.0/104",
        "CORS_ORIGINS": "https://a.example",
    }
    usual |= {"LOGIN_RATE_LIMIT": "100/3600", "ACCESS_TOKEN_TTL": "300", "REFRESH_TOKEN_TTL": "7776000"}
    assert settings.load(PROD | usual).warnings == ()


# ENV_FILE


def env_file(folder: Path, text: str) -> str:
    (folder / "env").write_text(text)
    return str(folder / "env")


def test_a_file_of_variables_is_read(tmp_path: Path) -> None:
    loaded = load(ENV_FILE=env_file(tmp_path, "# mine\nexport PORT=81\nMYSQL_PASSWORD='a b'\nUNKNOWN=x\n"))
    assert (loaded.port, loaded.mysql_password) == (81, "a b")


def test_real_variables_win_over_the_file(tmp_path: Path) -> None:
    assert load(PORT="82", ENV_FILE=env_file(tmp_path, "PORT=81\n")).port == 82


def test_an_empty_real_variable_leaves_it_to_the_file(tmp_path: Path) -> None:
    assert load(PORT="", ENV_FILE=env_file(tmp_path, "PORT=81\n")).port == 81


def test_a_real_secret_wins_over_the_files_secret_file(tmp_path: Path) -> None:
    loaded = load(MYSQL_PASSWORD="real", ENV_FILE=env_file(tmp_path, "MYSQL_PASSWORD_FILE=/nowhere\n"))
    assert loaded.mysql_password == "real"


def test_a_real_secret_file_wins_over_the_files_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("real")
    file = env_file(tmp_path, "MYSQL_PASSWORD=other\n")
    assert load(MYSQL_PASSWORD_FILE=str(tmp_path / "secret"), ENV_FILE=file).mysql_password == "real"


def test_the_file_is_not_interpolated(tmp_path: Path) -> None:
    assert load(ENV_FILE=env_file(tmp_path, "MYSQL_PASSWORD=a${PATH}$HOME\n")).mysql_password == "a${PATH}$HOME"


def test_the_file_may_set_sys_env(tmp_path: Path) -> None:
    file = env_file(tmp_path, "SYS_ENV=dev\nMYSQL_HOST=db\nMYSQL_PASSWORD=pw\nREDIS_HOST=redis\n")
    assert load(ENV_FILE=file).sys_env == "dev"


def test_no_file_is_read_unless_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=81\n")
    monkeypatch.chdir(tmp_path)
    assert load().port == 8000


@pytest.mark.parametrize("path", ["/nowhere/env", "/"])
def test_a_file_that_cannot_be_read_is_refused(path: str) -> None:
    assert list(refused(ENV_FILE=path)) == ["ENV_FILE"]


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(b"PORT=\xff\n")
    assert list(refused(ENV_FILE=str(tmp_path / "env"))) == ["ENV_FILE"]


def test_a_line_that_is_no_assignment_is_refused_by_number_and_not_quoted(tmp_path: Path) -> None:
    said = refused(ENV_FILE=env_file(tmp_path, "PORT=81\nMYSQL_PASSWORD='Xyzzy\n"))
    assert "line 2" in said["ENV_FILE"]
    assert "Xyzzy" not in said["ENV_FILE"]


def test_in_prod_the_file_is_ignored_with_a_warning(tmp_path: Path) -> None:
    loaded = settings.load(PROD | {"ENV_FILE": env_file(tmp_path, "PORT=81\nSYS_ENV=local\n")})
    assert (loaded.sys_env, loaded.port) == ("prod", 8000)
    assert loaded.warnings == ("ENV_FILE is ignored: SYS_ENV is prod",)


def test_in_prod_the_file_need_not_exist() -> None:
    assert len(settings.load(PROD | {"ENV_FILE": "/nowhere/env"}).warnings) == 1


def test_a_file_that_says_prod_makes_it_prod_and_is_ignored_otherwise(tmp_path: Path) -> None:
    given = {name: value for name, value in PROD.items() if name != "SYS_ENV"}
    loaded = settings.load(given | {"ENV_FILE": env_file(tmp_path, "SYS_ENV=prod\nPORT=81\n")})
    assert (loaded.sys_env, loaded.port, loaded.debug, len(loaded.warnings)) == ("prod", 8000, False, 1)


def test_without_a_file_nothing_is_warned_of() -> None:
    assert load().warnings == ()


@pytest.mark.parametrize("line", ["PORT", "export PORT", "PORT # =81"])
def test_a_line_with_only_a_name_is_refused_by_number(line: str, tmp_path: Path) -> None:
    said = refused(ENV_FILE=env_file(tmp_path, f"HOST=::1\n\n\n{line}\nLOG_LEVEL=INFO\n"))
    assert said["ENV_FILE"].endswith(": expected NAME=value in line 4")


def test_what_is_read_before_the_file_does_not_come_from_it(tmp_path: Path) -> None:
    loaded = load(ENV_FILE=env_file(tmp_path, "FAST=off\n"))
    assert loaded.fast == "on"
    assert loaded.warnings == ("FAST of ENV_FILE changes nothing: it is read before the file",)


# Names that nobody reads


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MYSQL_HSOT", "MYSQL_HOST"),
        ("PROT", "PORT"),
        ("port", "PORT"),
        ("MYSQL_PASWORD", "MYSQL_PASSWORD"),
        ("MYSQL_PASSWORD_FIEL", "MYSQL_PASSWORD_FILE"),
        ("MYSQLHOST", "MYSQL_HOST"),
        ("LOG_FORMATS", "LOG_FORMAT"),
        ("XLOG_FORMAT", "LOG_FORMAT"),
        ("LOG_FORMET", "LOG_FORMAT"),
        ("OG_FORMAT", "LOG_FORMAT"),
        ("LOG_FORMA", "LOG_FORMAT"),
        ("mysql_Host", "MYSQL_HOST"),
    ],
)
def test_a_misspelt_name_is_warned_of_with_the_likely_one(name: str, meant: str, tmp_path: Path) -> None:
    assert load(**{name: "x"}).warnings == (f"nothing reads {name}: is {meant} meant?",)
    loaded = load(ENV_FILE=env_file(tmp_path, f"{name}=x\n"))
    assert loaded.warnings == (f"nothing reads {name} of ENV_FILE: is {meant} meant?",)


def test_a_misspelt_name_beside_the_right_one_is_somebody_elses() -> None:
    assert load(MYSQLHOST="db", MYSQL_HOST="db").warnings == ()


def test_the_names_of_others_are_not_taken_for_misspelt() -> None:
    names = (
        "HOME HOSTNAME LANG LOGNAME PATH PWD SHELL SHLVL TERM TZ USER POST PART PORTS HOSTS HOT LAST DEBUGGER "
        "HTTP_PROXY no_proxy DATABASE_URL REDIS_URL REDIS_URI REDIS_TLS MYSQL_USER MYSQL_PWD MYSQL_ROOT_PASSWORD "
        "KUBERNETES_PORT KUBERNETES_SERVICE_HOST KUBERNETES_PORT_443_TCP MYSQL_SERVICE_HOST MYSQL_SERVICE_PORT "
        "MYSQL_PORT_3306_TCP_ADDR REDIS_PORT_6379_TCP REDIS_SERVICE_PORT K_CONFIGURATION CLOUD_RUN_JOB PORT_FILE"
    )
    assert load(**dict.fromkeys(names.split(), "x")).warnings == ()


def test_variables_are_not_taken_for_each_others_misspelling() -> None:
    assert list(near_misses(DEFAULTS, [])) == []
    assert all(dict(near_misses([name], set(DEFAULTS) - {name})) == {} for name in DEFAULTS)


def test_an_unknown_name_in_the_file_is_warned_of_but_not_composes_own(tmp_path: Path) -> None:
    text = "TIMEOUT=5\nMYSQL_ROOT_PASSWORD=x\nBERTH_LISTEN=8001\nCOMPOSE_PROFILES=logs\nMYSQL_PASSWORD=pw\n"
    assert load(ENV_FILE=env_file(tmp_path, text)).warnings == ("nothing reads TIMEOUT of ENV_FILE",)


def test_every_name_that_compose_reads_in_its_file_is_known(tmp_path: Path) -> None:
    names = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "compose.yaml").read_text(encoding="utf-8")))
    assert len(names) > 3
    text = "".join(f"{name}={value}\n" for name, value in names.items())
    assert load(SYS_ENV="test", ENV_FILE=env_file(tmp_path, text)).warnings == ()


def test_names_of_others_cost_the_start_nothing_that_counts() -> None:
    names = [f"SVC_{number}_SERVICE_PORT_{number % 7}" for number in range(300)] + ["MYSQL_HSOT"]
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    found = list(near_misses(names, DEFAULTS))
    sys.setprofile(None)
    assert found == [("MYSQL_HSOT", "MYSQL_HOST")]
    assert calls < 40 * len(names)  # and not each name with each variable, letter by letter


# The key that local and test make


def test_a_key_is_made_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    first = settings.load({"DATA_DIR": str(folder)})
    assert len(first.secret_key.encode()) >= 32
    assert settings.load({"DATA_DIR": str(folder), "SYS_ENV": "test"}).secret_key == first.secret_key
    assert [path.name for path in folder.iterdir()] == ["secret_key"]


def test_two_data_dirs_have_two_keys(tmp_path: Path) -> None:
    keys = {settings.load({"DATA_DIR": str(tmp_path / name)}).secret_key for name in "ab"}
    assert len(keys) == 2


def test_the_kept_key_is_its_owners_only(tmp_path: Path) -> None:
    settings.load({"DATA_DIR": str(tmp_path)})
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_the_kept_key_is_among_the_secrets(tmp_path: Path) -> None:
    loaded = settings.load({"DATA_DIR": str(tmp_path)})
    assert loaded.secrets == (loaded.secret_key,)


def test_processes_that_start_at_once_have_the_same_key(tmp_path: Path) -> None:
    barrier, found = threading.Barrier(16), []

    def start() -> None:
        barrier.wait()
        found.append(settings.load({"DATA_DIR": str(tmp_path / "data")}).secret_key)

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1


def test_a_key_that_another_process_made_in_between_is_kept(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text(KEY + "\n")
    variables.make_secret(tmp_path / "secret_key")
    assert [path.read_text() for path in tmp_path.iterdir()] == [KEY + "\n"]


def test_no_key_is_made_when_there_are_problems(tmp_path: Path) -> None:
    problems({"DATA_DIR": str(tmp_path / "data"), "PORT": "x"})
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("where", ["dev", "prod"])
def test_no_key_is_made_in_dev_and_prod(where: str, tmp_path: Path) -> None:
    problems(PROD | {"SYS_ENV": where, "SECRET_KEY": "", "DATA_DIR": str(tmp_path / "data")})
    assert not (tmp_path / "data").exists()


def test_no_key_is_made_when_one_is_given(tmp_path: Path) -> None:
    load(DATA_DIR=str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_a_data_dir_that_cannot_be_made_is_refused_with_all_else_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert list(problems({"DATA_DIR": str(tmp_path / "file" / "data"), "PORT": "x"})) == ["PORT", "DATA_DIR"]


def test_a_data_dir_that_cannot_be_written_to_is_refused() -> None:
    assert list(problems({"DATA_DIR": "/proc/berth"})) == ["DATA_DIR"]  # not even by root


def test_a_kept_key_needs_no_data_dir_that_can_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text(KEY)
    tmp_path.chmod(0o500)
    before = tmp_path.stat()
    assert settings.load({"DATA_DIR": str(tmp_path)}).secret_key == KEY
    assert tmp_path.stat().st_mtime_ns == before.st_mtime_ns  # root may write anywhere, and did not


@pytest.mark.parametrize("content", [b"", b"short-Xyzzy", b"\xff" * 40])
def test_a_kept_key_that_is_no_key_is_refused_and_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_bytes(content)
    said = problems({"DATA_DIR": str(tmp_path)})
    assert list(said) == ["DATA_DIR"]
    assert "Xyzzy" not in said["DATA_DIR"]
    assert (tmp_path / "secret_key").read_bytes() == content


# python settings.py


def test_the_table_lists_every_variable_with_type_default_value_and_source() -> None:
    result = command(PORT="81")
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["variable", *DEFAULTS]
    assert row(result.stdout, "PORT") == ["PORT", "int", "8000", "81", "environment"]
    assert row(result.stdout, "HOST") == ["HOST", "str", "0.0.0.0", "0.0.0.0", "default"]  # noqa: S104
    assert row(result.stdout, "MYSQL_HOST") == ["MYSQL_HOST", "str", "-", "-", "not", "set"]


def test_the_table_is_aligned() -> None:
    lines = command(PORT="81").stdout.splitlines()
    assert {line[lines[0].index("type") - 1] for line in lines} == {" "}
    assert {line[lines[0].index("source") - 1] for line in lines} == {" "}


def test_the_table_says_which_file_a_value_came_from(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("Xyzzy")
    result = command(MYSQL_PASSWORD_FILE=str(tmp_path / "secret"), ENV_FILE=env_file(tmp_path, "PORT=81\n"))
    assert row(result.stdout, "MYSQL_PASSWORD")[3:] == ["***", f"MYSQL_PASSWORD_FILE={tmp_path / 'secret'}"]
    assert row(result.stdout, "PORT")[3:] == ["81", "ENV_FILE"]
    assert "Xyzzy" not in result.stdout


def test_something_wrong_exits_78_with_the_table_and_every_problem() -> None:
    result = command(PORT="abc", LOG_LEVEL="x")
    assert result.returncode == os.EX_CONFIG == 78
    assert row(result.stdout, "PORT") == ["PORT", "int", "8000", "abc", "environment"]
    assert result.stdout.splitlines()[-2:] == list(refused(PORT="abc", LOG_LEVEL="x").values())


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_printed_right_or_wrong(name: str) -> None:
    for value in ("Xyzzy" * 10, "Xyzzy \x7f", "Xyzzy"):
        for more in ({}, {f"{name}_FILE": "/nowhere"}):
            result = command(**{name: value}, **more)
            assert "Xyzzy" not in result.stdout + result.stderr
            assert "***" in row(result.stdout, name)


IN_A_URL = [
    ("K_SINK", "https://sink/?access_token=Xyzzy"),
    ("K_SINK", "https://sink:8443/a?Xyzzy"),
    ("K_SINK", "https://Xyzzy@sink"),
    ("K_SINK", "https://sink/a#Xyzzy"),
    ("K_CE_OVERRIDES", '{"extensions": {"apikey": "Xyzzy", "a": "b"}}'),
    ("K_CE_OVERRIDES", '{"extensions": {"apikey": "Xyzzy"'),
    ("K_CE_OVERRIDES", "Xyzzy"),
    ("MYSQL_HOST", "mysql://db/berth?password=Xyzzy"),
    ("CORS_ORIGINS", "https://a.example,https://b.example?key=Xyzzy"),
    ("MYSQL_UNIX_SOCKET", "redis://Xyzzy@cache"),
]


@pytest.mark.parametrize(("name", "text"), IN_A_URL)
def test_what_may_hold_a_token_is_not_printed(name: str, text: str) -> None:
    reading = settings.TABLE.read({name: text, "SECRET_KEY": KEY})
    for shape in ("table", "json"):
        said = FORMATS[shape](settings.TABLE, reading)
        assert "***" in said
        assert "Xyzzy" not in said


def test_what_is_no_credential_of_a_url_is_printed() -> None:
    result = command(K_SINK="https://sink:8443/a?b=c", K_CE_OVERRIDES='{"extensions": {"tenant": "b"}}')
    assert row(result.stdout, "K_SINK")[3] == "https://sink:8443/a?***"
    assert '{"extensions": {"tenant": "***"}}' in result.stdout


MISPLACED = {
    "MYSQL_HOST": "mysql://ada:Xyzzy@db:3306/berth",
    "REDIS_HOST": "redis://:Xyz/zy@cache",
    "K_SINK": "http://ada:Xyzzy@sink",
    "CORS_ORIGINS": "https://ada:Xyzzy@app.example.com",
    "MYSQL_USERNAME": "ada:Xyzzy@db",
    "MYSQL_PASSWORD_FILE": "Xyzzy",
}


@pytest.mark.parametrize("name", MISPLACED)
def test_a_password_where_it_does_not_belong_is_not_printed(name: str) -> None:
    for shape in ("table", "json"):
        result = command("--format", shape, **{name: MISPLACED[name]})
        assert "***" in result.stdout
        assert "Xyz" not in result.stdout + result.stderr


def test_a_secret_that_goes_on_in_another_line_of_the_file_is_not_printed(tmp_path: Path) -> None:
    result = command(ENV_FILE=env_file(tmp_path, "MYSQL_PASSWORD=abc\nXyzzyXyzzy==\n"))
    assert "nothing reads a name that isn't in capitals of ENV_FILE" in result.stdout
    assert "Xyzzy" not in result.stdout + result.stderr


def test_control_characters_are_escaped() -> None:
    result = command(MYSQL_USERNAME="a\x1b[31m\nPORT b\u2028")
    assert "a\\x1b[31m\\nPORT b\\u2028" in result.stdout
    assert all(line.isprintable() for line in result.stdout.splitlines())


def test_any_terminal_can_take_the_table() -> None:
    result = command(MYSQL_USERNAME="zoé", PYTHONIOENCODING="ascii")
    assert (result.returncode, row(result.stdout, "MYSQL_USERNAME")[3]) == (0, "zo\\xe9")


def test_bytes_that_are_not_utf8_are_a_problem_and_no_traceback() -> None:
    result = command(MYSQL_USERNAME="a\udcff")
    assert (result.returncode, result.stderr) == (78, "")


def test_printing_makes_no_key(tmp_path: Path) -> None:
    result = command(DATA_DIR=str(tmp_path / "data"))
    assert row(result.stdout, "SECRET_KEY")[-5:] == ["made", "at", "start", "in", "DATA_DIR"]
    assert result.returncode == 0
    assert not (tmp_path / "data").exists()


def test_the_warning_is_printed_and_is_no_error() -> None:
    result = command(**PROD, ENV_FILE="/nowhere")
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "ENV_FILE is ignored: SYS_ENV is prod"


@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_tells_the_formats_and_reads_nothing(asked: str) -> None:
    result = command(asked, PORT="abc")
    assert (result.returncode, result.stderr) == (0, "")
    assert "python settings.py [--format table|json|env|markdown]" in result.stdout


def test_warnings_are_printed_beside_the_problems() -> None:
    warning = "nothing reads MYSQL_HSOT: is MYSQL_HOST meant?"
    result = command(MYSQL_HSOT="db", PORT="abc")
    assert result.stdout.splitlines()[-2:] == [warning, refused(PORT="abc")["PORT"]]
    document = json.loads(command("--format", "json", MYSQL_HSOT="db", PORT="abc").stdout)
    assert (document["warnings"], len(document["problems"])) == ([warning], 1)


def test_an_unknown_argument_is_a_usage_error() -> None:
    result = command("--help-me")
    assert (result.returncode, result.stdout) == (os.EX_USAGE, "")
    assert "usage: python settings.py" in result.stderr


@pytest.mark.parametrize("arguments", [["--format"], ["--format", "xml"], ["json"], ["--format", "json", "env"]])
def test_an_unknown_format_is_a_usage_error(arguments: list[str]) -> None:
    result = command(*arguments)
    assert (result.returncode, result.stdout) == (os.EX_USAGE, "")
    assert "table|json|env|markdown" in result.stderr


def test_json_tells_of_every_variable_what_the_table_tells_and_more() -> None:
    result = command("--format", "json", PORT="81", METRICS_TOKEN="Xyzzy")
    document = json.loads(result.stdout)
    told = {variable.pop("name"): variable for variable in document["variables"]}
    assert result.returncode == 0
    assert list(told) == list(DEFAULTS)
    assert told["PORT"] == {
        "type": "int",
        "default": "8000",
        "value": "81",
        "source": "environment",
        "meaning": settings.VARIABLES["PORT"].meaning,
        "expected": "an integer from 1 to 65535",
    }
    assert (told["K_SINK"]["default"], told["K_SINK"]["value"]) == (None, None)
    assert told["METRICS_TOKEN"]["value"] == "***"
    assert "Xyzzy" not in result.stdout
    assert (document["warnings"], document["problems"]) == ([], [])


def test_json_tells_every_problem_and_exits_78() -> None:
    result = command("--format", "json", PORT="abc")
    assert result.returncode == os.EX_CONFIG
    assert json.loads(result.stdout)["problems"] == [{"variable": "PORT", "text": refused(PORT="abc")["PORT"]}]


def test_the_template_is_env_example() -> None:
    assert command("--format", "env", PORT="abc").stdout == (ROOT / ".env.example").read_text(encoding="utf-8")


def test_the_template_changes_nothing_whether_commented_out_or_not(tmp_path: Path) -> None:
    template = as_env(settings.TABLE)
    plain = re.sub("(?m)^#(?=[A-Z_]+=)", "", template)
    assert re.findall("(?m)^([A-Z_]+)=", plain) == [name for name in DEFAULTS if name not in {"FAST", "ENV_FILE"}]
    for text in (template, plain):
        loaded = load(ENV_FILE=env_file(tmp_path, text))
        assert dataclasses.asdict(loaded) | {"env_file": None} == dataclasses.asdict(load())


def test_markdown_is_the_table_in_order() -> None:
    lines = command("--format", "markdown").stdout.splitlines()
    assert lines[:2] == ["| variable | default | meaning |", "| --- | --- | --- |"]
    assert [line.split("`")[1] for line in lines[2:]] == list(DEFAULTS)
    assert {line.count("|") for line in lines} == {4}


def test_markdown_says_which_words_are_expected() -> None:
    words = next(line for line in as_markdown(settings.TABLE).splitlines() if "`LOG_FORMAT`" in line)
    assert "one of json, gcp, ecs, console" in words


def test_the_page_has_the_table_as_it_is() -> None:
    assert as_markdown(settings.TABLE) in (ROOT / "docs/variables.md").read_text(encoding="utf-8")
