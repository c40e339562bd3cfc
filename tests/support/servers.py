"""Real servers for the tests: own processes on free loopback ports, with data folders that go when they go."""

import atexit
import itertools
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import pymysql

READY_WITHIN = 30.0
SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # Debian keeps mariadbd where only root looks

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Below 32768, where Linux begins to give ports to clients: one of these stays free until a server has started on it.
PORTS = range(10_000 + WORKER % 16, 32_768, 16)
NEXT_PORT = itertools.cycle(random.sample(PORTS, len(PORTS)))

LOOPBACK_NAMES = "IP:127.0.0.1,DNS:localhost"

Answer = str | int | list["Answer"] | None


class ServerError(Exception):
    """A server that the tests need did not start."""


def free_port() -> int:
    """Never one that another worker of this run chooses nor, where Linux is set up as usual, one of a client's."""
    for port in itertools.islice(NEXT_PORT, len(PORTS)):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise ServerError("no port is free")


def program(name: str) -> str:
    path = shutil.which(name, path=SEARCH)
    if path is None:
        raise ServerError(f"{name} is not installed: `make test` without ARGS installs what the tests need")
    return path


def wait_until(ready: Callable[[], bool], what: str, within: float = READY_WITHIN) -> None:
    deadline = time.monotonic() + within
    while not ready():
        if time.monotonic() > deadline:
            raise ServerError(f"{what} was not ready within {within:g} s")
        time.sleep(0.02)


class Startable:
    """`with` starts it, and removes it and its data at the end."""

    def start(self) -> Self:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


