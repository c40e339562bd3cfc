"""The service under test: `python app.py` as its own process, seen from outside only."""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.servers import free_port

ROOT = Path(__file__).parents[2]
START_WITHIN = 40.0  # STARTUP_TIMEOUT and what importing takes on a busy machine
STOP_WITHIN = 20.0
SIGN_UPS = itertools.count(1)  # only with accounts

Record = dict[str, Any]
Environment = Mapping[str, object]


# only with accounts:
@dataclass(frozen=True)
class Account:
    """A registered and logged-in account."""

    id: str
    username: str
    email: str
    password: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}

    @property
    def session_id(self) -> str:
        """As the access token says it, whether it is genuine or not."""
        payload = self.access_token.split(".")[1]
        session_id: str = json.loads(urlsafe_b64decode(payload + "==="))["sid"]
        return session_id


# end only
def clean_environment(env: Environment) -> dict[str, str]:
    """Only what was asked for: a variable of the machine that runs the tests must not change what they see.

    But FAST: `FAST=off pytest` tests services that bend no other package.
    """
    kept = {name: os.environ[name] for name in ("PATH", "FAST") if name in os.environ}
    return kept | {name: str(value) for name, value in env.items()}


def run(script: str, *arguments: str, env: Environment, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, script, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=clean_environment(env), capture_output=True, text=True, check=False, timeout=timeout
    )


def run_app(*arguments: str, env: Environment, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    return run("app.py", *arguments, env=env, timeout=timeout)


def refusal(env: Environment, *arguments: str, status: int = os.EX_CONFIG) -> str:
    """Runs with settings that must end it with this status and one CRITICAL line, and returns that line's message."""
    # What ends it at once may take as long as it takes here.
    own = {"HOST": "127.0.0.1", "PORT": free_port(), "STARTUP_TIMEOUT": 30 if status == os.EX_CONFIG else 0.7}
    done = run_app(*arguments, env={"SYS_ENV": "test", **own, **env})
    assert (done.returncode, done.stderr) == (status, ""), done.stdout + done.stderr
    [line] = [line for line in map(parse, done.stdout.splitlines()) if line["severity"] == "CRITICAL"]
    message: str = line["message"]
    return message


def run_settings(env: Environment) -> subprocess.CompletedProcess[str]:
    return run("settings.py", env=env)


class Service:
    """Started when made. `wait=False` doesn't wait until it serves: for starts that are slow or fail on purpose."""

    command: tuple[str, ...] = (sys.executable, "app.py")

    def __init__(self, env: Environment, *, wait: bool = True) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="berth-data-"))
        own = {"HOST": "127.0.0.1", "PORT": self.port, "DATA_DIR": self.folder / "data"}
        self.env = clean_environment({**own, **env})
        self.data = Path(self.env["DATA_DIR"])
        self.output: list[str] = []
        self.changed = threading.Condition()
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        with (self.folder / "stderr").open("w") as stderr:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr
            )
        self.pid = self.process.pid
        self.reader = threading.Thread(target=self.read_output, daemon=True)
        self.reader.start()
        if wait:
            self.wait_until_started()

    def read_output(self) -> None:
        """In a thread of its own, from its start to its end."""
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                with self.changed:
                    self.output.append(line.decode(errors="backslashreplace").removesuffix("\n"))
                    self.changed.notify_all()

    def wait_until_started(self, within: float = START_WITHIN) -> None:
        deadline = time.monotonic() + within
        while not (self._is_up("/health/live") and self._is_up("/health/startup")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.said()
                self.close()
                raise AssertionError(f"the service did not start (status {self.process.returncode}):\n{said}")
            time.sleep(0.02)

    def _is_up(self, path: str) -> bool:
        try:
            return self.client.get(path, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def lines(self) -> list[Record]:
        """Every line of stdout so far, parsed. One that isn't a JSON object fails the test."""
        with self.changed:
            return [parse(line) for line in self.output]

    def log(self, **match: object) -> list[Record]:
        """The lines with these values: `log(type="audit", account_id=account.id)`."""
        return [record for record in self.lines if matches(record, match)]

    def wait_for_log(self, within: float = 5.0, **match: object) -> Record:
        """The first line with these values, waiting for it: a response may overtake its log line."""
        deadline = time.monotonic() + within
        while not (found := self.log(**match)):
            left = deadline - time.monotonic()
            assert left > 0, f"no line with {match} within {within:g} s:\n{self.said()}"
            with self.changed:
                self.changed.wait(min(left, 0.1))
        return found[0]

    def said(self, lines: int = 30) -> str:
        """The end of its output, for a failing test's message."""
        return "\n".join([*self.output[-lines:], "stderr:", self.errors()])

    def errors(self) -> str:
        return (self.folder / "stderr").read_text(errors="backslashreplace")

    def raw(self, sent: bytes, within: float = 10.0) -> bytes:
        """Sends these bytes and returns all that comes back until the last answer's end, or silence for so long."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=within) as connection:
            with suppress(OSError):  # it may answer and close before it has read everything
                connection.sendall(sent)
            return read_all(connection)

    # only with accounts:
    def sign_up(self, **chosen: str) -> Account:
        """Registers and logs in an account of its own."""
        number = next(SIGN_UPS)
        body = {
            "username": f"sailor-{number}",
            "email": f"sailor-{number}@example.com",
            "password": f"pass {number:08}",
        }
        body |= chosen
        registered = self.client.post("/v1/auth/register", json=body)
        assert registered.status_code == 201, registered.text
        return self.log_in(body["username"], body["password"])

    def log_in(self, login: str, password: str) -> Account:
        answer = self.client.post("/v1/auth/login", json={"login": login, "password": password})
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        account = tokens["account"]
        return Account(
            account["id"],
            account["username"],
            account["email"],
            password,
            tokens["access_token"],
            tokens["refresh_token"],
        )

    # end only
    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_for_exit(self, within: float = STOP_WITHIN) -> int:
        status = self.process.wait(within)
        self.reader.join(within)
        return status

    def stop(self, within: float = STOP_WITHIN) -> int:
        """SIGTERM if it still runs, then its exit status. What it wrote must be log lines and nothing else."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            status = self.wait_for_exit(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not stop within {within:g} s of SIGTERM:\n{self.said()}") from None
        if status != -signal.SIGKILL:  # which may cut a line in two
            self.check_output()
        return status

    def check_output(self) -> None:
        assert self.errors() == ""
        if self.env.get("LOG_FORMAT") != "console":
            assert all(isinstance(line, dict) for line in self.lines)

    def close(self) -> None:
        """Ends it whatever state it is in, and removes its data."""
        self.process.kill()
        self.wait_for_exit()
        self.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.close()


def parse(line: str) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    assert isinstance(record, dict), f"a line of stdout is not one JSON object: {line[:500]!r}"
    return record


def matches(record: Record, match: dict[str, object]) -> bool:
    return all(name in record and record[name] == value for name, value in match.items())


def read_all(connection: socket.socket) -> bytes:
    """To the end of an answer that says `Connection: close` (the closing itself may linger), or to the closing."""
    received = bytearray()
    with suppress(OSError):  # silent for too long, or a reset: what came before counts
        while not ends_last_answer(received) and (part := connection.recv(65536)):
            received += part
    return bytes(received)


def ends_last_answer(received: bytes | bytearray) -> bool:
    head, blank, body = bytes(received[received.rfind(b"HTTP/1.1 ") :]).lower().partition(b"\r\n\r\n")
    length = re.search(rb"\ncontent-length: (\d+)", head)
    return bool(blank and length and b"\nconnection: close" in head and len(body) >= int(length[1]))
