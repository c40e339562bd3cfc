import re
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from sqlite3 import Row, connect, sqlite_version
from typing import Any, Protocol, TypeVar

import pytest

from tests.faults.load import QuickService
from tests.support import servers
from tests.support.proxy import Proxy
from tests.support.servers import MariaDB, Redis, Server, ServerError
from tests.support.service import Account, Service, run_app
from tests.support.sink import Sink

TEST_SETTINGS = {
    "SYS_ENV": "test",
    "LOGIN_RATE_LIMIT": "1000/300",  # only with accounts
    "REGISTER_RATE_LIMIT": "100000/300",  # only with accounts
    "REFRESH_RATE_LIMIT": "1000/60",  # only with accounts
}
EVENTS_TOKEN = "a-token-that-other-services-have"
RAN_AGAINST: dict[str, str] = {}
LIMIT = 900  # seconds for a test and what it starts: what builds an image on a busy machine needs half of them

# Files that take minutes come first, or one worker is still at them when the others have nothing left.
LONGEST = {"test_new.py", "test_outbox.py", "test_request_limits.py", "test_add_a_resource.py", "test_settings.py"}
# What `make test-quick` leaves out: whatever starts a server, a browser or a service of its own, and what else is slow.
SLOW = re.compile(
    r"/tests/(deploy|fast|faults|image|project)/"
    r"|/test_(docs|errors|hash_queue|limits|log_pipelines|make|mysql_login|outbox|pools|sign_in_limits|start|tls)\.py$"
)
STARTS = re.compile("certificate|pem$|mariadb|mysql|redis|migrated|start_service|QuickService|Browser|MariaDB|Redis")

AnyServer = TypeVar("AnyServer", bound=Server)
Environment = dict[str, str]


class StartService(Protocol):
    """`start_service(backend, LOG_LEVEL="DEBUG")`: the keywords are settings, and win over those of the backend."""

    def __call__(self, backend: str = "sqlite", /, *, wait: bool = True, **settings: object) -> Service: ...


class Sql(Protocol):
    """`sql(service, "DELETE FROM sessions")`: one statement in the service's database, and its rows."""

    def __call__(self, service: Service, statement: str, /) -> list[dict[str, Any]]: ...


def start(server: AnyServer) -> AnyServer:
    """A server that can't start ends the run, with the end of its log as the reason."""
    try:
        return server.start()
    except ServerError as failure:
        server.close()
        pytest.exit(str(failure), returncode=1)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """One MariaDB for all tests that leave it alone; a test that breaks it starts its own."""
    server = start(MariaDB())
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """One Redis for all tests that leave it alone."""
    server = start(Redis())
    yield server
    server.close()


@pytest.fixture(scope="session")
def migrated(mariadb: MariaDB) -> str:
    """The name of a database that has the schema and no rows, for the others to be copied from."""
    name = mariadb.create_database()
    done = run_app("migrate", env={**TEST_SETTINGS, **mariadb.environment(name)})
    assert done.returncode == 0, f"python app.py migrate failed:\n{done.stdout}{done.stderr}"
    return name


@pytest.fixture(scope="session")
def mysql_and_redis(mariadb: MariaDB, redis: Redis, migrated: str) -> Callable[[], Environment]:
    """Makes a fresh database, and a Redis database number nobody used, and returns the settings that point there."""
    RAN_AGAINST["mysql+redis"] = (
        f"MariaDB {mariadb.version()} + Redis {redis.version()} "
        f"(own processes on 127.0.0.1:{mariadb.port} and :{redis.port})"
    )
    return lambda: mariadb.environment(mariadb.create_database(like=migrated)) | redis.environment()


@pytest.fixture
def mysql_env(mariadb: MariaDB, migrated: str) -> Environment:
    """A fresh database on the shared server; a test may kill that database's connections."""
    return mariadb.environment(mariadb.create_database(like=migrated))


@pytest.fixture
def mysql_proxy(mariadb: MariaDB) -> Iterator[Proxy]:
    """A wire to the shared server that breaks when told to."""
    proxy = Proxy(mariadb.port)
    yield proxy
    proxy.close()