class Server(Startable):
    """One server process: what MariaDB and Redis have in common."""

    def __init__(self, *, tls: bool = False, names: str = LOOPBACK_NAMES) -> None:
        # Under /tmp whatever TMPDIR says: a Unix socket's path may have 107 bytes at most.
        self.folder = Path(tempfile.mkdtemp(prefix="berth-", dir="/tmp"))
        self.error_log = self.folder / "error.log"
        self.port = free_port()
        self.tls = tls
        self.ca, self.certificate, self.key = (self.folder / name for name in ("ca.pem", "server.pem", "server.key"))
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)  # also when a test run is interrupted
        if tls:
            make_certificates(self.folder, names)

    def command_line(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> Self:
        with self.error_log.open("ab") as log:
            self.process = subprocess.Popen(self.command_line(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self._ready, type(self).__name__)
        except ServerError as failure:
            self.kill()
            raise ServerError(f"{failure}; the end of its log:\n{self.log_tail()}") from None
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise ServerError(f"{type(self).__name__} exited with status {self.process.returncode}")
        return self.answers()

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self.error_log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(how)
        self.resume()
        try:
            self.process.wait(READY_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Stops and starts again, on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """The process keeps its port and its connections and says nothing, like a host that hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class MariaDB(Server):
    """MariaDB with the account berth. Arguments go to mariadbd: `MariaDB("--max-connections=20", tls=True)`."""

    username = "berth"
    password = "a password % with / signs: @?#"

    def __init__(self, *arguments: str, tls: bool = False, names: str = LOOPBACK_NAMES) -> None:
        super().__init__(tls=tls, names=names)
        self.arguments = arguments
        self.data = self.folder / "data"
        self.unix_socket = self.folder / "mariadb.sock"
        self.databases = itertools.count(1)

    def common_arguments(self) -> list[str]:
        return [
            f"--datadir={self.data}",
            f"--tmpdir={self.folder}",  # a server that starts clears away what another has in a shared one
            "--innodb-log-file-size=8M",
            "--innodb-use-native-aio=0",
            *(["--user=root"] if os.getuid() == 0 else []),
        ]

    def command_line(self) -> list[str]:
        return [
            program("mariadbd"),
            "--no-defaults",  # has to come first
            *self.common_arguments(),
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.unix_socket}",
            f"--pid-file={self.folder / 'mariadb.pid'}",
            "--skip-log-bin",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=32M",
            "--character-set-server=utf8mb4",
            *(self._tls_arguments() if self.tls else []),
            *self.arguments,
        ]

    def _tls_arguments(self) -> list[str]:
        return [f"--ssl-ca={self.ca}", f"--ssl-cert={self.certificate}", f"--ssl-key={self.key}"]

    def start(self) -> Self:
        new = not self.data.exists()
        if new:
            self._install()
        super().start()
        if new:
            self._add_user()
        return self

    def _install(self) -> None:
        command = [
            program("mariadb-install-db"),
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            *self.common_arguments(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise ServerError(f"mariadb-install-db exited with status {done.returncode}:\n{done.stdout}{done.stderr}")

    def _add_user(self) -> None:
        self.sql("DROP USER IF EXISTS ''@'localhost'")  # it would be picked before berth@% for local connections
        self.sql("CREATE USER berth@'%%' IDENTIFIED BY %s", self.password)
        self.sql("GRANT ALL ON `berth%`.* TO berth@'%'")

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:  # PyMySQL would leave its socket open when refused
            if probe.connect_ex(str(self.unix_socket)):
                return False
        try:
            self.sql("SELECT 1")
        except pymysql.OperationalError:
            return False
        return True

    def sql(self, statement: str, *values: object, database: str | None = None) -> list[dict[str, Any]]:
        """Runs one statement as root, over the Unix socket, and returns its rows."""
        connection = pymysql.connect(
            unix_socket=str(self.unix_socket),
            user="root",
            database=database,
            autocommit=True,
            connect_timeout=5,
            read_timeout=READY_WITHIN,
            cursorclass=pymysql.cursors.DictCursor,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def create_database(self, like: str | None = None) -> str:
        """Makes a database and returns its name. With `like` it has that one's tables and rows: a fast migration."""
        name = f"berth_{next(self.databases)}"
        self.sql(f"CREATE DATABASE {name}")
        for table in [next(iter(row.values())) for row in self.sql(f"SHOW TABLES IN {like}")] if like else []:
            self.sql(f"CREATE TABLE {name}.{table} LIKE {like}.{table}")
            self.sql(f"INSERT INTO {name}.{table} SELECT * FROM {like}.{table}")
        return name

    def environment(self, database: str) -> dict[str, str]:
        return {
            "MYSQL_HOST": "127.0.0.1",
            "MYSQL_PORT": str(self.port),
            "MYSQL_DATABASE": database,
            "MYSQL_USERNAME": self.username,
            "MYSQL_PASSWORD": self.password,
        }

    def version(self) -> str:
        version: str = self.sql("SELECT VERSION() AS version")[0]["version"]
        return version.partition("-")[0]


class Redis(Server):
    """Redis, empty at every start: a cache that comes back has lost what it held."""

    def __init__(
        self, *arguments: str, password: str | None = None, tls: bool = False, asks_clients: bool = False
    ) -> None:
        super().__init__(tls=tls)
        self.asks_clients = asks_clients  # for a certificate
        self.arguments = arguments
        self.password = password
        self.numbers = itertools.count(1)

    def command_line(self) -> list[str]:
        port, tls_port = (0, self.port) if self.tls else (self.port, 0)
        options = {
            "port": port,
            "tls-port": tls_port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "databases": 1000,
            **({"requirepass": self.password} if self.password else {}),
            **(self._tls_options() if self.tls else {}),
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [program("redis-server"), *flags, *self.arguments]

    def _tls_options(self) -> dict[str, object]:
        return {
            "tls-cert-file": self.certificate,
            "tls-key-file": self.key,
            "tls-ca-cert-file": self.ca,
            "tls-auth-clients": "yes" if self.asks_clients else "no",
        }

    def answers(self) -> bool:
        try:
            return self.command("PING") == "PONG"
        except (OSError, RuntimeError):  # RuntimeError: it is still loading
            return False

    def command(self, *words: object, database: int = 0) -> Answer:
        """Sends one command over a connection of its own and returns the answer; an error is a RuntimeError."""
        with self._connect() as connection, cast(BinaryIO, connection.makefile("rwb")) as stream:
            if self.password:
                ask(stream, "AUTH", self.password)
            if database:
                ask(stream, "SELECT", database)
            return ask(stream, *words)

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        if not self.tls:
            return connection
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.asks_clients:
            context.load_cert_chain(self.certificate, self.key)
        return context.wrap_socket(connection, server_hostname="127.0.0.1")

    def environment(self, database: int | None = None) -> dict[str, str]:
        """What points Berth here, at a database number that nobody else was given."""
        number = next(self.numbers) if database is None else database
        variables = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.port), "REDIS_DB": str(number)}
        return variables | ({"REDIS_PASSWORD": self.password} if self.password else {})

    def version(self) -> str:
        lines = str(self.command("INFO", "server")).splitlines()
        return next(line.partition(":")[2] for line in lines if line.startswith("redis_version"))


class RedisCluster(Startable):
    """Three masters that share the slots, without replicas."""

    def __init__(self, *, password: str | None = None) -> None:
        secret = ["--masterauth", password] if password else []
        self.buses = [free_port() for _ in range(3)]
        self.nodes = [
            Redis(
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                str(bus),
                "--cluster-node-timeout",
                "2000",
                "--databases",
                "1",
                *secret,
                password=password,
            )
            for bus in self.buses
        ]
        self.port = self.nodes[0].port

    def start(self) -> Self:
        for node in self.nodes:
            node.start()
        self._share_slots()
        for node in self.nodes:
            wait_until(partial(knows_all_slots, node), "Redis Cluster")
        return self

    def _share_slots(self) -> None:
        bounds = [0, 5461, 10923, 16384]
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for node, bus in zip(self.nodes[1:], self.buses[1:], strict=True):
            self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def environment(self) -> dict[str, str]:
        return self.nodes[0].environment(database=0) | {"REDIS_CLUSTER": "true"}


def knows_all_slots(node: Redis) -> bool:
    return "cluster_state:ok" in str(node.command("CLUSTER", "INFO"))


def ask(stream: BinaryIO, *words: object) -> Answer:
    """One command and its answer in RESP, Redis's protocol."""
    encoded = [str(word).encode() for word in words]
    stream.write(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded))
    stream.flush()
    return read_answer(stream)


def read_answer(stream: BinaryIO) -> Answer:
    line = stream.readline().decode().removesuffix("\r\n")
    if not line:
        raise ConnectionError("Redis closed the connection")
    kind, value = line[0], line[1:]
    if kind == "-":
        raise RuntimeError(value)
    if kind == "*":
        return [read_answer(stream) for _ in range(int(value))]
    if kind == "$":
        return None if value == "-1" else stream.read(int(value) + 2)[:-2].decode()
    return int(value) if kind == ":" else value


CERTIFICATE_SECTIONS = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
subjectAltName = {names}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def make_certificates(folder: Path, names: str) -> None:
    """Writes ca.pem, and server.pem and server.key that it signed for these names."""
    (folder / "openssl.cnf").write_text(CERTIFICATE_SECTIONS.format(names=names))
    openssl(folder, "ca", "-subj", "/CN=Berth tests", "-keyout", "ca.key", "-out", "ca.pem")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key"]
    openssl(folder, "server", "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.pem", *signed)


def openssl(folder: Path, section: str, *arguments: str) -> None:
    options = ["-config", "openssl.cnf", "-extensions", section, "-x509", "-nodes", "-days", "2"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command = [program("openssl"), "req", *options, *key, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise ServerError(f"openssl exited with status {done.returncode}:\n{done.stderr}")
