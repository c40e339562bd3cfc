"""Every environment variable, typed, in one place; `python settings.py` prints them and says what is wrong."""
# ruff: noqa: RUF009 - variable() makes a dataclass field

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from infra.base.kinds import (
    BOOL,
    CERTIFICATES,
    COUNT,
    FILE,
    HOST,
    HOSTS,
    KEY,
    KEYS,
    NAMES,
    ORIGINS,
    OVERRIDES,
    PATH,
    PORT,
    PROXIES,
    RATE,
    SECONDS,
    SECRET,
    SINK,
    TEXT,
    TOKEN,
    RateLimit,
    integer,
    one_of,
    seconds,
)
from infra.base.rules import DAY, believes_anyone, is_elsewhere, odd_lifetimes, odd_rates, weak_secrets, wrong_pair
from infra.base.settings_command import main
from infra.base.variables import MadeAtStart, Reading, Table, variable

NAME = "berth"  # a DNS label; of logs, metrics, the token issuer, the database, keys in Redis
VERSION = "0.1.0"  # `make release VERSION=...` changes it here and wherever else it stands
# only with accounts:
DESCRIPTION = "Accounts and sessions. Register, log in, and send the access_token as a bearer token."
# end only
# without accounts: DESCRIPTION = "Berth's API."
EVENTS = f"dev.{NAME}"  # how the types of events begin

