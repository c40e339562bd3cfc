"""TLS to MySQL in each of MySQL's five words, and to Redis."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.conftest import TEST_SETTINGS, StartService
from tests.support.servers import MariaDB, Redis, Server
from tests.support.service import Service, refusal, run_app

Environment = dict[str, Any]

DEMANDING = ["required", "verify_ca", "verify_identity"]


@pytest.fixture(scope="module")
def with_tls() -> Iterator[MariaDB]:
    """A server that lets berth in with and without TLS, and berth_tls only with it."""
    with MariaDB(tls=True) as server:
        server.sql("CREATE USER berth_tls@'%%' IDENTIFIED BY %s REQUIRE SSL", server.password)
        server.sql("GRANT ALL ON `berth%`.* TO berth_tls@'%'")
        yield server


@pytest.fixture(scope="module")
def other_name() -> Iterator[MariaDB]:
    """Its certificate is signed by its CA, but for another host."""
    with MariaDB(tls=True, names="DNS:database.example.com") as server:
        yield server


@pytest.fixture(scope="module")
def redis_with_tls() -> Iterator[Redis]:
    with Redis(tls=True) as server:
        yield server


def settings_for(server: MariaDB, mode: str, ca: Path | None = None, *, username: str = "berth") -> Environment:
    env = server.environment(server.create_database()) | {"MYSQL_SSL_MODE": mode, "MYSQL_USERNAME": username}
    return env | ({"MYSQL_SSL_CA": str(ca)} if ca else {})


def migrate_and_start(start_service: StartService, env: Environment) -> Service:
    done = run_app("migrate", env={**TEST_SETTINGS, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    service = start_service(**env)
    assert ready(service) == (200, "ok")
    return service


def ready(service: Service) -> tuple[int, str]:
    answer = service.client.get("/health/ready")
    return answer.status_code, answer.json()["status"]


def tls_handshakes(server: MariaDB) -> int:
    connection = pymysql.connect(unix_socket=str(server.unix_socket), user="root", ssl_disabled=True)
    with connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Ssl_finished_accepts'")
        [(_, count)] = cursor.fetchall()
        return int(count)


# MySQL


@pytest.mark.parametrize("mode", ["preferred", *DEMANDING])
def test_every_word_but_disabled_uses_the_tls_that_a_server_offers(
    start_service: StartService, with_tls: MariaDB, mode: str
) -> None:
    ca = with_tls.ca if mode.startswith("verify") else None
    migrate_and_start(start_service, settings_for(with_tls, mode, ca, username="berth_tls")).sign_up()


def test_disabled_uses_no_tls_though_the_server_offers_it(start_service: StartService, with_tls: MariaDB) -> None:
    env = settings_for(with_tls, "disabled")
    before = tls_handshakes(with_tls)
    migrate_and_start(start_service, env)
    assert tls_handshakes(with_tls) == before


def test_disabled_is_refused_by_an_account_that_requires_tls(with_tls: MariaDB) -> None:
    message = refusal(settings_for(with_tls, "disabled", username="berth_tls"))
    assert "Access denied" in message
    assert message.endswith("look at MYSQL_USERNAME and MYSQL_PASSWORD, MYSQL_SSL_MODE and MYSQL_SSL_CERT")


def test_disabled_is_refused_by_a_server_that_requires_tls(with_tls: MariaDB) -> None:
    with_tls.sql("SET GLOBAL require_secure_transport = ON")
    try:
        message = refusal(settings_for(with_tls, "disabled"))
    finally:
        with_tls.sql("SET GLOBAL require_secure_transport = OFF")
    assert "MYSQL_SSL_MODE" in message.partition("look at ")[2]


@pytest.mark.parametrize("mode", ["disabled", "preferred"])
def test_disabled_and_preferred_take_plain_text_from_a_server_without_tls(
    start_service: StartService, mariadb: MariaDB, mode: str
) -> None:
    migrate_and_start(start_service, settings_for(mariadb, mode))


@pytest.mark.parametrize("arguments", [(), ("migrate",)], ids=["serve", "migrate"])
@pytest.mark.parametrize("mode", DEMANDING)
def test_the_other_words_refuse_a_server_without_tls(
    mariadb: MariaDB, with_tls: MariaDB, mode: str, arguments: tuple[str, ...]
) -> None:
    env = settings_for(mariadb, mode, with_tls.ca)
    assert "MYSQL_SSL_MODE requires TLS" in refusal(env, *arguments)


@pytest.mark.parametrize("mode", ["verify_ca", "verify_identity"])
def test_a_certificate_of_another_ca_is_refused(with_tls: MariaDB, other_name: MariaDB, mode: str) -> None:
    message = refusal(settings_for(with_tls, mode, other_name.ca))
    assert "CERTIFICATE_VERIFY_FAILED" in message
    assert message.endswith("look at MYSQL_SSL_CA and MYSQL_HOST")


def test_verify_identity_refuses_a_certificate_for_another_name(other_name: MariaDB) -> None:
    assert "IP address mismatch" in refusal(settings_for(other_name, "verify_identity", other_name.ca))


def test_verify_identity_is_meant_for_migrations_too(other_name: MariaDB) -> None:
    assert "IP address mismatch" in refusal(settings_for(other_name, "verify_identity", other_name.ca), "migrate")


@pytest.mark.parametrize("mode", ["required", "verify_ca"])
def test_the_other_words_take_a_certificate_for_another_name(
    start_service: StartService, other_name: MariaDB, mode: str
) -> None:
    migrate_and_start(start_service, settings_for(other_name, mode, other_name.ca))


def test_a_ca_file_without_a_certificate_is_a_wrong_setting(with_tls: MariaDB, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    message = refusal(settings_for(with_tls, "verify_ca", tmp_path / "ca.pem"))
    assert message.startswith("MYSQL_SSL_CA is ")


# A client's certificate


@pytest.fixture(scope="module")
def redis_that_asks() -> Iterator[Redis]:
    """Only for who has a certificate of its CA."""
    with Redis(tls=True, asks_clients=True) as server:
        yield server


def certificate_for(name: str, server: Server, key: Path | None = None) -> Environment:
    """A client may have the server's own: it is of the same CA."""
    return {f"{name}_SSL_CERT": str(server.certificate), f"{name}_SSL_KEY": str(key or server.key)}