def backend_settings(backend: str, request: pytest.FixtureRequest) -> Environment:
    if backend == "sqlite":
        RAN_AGAINST[backend] = f"SQLite {sqlite_version} without Redis"
        return {}
    fresh: Callable[[], Environment] = request.getfixturevalue("mysql_and_redis")  # starts servers only when needed
    return fresh()


@pytest.fixture(scope="session", params=["sqlite", "mysql+redis"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def service(backend: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    """The service that tests of ordinary behaviour share, one on each backend."""
    with Service({**TEST_SETTINGS, **backend_settings(backend, request), "EVENTS_TOKEN": EVENTS_TOKEN}) as shared:
        yield shared


@pytest.fixture(scope="session")
def quick_service(backend: str, request: pytest.FixtureRequest) -> Iterator[QuickService]:
    """Like `service`, with cheap password hashes: for all that isn't about them."""
    env = {**TEST_SETTINGS, **backend_settings(backend, request), "EVENTS_TOKEN": EVENTS_TOKEN}
    with QuickService(env) as shared:
        yield shared


@pytest.fixture
def start_service(request: pytest.FixtureRequest) -> Iterator[StartService]:
    """Starts services with settings of their own, and stops them at the end of the test."""
    with starter(Service, request) as start_one:
        yield start_one


@pytest.fixture
def start_quick_service(request: pytest.FixtureRequest) -> Iterator[StartService]:
    """Like `start_service`, with cheap password hashes."""
    with starter(QuickService, request) as start_one:
        yield start_one


@contextmanager
def starter(kind: type[Service], request: pytest.FixtureRequest) -> Iterator[StartService]:
    with ExitStack() as running:

        def start_one(backend: str = "sqlite", /, *, wait: bool = True, **settings: object) -> Service:
            env = {**TEST_SETTINGS, **backend_settings(backend, request), **settings}
            return running.enter_context(kind(env, wait=wait))

        yield start_one


@pytest.fixture(scope="session")
def sql(request: pytest.FixtureRequest) -> Sql:
    def run(service: Service, statement: str) -> list[dict[str, Any]]:
        if name := service.env.get("MYSQL_DATABASE"):
            mariadb: MariaDB = request.getfixturevalue("mariadb")
            return mariadb.sql(statement, database=name)
        with closing(connect(service.data / "berth.db", isolation_level=None, timeout=10)) as connection:
            connection.row_factory = Row
            return [dict(row) for row in connection.execute(statement)]

    return run


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as one:
        yield one


@pytest.fixture
def account(service: Service) -> Account:
    return service.sign_up()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only what needs no server and little time")
    parser.addoption("--limit", type=int, default=LIMIT, help=f"seconds until a test counts as hanging ({LIMIT})")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """One that hangs fails, and the next one runs."""
    limit: int = item.config.getoption("limit")

    def fail(*_: object) -> None:
        raise TimeoutError(f"the test hangs: no end after {limit} s")

    signal.signal(signal.SIGALRM, fail)
    signal.alarm(limit)
    try:
        return (yield)
    finally:
        signal.alarm(0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if config.getoption("quick"):
        slow = [item for item in items if not is_quick(item)]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


def is_quick(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    names = [*item.fixturenames, *item.function.__code__.co_names, *map(str, parameters)]
    return not SLOW.search(str(item.path)) and not any(STARTS.search(name) for name in names)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("quick"):
        servers.SEARCH = ""  # one that starts a server all the same fails
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, so that no server stays behind


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if (output := getattr(session.config, "workeroutput", None)) is not None:  # of one of `make test`'s two processes
        output["ran against"] = RAN_AGAINST


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    RAN_AGAINST.update(getattr(node, "workeroutput", {}).get("ran against", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if skipped(config):
        terminalreporter.write_line("failed: a test was skipped, and none may be", red=True)
    terminalreporter.write_line(f"ran against: {'; '.join(RAN_AGAINST.values()) or 'nothing'}")


def skipped(config: pytest.Config) -> bool:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return bool(reporter and reporter.stats.get("skipped"))
