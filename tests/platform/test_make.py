"""`make run` and `make dev`: what somebody sees in the first ten minutes, and after each change."""

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import free_port, wait_until
from tests.support.service import ROOT, parse

BIN = Path(sys.executable).parent
COLOURS = re.compile(r"\x1b\[\d+m")
MAKE = ("make", "--old-file=.venv/run", f"BIN={BIN}")  # with the packages that run the tests


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What runs, in a folder where a test may change it."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in (".ci", "Makefile", "app.py", "settings.py", "handlers", "infra", "migrations"):
        path = ROOT / name
        shutil.copytree(path, folder / name) if path.is_dir() else shutil.copy(path, folder)
    return folder


class Make:
    """`make TARGET` in a process group of its own, which gets what a terminal sends."""

    def __init__(self, folder: Path, target: str, stdout: int = subprocess.PIPE, **given: object) -> None:
        env = {"PATH": os.environ["PATH"], **{name: str(value) for name, value in given.items()}}
        self.process = subprocess.Popen(
            [*MAKE, target], cwd=folder, env=env, stdout=stdout, stderr=subprocess.STDOUT, start_new_session=True
        )

    def interrupt(self) -> str:
        """As Ctrl-C does; returns what it said."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.communicate(timeout=20)[0].decode()


@pytest.fixture
def make(copy: Path) -> Iterator[Callable[..., Make]]:
    started: list[Make] = []

    def start(target: str, **given: Any) -> Make:
        started.append(Make(copy, target, **given))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.communicate()


def listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


# make run


@pytest.mark.parametrize(
    ("given", "env_file", "host"),
    [
        ({}, None, "127.0.0.1"),
        ({}, "# HOST=127.0.0.3\nHOSTS=x\nHOST=\n", "127.0.0.1"),
        ({"HOST": ""}, None, "127.0.0.1"),
        ({"HOST": "127.0.0.2"}, None, "127.0.0.2"),
        ({}, "HOST=127.0.0.3\n", "127.0.0.3"),
        ({}, 'HOST="127.0.0.3"\n', "127.0.0.3"),
        ({}, 'HOST=""\n', "127.0.0.1"),
        ({}, "HOST=''\n", "127.0.0.1"),
        ({}, "export HOST = 127.0.0.3\n", "127.0.0.3"),
        ({"HOST": "127.0.0.2"}, "HOST=127.0.0.3\n", "127.0.0.2"),
        ({"HOST": "0.0.0.0"}, None, "0.0.0.0"),  # noqa: S104 - asked for
    ],
)
def test_make_run_listens_where_it_is_told_to_and_else_on_this_machine_only(
    copy: Path, make: Callable[..., Make], given: dict[str, str], env_file: str | None, host: str
) -> None:
    if env_file is not None:
        (copy / ".env").write_text(env_file)
    port = free_port()
    run = make("run", PORT=port, **given)
    wait_until(lambda: listens(host, port), "make run")
    [serving] = [line for line in map(parse, run.interrupt().splitlines()) if line["message"] == "serving"]
    assert (serving["host"], serving["port"]) == (host, port)


def test_make_run_reads_env_which_may_hold_what_compose_reads(copy: Path, make: Callable[..., Make]) -> None:
    port = free_port()
    (copy / ".env").write_text(f"PORT={port}\nMYSQL_ROOT_PASSWORD=x\nBERTH_LISTEN=1\nLOG_LEVEL=WARNING\nTIMEOUT=1\n")
    run = make("run")
    wait_until(lambda: listens("127.0.0.1", port), "make run")
    lines = [parse(line) for line in run.interrupt().splitlines()]
    assert [line["message"] for line in lines] == ["nothing reads TIMEOUT of ENV_FILE"]


def test_a_real_variable_wins_over_env(copy: Path, make: Callable[..., Make]) -> None:
    (copy / ".env").write_text("PORT=1\n")
    port = free_port()
    make("run", PORT=port)
    wait_until(lambda: listens("127.0.0.1", port), "make run")


def on_a_terminal(make: Callable[..., Make], **given: object) -> list[str]:
    """The lines that `make run` writes until it serves, or ends."""
    terminal, stdout = pty.openpty()
    run = make("run", stdout=stdout, **given)
    os.close(stdout)
    shown = b""
    while b"serving" not in shown and run.process.poll() is None:
        shown += os.read(terminal, 65536)
    os.set_blocking(terminal, False)
    with suppress(OSError):  # nothing more
        shown += os.read(terminal, 65536)
    os.close(terminal)
    return shown.decode().splitlines()


def test_on_a_terminal_it_writes_for_people_with_the_address_to_click(make: Callable[..., Make]) -> None:
    port = free_port()
    lines = on_a_terminal(make, PORT=port)
    plain = [COLOURS.sub("", line) for line in lines]
    assert plain != lines
    assert all(len(line) <= 120 for line in plain)
    assert re.fullmatch(rf"\S+ INFO +berth.system serving .*url=http://127\.0\.0\.1:{port}", plain[-1])


@pytest.mark.parametrize("given", [{"LOG_FORMAT": "json"}, {"SYS_ENV": "test"}])
def test_on_a_terminal_it_writes_json_where_that_is_asked_for_or_nobody_watches(
    make: Callable[..., Make], given: dict[str, str]
) -> None:
    lines = [parse(line) for line in on_a_terminal(make, PORT=free_port(), **given)]
    assert ("url" in lines[-1]) == ("SYS_ENV" not in given)


def test_a_taken_port_is_told_with_what_to_do_about_it(make: Callable[..., Make]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        local = make("run", PORT=port).process.communicate(timeout=30)[0].decode()
        test = make("run", PORT=port, SYS_ENV="test").process.communicate(timeout=30)[0].decode()
    assert f"PORT={port + 1} make run" in parse(local.splitlines()[0])["message"]
    assert f"PORT {port}" in parse(test.splitlines()[0])["message"]
    assert "make run" not in parse(test.splitlines()[0])["message"]


# make dev


def test_make_dev_serves_the_change(copy: Path, make: Callable[..., Make]) -> None:
    port = free_port()
    make("dev", PORT=port)
    wait_until(lambda: listens("127.0.0.1", port), "make dev")
    settings = copy / "settings.py"
    settings.write_text(re.sub('VERSION = ".*"', 'VERSION = "98.7.6"', settings.read_text()))
    wait_until(lambda: '"98.7.6"' in index(port), "the change")


def test_make_dev_reads_env_at_each_start_whether_it_comes_or_goes(copy: Path, make: Callable[..., Make]) -> None:
    port = free_port()
    make("dev", PORT=port)
    wait_until(lambda: listens("127.0.0.1", port), "make dev")
    (copy / ".env").write_text("HOST=127.0.0.5\n")
    wait_until(lambda: listens("127.0.0.5", port), "the address in .env")
    (copy / ".env").unlink()
    wait_until(lambda: listens("127.0.0.1", port), "the address without it")


def index(port: int) -> str:
    with socket.socket() as client:
        if client.connect_ex(("127.0.0.1", port)):
            return ""
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        with suppress(OSError):  # the old one ends
            while part := client.recv(65536):
                answer += part
        return answer.decode()


class Reload:
    """`python -m infra.process.reload python program.py`, for a program that writes its process id and then waits."""

    def __init__(self, folder: Path, *, ignores_sigint: bool = False) -> None:
        self.folder = folder
        self.say("first")
        ignore = "trap '' INT; " if ignores_sigint else ""
        command = ["sh", "-c", f'{ignore}exec "$@"', "sh", sys.executable, "-m", "infra.process.reload"]
        command += [sys.executable, "program.py"]
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, stdout=output, stderr=output, start_new_session=True
            )

    def say(self, word: str, after: str = "time.sleep(60)") -> None:
        program = f"import os, time\nprint('{word}', os.getpid(), flush=True)\n{after}\n"
        (self.folder / "program.py").write_text(program)

    def wait_for(self, word: str, times: int = 1) -> int:
        """The process id that was written with the word."""
        wait_until(lambda: self.output.read_text().count(word) >= times, f"{word}, {times} times")
        found = re.findall(rf"{word} (\d+)", self.output.read_text())
        return int(found[-1]) if found else 0

    def __enter__(self) -> "Reload":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


@pytest.mark.parametrize("changed", ["program.py", "package/new.py", ".env"])
def test_a_change_starts_it_anew_and_ends_the_old_one(changed: str, tmp_path: Path) -> None:
    with Reload(tmp_path) as reload:
        first = reload.wait_for("first")
        (tmp_path / changed).parent.mkdir(exist_ok=True)
        if changed == "program.py":
            reload.say("second")
        else:
            (tmp_path / changed).write_text("A=1\n")
        second = reload.wait_for("second") if changed == "program.py" else reload.wait_for("first", times=2)
        assert second != first
        assert gone(first)


def test_what_is_no_part_of_it_starts_nothing_anew(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    with Reload(tmp_path) as reload:
        reload.wait_for("first")
        for name in ("notes.txt", ".venv/module.py"):
            (tmp_path / name).write_text("A=1\n")
        time.sleep(0.5)  # several looks
        reload.say("second")
        reload.wait_for("second")
        assert reload.output.read_text().count("first") == 1


def test_a_program_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with Reload(tmp_path) as reload:
        reload.say("stubborn", "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)")
        first = reload.wait_for("stubborn")
        time.sleep(0.3)  # until it ignores the signal
        reload.say("second")
        reload.wait_for("second")
        assert gone(first)


@pytest.mark.parametrize(("broken", "shown"), [("def (", "SyntaxError"), ("raise SystemExit(3)", "exit status 3")])
def test_a_broken_program_is_told_and_started_again_after_the_next_change(
    broken: str, shown: str, tmp_path: Path
) -> None:
    with Reload(tmp_path) as reload:
        reload.wait_for("first")
        (tmp_path / "program.py").write_text(f"{broken}\n")
        reload.wait_for(shown)
        reload.wait_for("waiting for a change")
        assert reload.process.poll() is None
        reload.say("mended")
        reload.wait_for("mended")
        assert reload.output.read_text().count("waiting for a change") == 1


@pytest.mark.parametrize("ignores_sigint", [False, True], ids=["foreground", "background"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_both(number: signal.Signals, ignores_sigint: bool, tmp_path: Path) -> None:
    with Reload(tmp_path, ignores_sigint=ignores_sigint) as reload:
        program = reload.wait_for("first")
        reload.process.send_signal(number)
        reload.process.wait(10)
        assert gone(program)


def test_it_lets_the_program_drain_and_ends_with_its_status(tmp_path: Path) -> None:
    with Reload(tmp_path) as reload:
        drain = "import signal, sys\nsignal.signal(15, lambda *_: (time.sleep(0.5), print('drained'), sys.exit(7)))"
        reload.say("drains", f"{drain}\nprint('ready', flush=True)\ntime.sleep(60)")
        reload.wait_for("ready")
        os.killpg(reload.process.pid, signal.SIGINT)
        assert reload.process.wait(10) == 7
        assert "drained" in reload.output.read_text()


def test_the_program_does_not_outlive_it_even_when_it_is_killed(tmp_path: Path) -> None:
    with Reload(tmp_path) as reload:
        program = reload.wait_for("first")
        reload.process.kill()
        wait_until(lambda: gone(program), "the program's end")


# make test


def test_tests_that_are_chosen_demand_no_program_that_they_do_not_need(copy: Path) -> None:
    (copy / "tests").mkdir()
    (copy / "tests" / "install-servers.sh").write_text("#!/bin/sh\necho installing $@\n")
    (copy / "tests" / "install-servers.sh").chmod(0o755)
    for arguments, installs in ((["ARGS=-k sqlite"], False), ([], True)):
        command = ["make", "--dry-run", "--old-file=.venv/dev", "test", *arguments]
        recipe = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True, timeout=30).stdout
        command = ["sh", "-c", recipe.splitlines()[0]]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True, timeout=30)
        assert ("installing" in done.stdout) == installs


def test_the_quick_tests_are_many_and_none_that_needs_a_server() -> None:
    command = [sys.executable, "-m", "pytest", "--quick", "--collect-only", "-q", "-n", "0", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert len(re.findall("::test_", done.stdout)) > 1000
    assert not re.findall(r"tests/(?:deploy|faults|project)/|mysql\+redis|test_tls\.py|test_docs\.py", done.stdout)


@pytest.mark.parametrize("target", ["migration", "new", "release"])
def test_what_is_given_to_a_target_is_never_run_by_the_shell(copy: Path, target: str) -> None:
    given = [f"{name}=$(touch run-by-the-shell);`touch it`" for name in ("NAME", "DIR", "VERSION", "WITHOUT")]
    given = [text.replace("$", "$$") for text in given]
    subprocess.run([*MAKE, f"PYTHON={sys.executable}", target, *given], cwd=copy, capture_output=True, check=False)
    assert [path.name for path in copy.iterdir() if path.name in ("run-by-the-shell", "it")] == []
