"""Every environment variable, typed, in one place; `python settings.py` prints them and says what is wrong."""
# ruff: noqa: RUF009 - variable() makes a dataclass field

import dataclasses
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from infra.fast.lean_imports import late_patterns

with late_patterns("marshmallow.validate"):  # one for email addresses takes 20 ms
    from dotenv.parser import parse_stream
    from environs import Env, EnvError, EnvValidationError

NAME = "berth"  # a DNS label: of logs, keys, metrics, the token issuer, the database
VERSION = "0.1.0"
DESCRIPTION = "Accounts and sessions. Register, log in, and send the access_token as a bearer token."
EVENTS = f"dev.{NAME}"  # how the types of events begin

NOT_SET, MADE_AT_START = "not set", "made at start in DATA_DIR"
HOST_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,253}"
IPV6 = r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"
ORIGIN = (
    rf"\*|https?://({HOST_NAME.replace('A-Z', '')}|\[{IPV6}\])(:[0-9]{{1,5}})?"  # as browsers send it: in lower case
)
URL = rf"https?://({HOST_NAME}|\[{IPV6}\])(:[0-9]{{1,5}})?(/[!\"$-~]*)?"
UTF8 = r"[^\0\ud800-\udfff]*"  # bytes that aren't UTF-8 reach os.environ as lone surrogates, which nothing can encode


class Kind(NamedTuple):
    """What values look like: those that match the pattern and that `make` accepts."""

    type: str
    expected: str
    pattern: str
    make: Callable[[str], Any] = str


class Variable(NamedTuple):
    default: str | None
    kind: Kind
    meaning: str
    shown_default: str


class RateLimit(NamedTuple):
    attempts: int
    seconds: int


class Problem(NamedTuple):
    variable: str
    text: str


class SettingsError(Exception):
    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(problem.text for problem in problems))
        self.problems = problems


def number(type_: Callable[[str], Any], low: float, high: int, what: str, pattern: str = "[0-9]{1,10}") -> Kind:
    def make(text: str) -> Any:
        if not low <= type_(text) <= high:
            raise ValueError
        return type_(text)

    return Kind(type_.__name__, f"{what} from {low} to {high}", pattern, make)


def integer(low: int, high: int = 2**31 - 1) -> Kind:
    return number(int, low, high, "an integer")


def seconds(low: float) -> Kind:
    # The longest is what a signed 32-bit count of milliseconds holds, as poll() and MySQL's max_execution_time take it.
    return number(float, low, 2_147_483, "a number of seconds", r"[0-9]{1,10}(\.[0-9]{1,10})?")


def one_of(words: str, fold: Callable[[str], str] = str) -> Kind:
    pattern = words.replace(" ", "|")
    return Kind("str", "one of " + words.replace(" ", ", "), pattern if fold is str else f"(?i:{pattern})", fold)


def several(item: str, expected: str) -> Kind:
    return Kind("list", f"{expected}, comma-separated", f"(({item})( *, *({item}))*)?", items)


