"""What is measured: Berth and its peers, each a process of its own whose log goes into a pipe that is read."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple, Self

from tests.support.servers import free_port

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks/peers"
VENVS = ROOT / "benchmarks/.venvs"
BERTH_PYTHON = sys.executable


class Subject(NamedTuple):
    name: str
    title: str
    module: str  # what uvicorn serves; empty for Berth, which serves itself
    venv: str = ""
    env: dict[str, str] = {}  # noqa: RUF012 - never changed
    prefix: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  # of Python
    script: str = "app.py"
    arguments: tuple[str, ...] = ()
    folder: Path = ROOT  # of Berth

    @property
    def python(self) -> str:
        return str(VENVS / self.venv / "bin/python") if self.venv else BERTH_PYTHON

    def command(self, port: int) -> list[str]:
        if not self.module:
            return [*self.prefix, self.python, *self.options, self.script, *self.arguments]
        options = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        return [self.python, "-m", "uvicorn", *options, "--log-level", "warning", self.module]


BERTH = Subject("berth", "Berth", "")
PEER_APPS = [
    Subject("full", "(a) FastAPI, full", "fastapi_app:app", "fastapi", {"PEER": "full"}),
    Subject("lean", "(b) FastAPI, lean", "fastapi_app:app", "fastapi", {"PEER": "lean"}),
    Subject("litestar", "(c) Litestar", "litestar_app:app", "litestar"),
    Subject("blacksheep", "(d) BlackSheep", "blacksheep_app:app", "blacksheep"),
]
BARE = Subject("bare", "(e) bare ASGI", "bare:app")
ALL = [BERTH, *PEER_APPS, BARE]


class Service:
    """One running subject. `with` ends it."""

    def __init__(self, subject: Subject, env: dict[str, str], log: str = os.devnull) -> None:
        self.subject = subject
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        own = {"HOST": "127.0.0.1", "PORT": str(self.port), "PATH": os.environ["PATH"], "TMPDIR": "/tmp"}
        folder = PEERS if subject.module else subject.folder
        with Path(log).open("wb") as kept:
            self.reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=kept)
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            subject.command(self.port),
            cwd=folder,
            env={**env, **own, **subject.env},
            stdout=self.reader.stdin,
            stderr=subprocess.DEVNULL if subject.module else None,  # a peer's pool times out at 1,000 connections
        )
        assert self.reader.stdin is not None
        self.reader.stdin.close()

    def first_answer(self, path: str, token: str = "", within: float = 60) -> float:
        """Seconds from the process's start to the first 200."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {token}"} if token else {})
        while True:
            seconds = time.perf_counter() - self.started
            if self.process.poll() is not None or seconds > within:
                self.__exit__()
                raise RuntimeError(f"{self.subject.name} did not answer {path}: status {self.process.returncode}")
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    answer.read()
                return time.perf_counter() - self.started
            except urllib.error.HTTPError as error:
                raise RuntimeError(f"{self.subject.name} {path}: {error.code} {error.read()[:300]!r}") from None
            except OSError:
                time.sleep(0.001)

    def pss(self, kind: str = "Pss") -> float:
        """MiB of the process's proportional set size.

        `Pss_Anon` is the part that doesn't change when another process comes or goes that has the same files mapped.
        """
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(text.split(f"{kind}:")[1].split()[0]) / 1024

    def cpu(self) -> float:
        """Seconds that all its threads have computed."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settle(self) -> None:
        """Until it has nothing left to do of what the last load left behind, 20 seconds at most."""
        for _ in range(100):
            before = self.cpu()
            time.sleep(0.2)
            if self.cpu() - before < 0.02:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.wait()


def versions(subject: Subject, packages: str) -> dict[str, str]:
    code = f"from importlib.metadata import version as v; print(*[v(n) for n in {packages.split()!r}])"
    done = subprocess.run([subject.python, "-c", code], capture_output=True, text=True, check=True)
    return dict(zip(packages.split(), done.stdout.split(), strict=True))