IDENTIFIER = NAME.replace("-", "_")
SYS_ENV = one_of("local dev test prod")
ON_OFF = one_of("on off", str.lower)
LOG_LEVEL = one_of("DEBUG INFO WARNING ERROR CRITICAL", str.upper)
LOG_FORMAT = one_of("json gcp ecs console", str.lower)
LOG_FORMAT_DEFAULT = "json; with K_SERVICE: gcp; local, on a terminal: console"
SSL_MODE = one_of("disabled preferred required verify_ca verify_identity", str.lower)
# only with accounts:
SENSIBLE_LIFETIMES = {
    "ACCESS_TOKEN_TTL": (30, DAY), "REFRESH_TOKEN_TTL": (3600, 400 * DAY), "SESSION_MAX_AGE": (3600, 400 * DAY)
}  # fmt: skip
# end only
# What compose.yaml, and compose itself, read from .env.
FOREIGN = rf"{IDENTIFIER.upper()}_\w+|COMPOSE_\w+|DOCKER_\w+|MYSQL_ROOT_\w+|MYSQL_USER|TZ"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settings:
    """A field for each variable, of the same name in lower case."""

    name: ClassVar[str] = NAME
    version: ClassVar[str] = VERSION

    sys_env: str = variable("local", SYS_ENV, "the kind of environment; prod is the strictest")
    debug: bool = variable(None, BOOL, "error details in responses; not in prod", "local, dev: true; test, prod: false")
    host: str = variable("0.0.0.0", HOST, "address to listen on")  # noqa: S104 - containers are reached from outside
    port: int = variable("8000", PORT, "port to listen on; Cloud Run and Knative inject it")

    mysql_host: str | None = variable(
        None, HOST, "required in dev and prod (or MYSQL_UNIX_SOCKET); else SQLite in DATA_DIR"
    )
    mysql_port: int = variable("3306", PORT, "of the primary and the replica")
    mysql_database: str = variable(IDENTIFIER, TEXT, "name of the database")
    mysql_username: str = variable(IDENTIFIER, TEXT, "whom to log in as")
    mysql_password: str | None = variable(None, SECRET, "required in dev and prod")
    mysql_read_host: str | None = variable(None, HOST, "a replica for reads that may lag; falls back to the primary")
    mysql_pool_min_size: int = variable("1", integer(0), "connections kept open, per process")
    mysql_pool_max_size: int = variable("30", COUNT, "connections at most, per process")
    mysql_pool_timeout: float = variable("5", SECONDS, "seconds to wait for a free connection")
    mysql_pool_recycle: float = variable("1800", SECONDS, "age in seconds at which a connection is replaced")
    mysql_connect_timeout: float = variable("5", SECONDS, "seconds to connect and log in")
    mysql_query_timeout: float = variable("10", SECONDS, "seconds for one query")
    mysql_ssl_mode: str = variable("preferred", SSL_MODE, "preferred: TLS when the server offers it")
    mysql_ssl_ca: Path | None = variable(None, CERTIFICATES, "CA file for verify_ca and verify_identity, which need it")
    mysql_ssl_cert: Path | None = variable(None, CERTIFICATES, "client certificate, where the server asks for one")
    mysql_ssl_key: Path | None = variable(None, FILE, "private key of MYSQL_SSL_CERT, without a passphrase")
    mysql_unix_socket: str | None = variable(None, TEXT, "instead of host and port; Cloud SQL mounts one")
    mysql_init_command: str | None = variable(None, TEXT, "a statement for each new connection, after Berth's own")
    mysql_slow_query: float = variable("0.5", SECONDS, "seconds after which a query is logged with type sql")

    redis_host: str | None = variable(None, HOST, "required in dev and prod; unset in local, test: no shared cache")
    redis_port: int = variable("6379", PORT, "of Redis, or of the cluster's first node")
    redis_db: int = variable("0", integer(0), "database number; a cluster has only 0")
    redis_username: str | None = variable(None, TEXT, "whom to log in as, where Redis has ACL users")
    redis_password: str | None = variable(None, SECRET, "where Redis asks for one")
    redis_ssl: bool = variable("false", BOOL, "TLS, with the certificate verified")
    redis_ssl_ca: Path | None = variable(
        None, CERTIFICATES, "CA file that REDIS_SSL verifies against instead of the system's"
    )
    redis_ssl_cert: Path | None = variable(None, CERTIFICATES, "client certificate, where Redis asks for one")
    redis_ssl_key: Path | None = variable(None, FILE, "private key of REDIS_SSL_CERT, without a passphrase")
    redis_cluster: bool = variable("false", BOOL, "REDIS_HOST is a node of a Redis Cluster")
    redis_max_connections: int = variable("50", COUNT, "connections at most, per process")
    redis_timeout: float = variable("1", SECONDS, "seconds for one command")

    secret_key: str = variable(None, KEY, "signs tokens; required in dev and prod", "local, test: kept in DATA_DIR")
    secret_key_previous: tuple[str, ...] = variable("", KEYS, "other keys whose tokens are accepted")
    access_token_ttl: int = variable("900", COUNT, "seconds an access token lives")
    refresh_token_ttl: int = variable("2592000", COUNT, "seconds a refresh token lives")
    session_max_age: int = variable("7776000", COUNT, "seconds a session lives at most, however often it is refreshed")
    max_sessions: int = variable("50", COUNT, "sessions of one account; the one unused longest makes room")
    login_rate_limit: RateLimit = variable("10/300", RATE, "failed attempts / seconds, per account and per client")
    register_rate_limit: RateLimit = variable("20/3600", RATE, "registrations, changes of names / seconds, per client")
    refresh_rate_limit: RateLimit = variable("60/60", RATE, "refreshes / seconds, per session")
    reserved_usernames: tuple[str, ...] = variable("", NAMES, "names that nobody can register, whatever their case")

    fast: str = variable("on", ON_OFF, "off: nothing bends another package; not from ENV_FILE", from_file=False)

    log_level: str = variable("INFO", LOG_LEVEL, "the lowest severity written")
    log_format: str = variable(None, LOG_FORMAT, "shape of a log line", LOG_FORMAT_DEFAULT)
    no_color: str | None = variable(None, TEXT, "any value: console lines without colour even on a terminal")

    startup_timeout: float = variable("30", SECONDS, "seconds to reach the database and Redis at start")
    shutdown_delay: float = variable("0", seconds(0), "seconds that requests are still accepted after SIGTERM")
    shutdown_timeout: float = variable("8", SECONDS, "seconds that requests in flight may take after that")
    max_body_bytes: int = variable("1048576", COUNT, "bytes of a request body; a larger one is answered 413")
    request_timeout: float = variable("30", SECONDS, "seconds to answer a request; a slower one is answered 504")
    max_concurrency: int = variable("1000", COUNT, "requests at once; more get 503, /health never does")
    max_connections: int = variable("2000", COUNT, "connections at once; over it only /health is answered")
    max_connections_per_client: int = variable(
        "256", COUNT, "of them from one address (IPv6: /64); those in FORWARDED_ALLOW_IPS may have more"
    )
    keep_alive: float = variable("75", SECONDS, "seconds an idle connection stays open; longer than the proxy's")

    cors_origins: tuple[str, ...] = variable("", ORIGINS, "origins whose pages may call from a browser")
    allowed_hosts: tuple[str, ...] = variable("*", HOSTS, "values of the Host header that are answered")
    forwarded_allow_ips: str = variable("127.0.0.1", PROXIES, "proxies whose X-Forwarded headers are believed")
    docs_enabled: bool = variable(None, BOOL, "serve /docs and /openapi.json", "local, dev, test: true; prod: false")
    metrics_token: str | None = variable(None, TOKEN, "bearer token for /metrics, which is 404 in prod without one")
    events_token: str | None = variable(None, TOKEN, "bearer token for /v1/events and /v1/auth/introspect")

    google_cloud_project: str | None = variable(None, TEXT, "makes trace names in gcp logs full resource names")
    k_service: str | None = variable(None, TEXT, "name of the service; set by Cloud Run and Knative")
    k_revision: str | None = variable(None, TEXT, "name of the revision; set by Cloud Run and Knative")
    k_sink: str | None = variable(None, SINK, "where domain events go, as CloudEvents; unset: none are made")
    k_ce_overrides: dict[str, str] = variable("{}", OVERRIDES, "attributes that each event gets")
    data_dir: Path = variable("./data", PATH, "where local and test keep SQLite's file and the secret key")
    env_file: Path | None = variable(None, PATH, "file of variables for local use; real ones win; ignored in prod")

    warnings: tuple[str, ...] = ()

    @property
    def mysql_enabled(self) -> bool:
        return bool(self.mysql_host or self.mysql_unix_socket)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for the logs to blot out."""
        held = [getattr(self, name.lower()) for name, line in VARIABLES.items() if line.kind.type == "secret"]
        return tuple(text for value in held for text in ((value,) if isinstance(value, str) else value or ()))


def defaults(texts: Mapping[str, str]) -> dict[str, str | MadeAtStart]:
    """Those that follow from other variables."""
    where = texts.get("SYS_ENV", "local")
    on_a_terminal = where == "local" and sys.stdout.isatty()
    own: dict[str, str | MadeAtStart] = {
        "DEBUG": "true" if where in {"local", "dev"} else "false",
        "DOCS_ENABLED": "false" if where == "prod" else "true",
        "LOG_FORMAT": "gcp" if "K_SERVICE" in texts else "console" if on_a_terminal else "json",
    }
    own |= {"SECRET_KEY": MadeAtStart("DATA_DIR")} if where in {"local", "test"} else {}  # only with accounts
    return own


def rules(reading: Reading) -> Iterator[tuple[str, str]]:
    """What one variable asks of another; nothing is said of a variable that was refused already."""
    values = reading.values
    where, most = values["SYS_ENV"], values["MYSQL_POOL_MAX_SIZE"]
    # only with accounts:
    if where in {"dev", "prod"}:
        for name in ("MYSQL_HOST", "MYSQL_PASSWORD", "REDIS_HOST", "SECRET_KEY"):
            if not reading.found(name) and (name != "MYSQL_HOST" or not reading.found("MYSQL_UNIX_SOCKET")):
                yield name, f"{VARIABLES[name].kind.expected}, since SYS_ENV is {where}"
    # end only
    if where == "prod":
        yield from ((name, f"{expected}, since SYS_ENV is prod") for name, expected in rules_of_prod(reading))
    if most is not None and (values["MYSQL_POOL_MIN_SIZE"] or 0) > most:
        yield "MYSQL_POOL_MIN_SIZE", f"at most MYSQL_POOL_MAX_SIZE, which is {most}"
    yield from tls_rules(reading)
    if values["REDIS_CLUSTER"] and values["REDIS_DB"]:
        yield "REDIS_DB", "0, since REDIS_CLUSTER is true"


def tls_rules(reading: Reading) -> Iterator[tuple[str, str]]:
    values, found = reading.values, reading.found
    mode = values["MYSQL_SSL_MODE"]
    if mode in {"verify_ca", "verify_identity"} and not found("MYSQL_SSL_CA"):
        yield "MYSQL_SSL_CA", f"a readable file, since MYSQL_SSL_MODE is {mode}"
    if mode == "disabled" and found("MYSQL_SSL_CERT"):
        yield "MYSQL_SSL_MODE", "another word, since MYSQL_SSL_CERT is set"
    if values["REDIS_SSL"] is False and found("REDIS_SSL_CERT"):
        yield "REDIS_SSL", "true, since REDIS_SSL_CERT is set"
    yield from wrong_pair(reading, "MYSQL_SSL_CERT", "MYSQL_SSL_KEY")
    yield from wrong_pair(reading, "REDIS_SSL_CERT", "REDIS_SSL_KEY")


def rules_of_prod(reading: Reading) -> Iterator[tuple[str, str]]:
    """Nothing that tells strangers too much, and no secret that they know or guess."""
    if reading.values["DEBUG"]:
        yield "DEBUG", "false"
    # only with accounts:
    if "," in (reading.values["SECRET_KEY"] or ""):  # it could not be replaced: among several a comma divides
        yield "SECRET_KEY", "a key without a comma"
    # end only
    yield from weak_secrets(reading)


def cautions(reading: Reading) -> Iterator[str]:
    """What production seldom means."""
    values = reading.values
    if values["SYS_ENV"] != "prod":
        return
    if believes_anyone(values["FORWARDED_ALLOW_IPS"] or ""):
        yield "FORWARDED_ALLOW_IPS takes in everyone: any client may say which address it has, and escapes every limit"
    if "*" in (values["CORS_ORIGINS"] or ()):
        yield "CORS_ORIGINS is *: any page on the web may call from a browser"
    yield from cautions_of_tls(values)
    yield from odd_rates(reading)
    yield from odd_lifetimes(reading, SENSIBLE_LIFETIMES)  # only with accounts


def cautions_of_tls(values: Mapping[str, Any]) -> Iterator[str]:
    if is_elsewhere(values["MYSQL_HOST"]) and values["MYSQL_SSL_MODE"] in {"disabled", "preferred", "required"}:
        yield f"MYSQL_SSL_MODE is {values['MYSQL_SSL_MODE']}: whoever is between here and MySQL may be taken for it"
    if is_elsewhere(values["REDIS_HOST"]) and values["REDIS_SSL"] is False:
        yield "REDIS_SSL is false: whoever is between here and Redis can read and change what is sent"


TABLE = Table(Settings, defaults, rules, cautions, file="ENV_FILE", file_ignored=("SYS_ENV", "prod"), foreign=FOREIGN)
VARIABLES = TABLE.variables
load = TABLE.load

if __name__ == "__main__":
    sys.exit(main(TABLE, sys.argv[1:]))