def items(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def proxies(text: str) -> str:
    # Strict: uvicorn takes "10.0.0.1/8" for a name, and no client has it.
    return text if text == "*" else ",".join(part for part in items(text) if ip_network(part))


def readable(text: str) -> Path:
    with Path(text).open("rb") as file:
        file.read(1)
    return Path(text)


def key(text: str) -> str:
    if len(text.encode()) < 32:
        raise EnvError("too short")
    return text


def keys(text: str) -> tuple[str, ...]:
    return tuple(key(part) for part in items(text))


def rate(text: str) -> RateLimit:
    return RateLimit(*map(int, text.split("/")))


def extensions(text: str) -> dict[str, str]:
    """CloudEvents attributes: https://github.com/knative/specs/blob/main/specs/eventing/overview.md#sink-binding"""
    try:
        found = json.loads(text).get("extensions") or {}
        if all(re.fullmatch("[a-z0-9]+", name) and isinstance(value, str) for name, value in found.items()):
            return dict(found)
    except (AttributeError, RecursionError):
        pass  # no object where there has to be one
    raise ValueError


# A newline at the end of a name, as `echo` puts it into Kubernetes secrets, is a mistake that nobody sees.
TEXT = Kind("str", "text without control characters", r"[^\0-\x1f\x7f-\x9f\ud800-\udfff]+")
BOOL = Kind("bool", "true or false (yes, no, on, off, 1, 0)", "")  # environs' own words
PATH = Kind("path", "a path", TEXT.pattern, Path)
FILE = Kind("path", "a readable file", TEXT.pattern, readable)
HOST = Kind("str", "a host name or an IP address", f"{HOST_NAME}|{IPV6}")
ORIGINS = several(ORIGIN, "origins like https://app.example.com, or *")
HOSTS = several(rf"\*|(\*\.)?{HOST_NAME}|\[{IPV6}\]", "host names, *.example.com, or *")
PROXIES = Kind("str", "IP addresses or networks, comma-separated, or *", r"\*|[0-9A-Fa-f:./, ]+", proxies)
SINK = Kind("str", "an http:// or https:// URL without a user and password", URL)
OVERRIDES = Kind("json", 'JSON like {"extensions": {"name": "value"}}', UTF8, extensions)
RATE = Kind("rate", "attempts/seconds, like 10/300", "[1-9][0-9]{0,8}/[1-9][0-9]{0,8}", rate)
SECRET = Kind("secret", "UTF-8 text", UTF8)
KEY = Kind("secret", "at least 32 bytes", UTF8, key)
KEYS = Kind("secret", "keys of at least 32 bytes, comma-separated", UTF8, keys)
TOKEN = Kind("secret", "printable ASCII without blanks", "[!-~]+")
PORT, COUNT, SECONDS = integer(1, 65535), integer(1), seconds(0.001)
LOG_LEVEL = one_of("DEBUG INFO WARNING ERROR CRITICAL", str.upper)
LOG_FORMAT = one_of("json gcp ecs console", str.lower)
SSL_MODE = one_of("disabled preferred required verify_ca verify_identity", str.lower)


def variable(default: str | None, kind: Kind, meaning: str, shown_default: str | None = None) -> Any:
    line = Variable(default, kind, meaning, shown_default or default or "-")
    return dataclasses.field(repr=kind.type != "secret", metadata={"variable": line})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settings:
    """A field for each variable, of the same name in lower case."""

    sys_env: str = variable("local", one_of("local dev test prod"), "the kind of environment; prod is the strictest")
    debug: bool = variable(None, BOOL, "error details in responses; not in prod", "local, dev: true; test, prod: false")
    host: str = variable("0.0.0.0", HOST, "address to listen on")  # noqa: S104 - containers are reached from outside
    port: int = variable("8000", PORT, "port to listen on; Cloud Run and Knative inject it")

    mysql_host: str | None = variable(
        None, HOST, "required in dev and prod (or MYSQL_UNIX_SOCKET); else SQLite in DATA_DIR"
    )
    mysql_port: int = variable("3306", PORT, "of the primary and the replica")
    mysql_database: str = variable("berth", TEXT, "name of the database")
    mysql_username: str = variable("berth", TEXT, "whom to log in as")
    mysql_password: str | None = variable(None, SECRET, "required in dev and prod")
    mysql_read_host: str | None = variable(None, HOST, "a replica for reads that may lag; falls back to the primary")
    mysql_pool_min_size: int = variable("1", integer(0), "connections kept open, per process")
    mysql_pool_max_size: int = variable("30", COUNT, "connections at most, per process")
    mysql_pool_timeout: float = variable("5", SECONDS, "seconds to wait for a free connection")
    mysql_pool_recycle: float = variable("1800", SECONDS, "age in seconds at which a connection is replaced")
    mysql_connect_timeout: float = variable("5", SECONDS, "seconds to connect and log in")
    mysql_query_timeout: float = variable("10", SECONDS, "seconds for one query")
    mysql_ssl_mode: str = variable("preferred", SSL_MODE, "preferred: TLS when the server offers it")
    mysql_ssl_ca: Path | None = variable(None, FILE, "CA file for verify_ca and verify_identity, which need it")
    mysql_unix_socket: str | None = variable(None, TEXT, "instead of host and port; Cloud SQL mounts one")
    mysql_slow_query: float = variable("0.5", SECONDS, "seconds after which a query is logged with type sql")

    redis_host: str | None = variable(None, HOST, "required in dev and prod; unset in local, test: no shared cache")
    redis_port: int = variable("6379", PORT, "of Redis, or of the cluster's first node")
    redis_db: int = variable("0", integer(0), "database number; a cluster has only 0")
    redis_username: str | None = variable(None, TEXT, "whom to log in as, where Redis has ACL users")
    redis_password: str | None = variable(None, SECRET, "where Redis asks for one")
    redis_ssl: bool = variable("false", BOOL, "TLS, with the certificate verified")
    redis_ssl_ca: Path | None = variable(None, FILE, "CA file that REDIS_SSL verifies against instead of the system's")
    redis_cluster: bool = variable("false", BOOL, "REDIS_HOST is a node of a Redis Cluster")
    redis_max_connections: int = variable("50", COUNT, "connections at most, per process")
    redis_timeout: float = variable("1", SECONDS, "seconds for one command")

    secret_key: str = variable(None, KEY, "signs tokens; required in dev and prod", "local, test: kept in DATA_DIR")
    secret_key_previous: tuple[str, ...] = variable("", KEYS, "old keys, whose tokens are still accepted")
    access_token_ttl: int = variable("900", COUNT, "seconds an access token lives")
    refresh_token_ttl: int = variable("2592000", COUNT, "seconds a refresh token lives")
    login_rate_limit: RateLimit = variable("10/300", RATE, "failed attempts / seconds, per account and per client")

    log_level: str = variable("INFO", LOG_LEVEL, "the lowest severity written")
    log_format: str = variable(None, LOG_FORMAT, "shape of a log line", "json; with K_SERVICE: gcp")
    no_color: str | None = variable(None, TEXT, "any value: console lines without colour even on a terminal")

    startup_timeout: float = variable("30", SECONDS, "seconds to reach the database and Redis at start")
    shutdown_delay: float = variable("0", seconds(0), "seconds that requests are still accepted after SIGTERM")
    shutdown_timeout: float = variable("8", SECONDS, "seconds that requests in flight may take after that")
    max_body_bytes: int = variable("1048576", COUNT, "bytes of a request body; a larger one is answered 413")
    request_timeout: float = variable("30", SECONDS, "seconds to answer a request; a slower one is answered 504")
    max_concurrency: int = variable("1000", COUNT, "requests at once; more get 503, /health never does")

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
    name: ClassVar[str] = NAME
    version: ClassVar[str] = VERSION

    @property
    def mysql_enabled(self) -> bool:
        return bool(self.mysql_host or self.mysql_unix_socket)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for the logs to blot out."""
        held = [getattr(self, name.lower()) for name, line in VARIABLES.items() if line.kind.type == "secret"]
        return tuple(text for value in held for text in ((value,) if isinstance(value, str) else value or ()))


VARIABLES: dict[str, Variable] = {
    field.name.upper(): field.metadata["variable"]
    for field in dataclasses.fields(Settings)
    if "variable" in field.metadata
}


class Environment(Env):
    """environs reads os.environ before anything else; this reads only the mapping that it is given."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        super().__init__(eager=False)
        self.texts = texts
        self.add_parser("parsed", parse)

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self.texts.get(env_key, default)


@dataclasses.dataclass
class Reading:
    """What was found, and what is wrong with it."""

    texts: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    sources: dict[str, str] = dataclasses.field(default_factory=dict)
    values: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    problems: list[Problem] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    def refuse(self, name: str, text: str | None, expected: str) -> None:
        holds = "not set" if text is None else cut(repr(text))
        self.problems.append(Problem(name, f"{name} is {holds}: expected {expected}"))


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Raises SettingsError with all that is wrong, and then has made nothing."""
    reading = read(environ)
    if not reading.problems and reading.sources["SECRET_KEY"] == MADE_AT_START:
        keep_secret_key(reading)
    if reading.problems:
        raise SettingsError(reading.problems)
    values = {name.lower(): value for name, value in reading.values.items()}
    return Settings(**values, warnings=tuple(reading.warnings))


def read(environ: Mapping[str, str] | None = None) -> Reading:
    reading = Reading()
    real = {name: text for name, text in (os.environ if environ is None else environ).items() if text}
    layers = {"environment": real, "ENV_FILE": read_env_file(real, reading)}
    for name, line in VARIABLES.items():
        look_up(name, line, layers, reading)
    fill_in_defaults(reading)
    convert(reading)
    for name, expected in rules(reading):
        reading.refuse(name, reading.texts.get(name), expected)
    order = [row for name in VARIABLES for row in (name, f"{name}_FILE")]
    reading.problems.sort(key=lambda problem: order.index(problem.variable))
    return reading


def read_env_file(real: Mapping[str, str], reading: Reading) -> dict[str, str]:
    """In prod all of it is ignored but SYS_ENV itself: what says prod must not start with local's defaults."""
    if "ENV_FILE" not in real:
        return {}
    texts = {} if real.get("SYS_ENV") == "prod" else parse_env_file(real["ENV_FILE"], reading)
    if real.get("SYS_ENV", texts.get("SYS_ENV")) != "prod":
        return texts
    reading.warnings.append("ENV_FILE is ignored: SYS_ENV is prod")
    return {"SYS_ENV": "prod"}


def parse_env_file(path: str, reading: Reading) -> dict[str, str]:
    try:
        lines = list(parse_stream(io.StringIO(Path(path).read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        reading.refuse("ENV_FILE", path, f"a readable UTF-8 file ({reason(error)})")
        return {}
    for line in lines:
        if line.error:
            reading.refuse("ENV_FILE", path, f"NAME=value in line {line.original.line}")
    return {line.key: line.value for line in lines if line.key and line.value}


def look_up(name: str, line: Variable, layers: Mapping[str, Mapping[str, str]], reading: Reading) -> None:
    file = f"{name}_FILE" if line.kind.type == "secret" else name
    source, layer = next(((s, texts) for s, texts in layers.items() if name in texts or file in texts), (NOT_SET, {}))
    reading.sources[name] = source
    if file != name and name in layer and file in layer:
        reading.sources[name] = f"{name} and {file}"
        reading.problems.append(Problem(name, f"{name} and {file} are both set: expected one of them"))
    elif name in layer:
        reading.texts[name] = layer[name]
    elif file in layer:
        reading.sources[name] = f"{file}={layer[file]}"
        try:
            reading.texts[name] = read_secret(Path(layer[file]))
        except (OSError, ValueError) as error:
            reading.refuse(file, layer[file], f"a readable UTF-8 file ({reason(error)})")


def read_secret(path: Path) -> str:
    text = re.sub(r"\r?\n\Z", "", path.read_bytes().decode())
    if not text:
        raise ValueError("it is empty")
    return text


def fill_in_defaults(reading: Reading) -> None:
    where = reading.texts.get("SYS_ENV", "local")
    own = {
        "DEBUG": "true" if where in {"local", "dev"} else "false",
        "DOCS_ENABLED": "false" if where == "prod" else "true",
        "LOG_FORMAT": "gcp" if "K_SERVICE" in reading.texts else "json",
    }
    for name, line in VARIABLES.items():
        default = own.get(name, line.default)
        if default is not None and reading.sources[name] == NOT_SET:
            reading.texts[name], reading.sources[name] = default, "default" if default else NOT_SET
    if where in {"local", "test"} and reading.sources["SECRET_KEY"] == NOT_SET:
        reading.sources["SECRET_KEY"] = MADE_AT_START


def parse(text: str, kind: Kind) -> Any:
    try:
        if not re.fullmatch(kind.pattern, text):
            raise ValueError("not well formed")
        return kind.make(text)
    except (OSError, ValueError) as error:
        raise EnvError(str(error)) from error


def convert(reading: Reading) -> None:
    env = Environment(reading.texts)
    for name, line in VARIABLES.items():
        method = env.bool if line.kind is BOOL else partial(env.parsed, kind=line.kind)
        reading.values[name] = method(name) if name in reading.texts else None
    try:
        env.seal()
    except EnvValidationError as error:
        faults: Any = error.error_messages
        for name, (fault, *_) in faults.items():
            kind = VARIABLES[name].kind
            if kind.type == "secret":
                reading.problems.append(Problem(name, f"{name} is {fault}: expected {kind.expected}"))
            else:
                reading.refuse(name, reading.texts[name], kind.expected)


def rules(reading: Reading) -> Iterator[tuple[str, str]]:
    """What one variable asks of another; nothing is said of a variable that was refused already."""
    values, sources = reading.values, reading.sources
    where, mode, most = values["SYS_ENV"], values["MYSQL_SSL_MODE"], values["MYSQL_POOL_MAX_SIZE"]
    if where in {"dev", "prod"}:
        for name in ("MYSQL_HOST", "MYSQL_PASSWORD", "REDIS_HOST", "SECRET_KEY"):
            if sources[name] == NOT_SET and (name != "MYSQL_HOST" or sources["MYSQL_UNIX_SOCKET"] == NOT_SET):
                yield name, f"{VARIABLES[name].kind.expected}, since SYS_ENV is {where}"
    if where == "prod" and values["DEBUG"]:
        yield "DEBUG", "false, since SYS_ENV is prod"
    if most is not None and (values["MYSQL_POOL_MIN_SIZE"] or 0) > most:
        yield "MYSQL_POOL_MIN_SIZE", f"at most MYSQL_POOL_MAX_SIZE, which is {most}"
    if mode in {"verify_ca", "verify_identity"} and sources["MYSQL_SSL_CA"] == NOT_SET:
        yield "MYSQL_SSL_CA", f"a readable file, since MYSQL_SSL_MODE is {mode}"
    if values["REDIS_CLUSTER"] and values["REDIS_DB"]:
        yield "REDIS_DB", "0, since REDIS_CLUSTER is true"
    if sources["SECRET_KEY"] == MADE_AT_START and values["DATA_DIR"] and not can_keep(values["DATA_DIR"]):
        yield "DATA_DIR", "a directory that can be written to"


def can_keep(folder: Path) -> bool:
    if os.access(folder / "secret_key", os.R_OK):
        return True
    nearest = next((path for path in (folder, *folder.parents) if os.access(path, os.F_OK)), folder)
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def keep_secret_key(reading: Reading) -> None:
    path = reading.values["DATA_DIR"] / "secret_key"
    try:
        if not path.exists():
            make_secret_key(path)
        reading.values["SECRET_KEY"] = key(read_secret(path))
    except (OSError, ValueError) as error:
        expected = f"a directory that keeps a good secret_key ({reason(error)})"
        reading.refuse("DATA_DIR", reading.texts["DATA_DIR"], expected)


def make_secret_key(path: Path) -> None:
    """Written aside, then linked: of processes that start at once one wins, and nobody reads half a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".secret_key.{os.urandom(8).hex()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(os.urandom(32).hex() + "\n")
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)


def cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    return error.strerror or "" if isinstance(error, OSError) else str(error)


def shown(name: str, reading: Reading) -> str | None:
    """The value as it was given, but never a secret's."""
    secret = VARIABLES[name].kind.type == "secret"
    return "***" if secret and reading.sources[name] != NOT_SET else reading.texts.get(name)


def table(reading: Reading) -> str:
    """For people."""
    rows = [("variable", "type", "default", "value", "source")]
    for name, line in VARIABLES.items():
        value = cut(visible(shown(name, reading) or "-"))
        rows.append((name, line.kind.type, line.shown_default, value, visible(reading.sources[name])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", *reading.warnings, *(problem.text for problem in reading.problems)]).rstrip()


def visible(text: str) -> str:
    """What any terminal can take: no control characters, and nothing that stdout's encoding lacks."""
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return safe.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)


def as_json(reading: Reading) -> str:
    """The table for programs."""
    variables = [
        {
            "name": name,
            "type": line.kind.type,
            "default": None if line.shown_default == "-" else line.shown_default,
            "value": shown(name, reading),
            "source": reading.sources[name],
            "meaning": line.meaning,
            "expected": line.kind.expected,
        }
        for name, line in VARIABLES.items()
    ]
    problems = [problem._asdict() for problem in reading.problems]
    return json.dumps({"variables": variables, "warnings": reading.warnings, "problems": problems}, indent=2)


def explained(line: Variable) -> str:
    plain = line.kind in {TEXT, BOOL, PATH, FILE, HOST, SECRET} or line.kind.type in {"int", "float"}
    return line.meaning if plain else f"{line.meaning}; {line.kind.expected}"


def markdown() -> str:
    """The README's table."""
    rows = [("variable", "default", "meaning"), ("---", "---", "---")]
    rows += [(f"`{name}`", line.shown_default, explained(line)) for name, line in VARIABLES.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def template() -> str:
    """A file for ENV_FILE that changes nothing until a `#` is taken away: .env.example."""
    lines = ["# Every variable, with its default (python settings.py --format env). Local use: ENV_FILE=.env make run"]
    for name, line in VARIABLES.items():
        if name != "ENV_FILE":
            differs = "" if line.shown_default in {"-", line.default} else f" (default: {line.shown_default})"
            lines += ["", f"# {explained(line)}{differs}", f"#{name}={line.default or ''}"]
    return "\n".join(lines)


FORMATS: dict[str, Callable[[Reading], str]] = {
    "table": table,
    "json": as_json,
    "env": lambda _: template(),
    "markdown": lambda _: markdown(),
}


def main(arguments: list[str]) -> int:
    """78 when something is wrong with what `table` and `json` show; `env` and `markdown` show no values."""
    name = "table" if not arguments else arguments[-1]
    if arguments not in ([], ["--format", name]) or name not in FORMATS:
        print(f"usage: python settings.py [--format {'|'.join(FORMATS)}]", file=sys.stderr)
        return os.EX_USAGE
    reading = read()
    print(FORMATS[name](reading))
    return os.EX_CONFIG if reading.problems and name in {"table", "json"} else os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
