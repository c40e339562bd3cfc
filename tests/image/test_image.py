"""The image: what is in it, and that its command runs as PID 1 without root, capabilities or a writable file."""

import json
import os
import re
import shutil
import tarfile
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from settings import VERSION
from tests.image.conftest import StartContainer
from tests.image.engine import Engine
from tests.support.proxy import Proxy
from tests.support.servers import MariaDB, Redis, ServerError, free_port, wait_until
from tests.support.service import ROOT

RUNS = {"app.py", "settings.py", "handlers", "infra", "migrations", "requirements.txt", "__pycache__"}
PROD = {"SYS_ENV": "prod", "SECRET_KEY": os.urandom(32).hex()}
PASSWORD = "a-password-for-the-index"


def inspect(engine: Engine, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.run("image", "inspect", "--format", "{{json .}}", image))
    return found


@pytest.fixture(scope="module")
def config(engine: Engine, image: str) -> dict[str, Any]:
    found: dict[str, Any] = inspect(engine, image)["Config"]
    return found


@pytest.fixture(scope="module")
def files(engine: Engine, image: str) -> list[str]:
    """The path of every file and folder in the image."""
    container = engine.run("create", image)
    try:
        with (
            Popen([*engine.client, "export", container], stdout=PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as archive,
        ):
            return ["/" + member.name for member in archive]
    finally:
        engine.run("rm", container)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the image is built from."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "data", "tests", "__pycache__"))
    shutil.copy(ROOT / ".dockerignore", copy)
    return copy


# What is in it


def test_it_holds_neither_pip_nor_a_compiler(files: list[str]) -> None:
    assert not {Path(path).name for path in files} & {"pip", "ensurepip", "setuptools", "wheel"}
    programs = {Path(path).name for path in files if Path(path).parent.name in {"bin", "sbin"}}
    assert "python3" in programs
    assert not programs & {"pip", "pip3", "cc", "gcc", "ld", "as", "strip", "make"}


def test_it_holds_no_tests(files: list[str]) -> None:
    assert not [path for path in files if Path(path).name in {"tests", "testing", "pytest"}]


def test_of_the_project_it_holds_only_what_runs(files: list[str]) -> None:
    assert {path.split("/")[2] for path in files if path.startswith("/app/")} == RUNS


def test_what_lies_about_in_a_checkout_does_not_get_in(engine: Engine, checkout: Path) -> None:
    for name in (".env", ".git/config", "data/berth.db", "data/secret_key", "tests/conftest.py", "key.pem"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).touch()
    code = engine.build(checkout, "--target=code")
    listed = engine.run("run", "--rm", "--network=none", code, "python3", "-c", "import os; print(*os.listdir())")
    assert set(listed.split()) == RUNS


def test_every_module_is_compiled(files: list[str]) -> None:
    held = set(files)
    sources = [
        Path(path) for path in files if re.match(r"(/app|/opt/venv/lib|/usr/local/lib/python3\.\d+)/.*\.py$", path)
    ]
    compiled = [f"{path.parent}/__pycache__/{path.stem}.cpython-313.pyc" for path in sources]
    assert len(compiled) > 1000
    assert not [path for path in compiled if path not in held]


def test_its_labels_tell_the_version_and_revision(config: dict[str, Any]) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert (labels["title"], labels["version"], labels["revision"]) == ("berth", VERSION, "0123abc")
    assert labels["description"]


def test_it_stops_at_sigterm_and_runs_as_a_user_by_number(config: dict[str, Any]) -> None:
    assert (config["StopSignal"], config["User"]) == ("SIGTERM", "10001:10001")


def test_a_change_of_code_makes_a_new_last_layer_only(engine: Engine, image: str, checkout: Path) -> None:
    with (checkout / "app.py").open("a") as code:
        code.write("# changed\n")
    changed = engine.build(checkout, "--build-arg", "REVISION=4567def")
    before, after = (inspect(engine, name)["RootFS"]["Layers"] for name in (image, changed))
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


# What a build needs and keeps


class Index(HTTPServer):
    """A package index that asks for a password, and then sends the client on to the public one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), IndexRequest)
        self.url = f"http://builder:{PASSWORD}@127.0.0.1:{self.server_port}/simple"
        self.served = 0


class IndexRequest(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "Basic " + b64encode(f"builder:{PASSWORD}".encode()).decode()
        self.server.served += known
        self.send_response(302 if known else 401)
        self.send_header("Location", f"https://pypi.org{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the parent
        pass


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_password_of_a_private_index_is_used_and_leaves_no_trace(
    engine: Engine, checkout: Path, index: Index, tmp_path: Path
) -> None:
    secret = tmp_path / "index"
    secret.write_text(index.url + "\n")
    locked = re.search(r"^idna==.*(\n +--hash.*)+", (checkout / "requirements.txt").read_text(), re.MULTILINE)
    assert locked
    (checkout / "requirements.txt").write_text(f"# not built before: {tmp_path}\n{locked[0]}\n")
    built = engine.build(checkout, "--target=packages", f"--secret=id=pip_index_url,src={secret}")
    assert index.served
    engine.run("save", f"--output={tmp_path}/image.tar", built)
    assert PASSWORD.encode() not in (tmp_path / "image.tar").read_bytes()
    assert PASSWORD not in engine.run("history", "--no-trunc", built)


# How it runs


@pytest.fixture
def prod(mysql_and_redis: Callable[[], dict[str, str]]) -> dict[str, str]:
    return PROD | mysql_and_redis()


def test_in_prod_it_serves_confined_and_ends_with_0_when_the_engine_stops_it(
    engine: Engine, start_container: StartContainer, prod: dict[str, str]
) -> None:
    service = start_container(prod)
    assert service.client.get("/health/ready").json()["status"] == "ok"
    account = service.sign_up()
    assert service.client.get("/v1/auth/me", headers=account.headers).status_code == 200
    engine.run("stop", "--time=20", service.name)
    assert service.stop() == 0
    assert service.log(message="stopped")


def test_it_is_pid_1_and_not_root(start_container: StartContainer) -> None:
    service = start_container({}, volume="/data")
    told = service.execute("python", "-c", "print(open('/proc/1/cmdline').read(), open('/proc/1/status').read())")
    assert told.startswith("python\0app.py\0")
    assert "\nUid:\t10001\t10001\t10001\t10001\nGid:\t10001\t10001\t10001\t10001\n" in told
    assert "\nCapEff:\t0000000000000000\n" in told


def test_it_tells_its_version_and_revision(start_container: StartContainer) -> None:
    told = start_container({}, volume="/data").client.get("/").json()
    assert (told["version"], told["revision"]) == (VERSION, "0123abc")


def test_without_settings_it_keeps_its_accounts_in_the_volume_data(
    engine: Engine, start_container: StartContainer
) -> None:
    volume = engine.run("volume", "create")
    try:
        first = start_container({}, volume=f"{volume}:/data")
        account = first.sign_up()
        first.stop()
        second = start_container({}, volume=f"{volume}:/data")
        second.log_in(account.username, account.password)
        second.stop()
    finally:
        engine.run("volume", "rm", "--force", volume)


def test_without_settings_and_without_a_volume_it_says_what_it_cannot_write_to(
    start_container: StartContainer,
) -> None:
    service = start_container({}, wait=False)
    assert service.wait_for_exit() == os.EX_CONFIG
    assert "DATA_DIR is '/data'" in service.lines[0]["message"]


def test_secrets_come_from_files(start_container: StartContainer, prod: dict[str, str], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "secret_key").write_text(prod.pop("SECRET_KEY") + "\n")
    (tmp_path / "mysql_password").write_text(prod.pop("MYSQL_PASSWORD") + "\n")
    files = {"SECRET_KEY_FILE": "/run/secrets/secret_key", "MYSQL_PASSWORD_FILE": "/run/secrets/mysql_password"}
    start_container(prod | files, volume=f"{tmp_path}:/run/secrets:ro").sign_up()


def test_it_migrates(start_container: StartContainer, mariadb: MariaDB, redis: Redis) -> None:
    env = PROD | mariadb.environment(mariadb.create_database()) | redis.environment()
    migration = start_container(env, "python", "app.py", "migrate", wait=False)
    assert migration.wait_for_exit() == 0, migration.said()
    start_container(env).sign_up()


def test_it_tells_what_it_would_run_with(start_container: StartContainer, prod: dict[str, str]) -> None:
    listed = start_container(prod, "python", "settings.py", wait=False)
    assert listed.wait_for_exit() == 0
    assert any(line.startswith("MYSQL_HOST ") for line in listed.output)
    listed.output.clear()  # a table, not log lines


def test_a_signal_while_it_imports_ends_it_with_0(start_container: StartContainer, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "uvloop.py").write_text("import time\nprint('{}', flush=True)\ntime.sleep(60)\n")
    service = start_container({"PYTHONPATH": "/slow"}, volume=f"{tmp_path}:/slow:ro", wait=False)
    wait_until(lambda: bool(service.output), "the import")
    assert service.stop() == 0


# HEALTHCHECK


def test_the_health_check_succeeds_when_it_is_ready_and_fails_when_it_is_not(
    start_container: StartContainer, config: dict[str, Any], prod: dict[str, str]
) -> None:
    kind, *command = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    proxy = Proxy(int(prod["MYSQL_PORT"]))
    try:
        service = start_container(prod | {"MYSQL_PORT": str(proxy.port)})
        service.execute(*command)
        proxy.refuse()
        proxy.cut()
        with pytest.raises(ServerError, match="status 1:"):
            service.execute(*command)
    finally:
        proxy.close()


def test_the_health_check_fails_when_nothing_listens(engine: Engine, image: str, config: dict[str, Any]) -> None:
    _, *command = config["Healthcheck"]["Test"]
    with pytest.raises(ServerError, match="status 1:"):
        engine.run("run", "--rm", "--network=host", f"--env=PORT={free_port()}", image, *command)