@pytest.fixture(scope="module")
def asking(with_tls: MariaDB) -> Environment:
    """Settings for an account that only a certificate of the server's CA lets in."""
    with_tls.sql("CREATE USER berth_x509@'%%' IDENTIFIED BY %s REQUIRE X509", with_tls.password)
    with_tls.sql("GRANT ALL ON `berth%`.* TO berth_x509@'%'")
    return settings_for(with_tls, "verify_identity", with_tls.ca, username="berth_x509")


def test_mysql_lets_in_who_has_the_certificate_that_it_asks_for(
    start_service: StartService, with_tls: MariaDB, asking: Environment
) -> None:
    migrate_and_start(start_service, asking | certificate_for("MYSQL", with_tls)).sign_up()


@pytest.mark.parametrize("arguments", [(), ("migrate",)], ids=["serve", "migrate"])
def test_mysql_refuses_who_has_no_certificate(asking: Environment, arguments: tuple[str, ...]) -> None:
    message = refusal(asking, *arguments)
    assert "Access denied" in message
    assert message.endswith("look at MYSQL_USERNAME and MYSQL_PASSWORD, MYSQL_SSL_MODE and MYSQL_SSL_CERT")


@pytest.mark.parametrize("arguments", [(), ("migrate",)], ids=["serve", "migrate"])
def test_mysql_refuses_a_certificate_of_another_ca(
    asking: Environment, other_name: MariaDB, arguments: tuple[str, ...]
) -> None:
    message = refusal(asking | certificate_for("MYSQL", other_name), *arguments)
    assert message.endswith("look at MYSQL_SSL_CERT and MYSQL_SSL_KEY")


def test_redis_lets_in_who_has_the_certificate_that_it_asks_for(
    start_service: StartService, redis_that_asks: Redis
) -> None:
    service = start_service(**redis_over_tls(redis_that_asks), **certificate_for("REDIS", redis_that_asks))
    assert ready(service) == (200, "ok")


def test_redis_refuses_who_has_no_certificate(redis_that_asks: Redis) -> None:
    message = refusal(redis_over_tls(redis_that_asks))
    assert message.endswith("look at REDIS_SSL_CERT and REDIS_SSL_KEY")


def test_redis_refuses_a_certificate_of_another_ca(redis_that_asks: Redis, other_name: MariaDB) -> None:
    message = refusal(redis_over_tls(redis_that_asks) | certificate_for("REDIS", other_name))
    assert message.endswith("look at REDIS_SSL_CERT and REDIS_SSL_KEY")


def test_a_key_of_another_certificate_ends_the_start(with_tls: MariaDB, other_name: MariaDB) -> None:
    wrong = settings_for(with_tls, "required") | certificate_for("MYSQL", with_tls, other_name.key)
    assert refusal(wrong).startswith(f"MYSQL_SSL_KEY is '{other_name.key}': expected the private key of MYSQL_SSL_CERT")


# Redis


def redis_over_tls(server: Redis) -> Environment:
    return {**server.environment(), "REDIS_SSL": "true", "REDIS_SSL_CA": str(server.ca)}


def test_redis_over_tls_is_used_when_its_ca_is_known(start_service: StartService, redis_with_tls: Redis) -> None:
    assert ready(start_service(**redis_over_tls(redis_with_tls))) == (200, "ok")


def test_redis_over_tls_is_refused_when_the_system_does_not_know_its_ca(redis_with_tls: Redis) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in refusal(redis_with_tls.environment() | {"REDIS_SSL": "true"})


def test_redis_over_tls_is_refused_when_another_ca_signed_it(redis_with_tls: Redis, with_tls: MariaDB) -> None:
    env = redis_with_tls.environment() | {"REDIS_SSL": "true", "REDIS_SSL_CA": str(with_tls.ca)}
    message = refusal(env)
    assert "CERTIFICATE_VERIFY_FAILED" in message
    assert message.endswith("look at REDIS_SSL_CA and REDIS_HOST")


def test_a_ca_file_of_redis_without_a_certificate_is_a_wrong_setting(redis_with_tls: Redis, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    env = redis_with_tls.environment() | {"REDIS_SSL": "true", "REDIS_SSL_CA": str(tmp_path / "ca.pem")}
    assert refusal(env).startswith("REDIS_SSL_CA is ")


def test_redis_ssl_refuses_a_redis_without_tls(redis: Redis, redis_with_tls: Redis) -> None:
    env = redis.environment() | {"REDIS_SSL": "true", "REDIS_SSL_CA": str(redis_with_tls.ca)}
    assert f"Redis at 127.0.0.1:{redis.port} can't be reached" in refusal(env, status=os.EX_UNAVAILABLE)
