"""`python -m infra.process.reload COMMAND` runs it, and anew when a .py file or the file of variables changes."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL = 0.1  # seconds between two looks at the files
GRACE = 0.15  # seconds for a program that is out of date to end in order; nobody waits for its drain
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

Files = dict[str, int]  # a path, and when it was last written


def main(command: list[str]) -> int:
    """Until a signal; then the command's exit status."""
    received: list[int] = []
    # SIGINT, too: a shell that puts a job into the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: received.append(number))
    while True:
        seen = files(Path())
        program = start(command)
        watch(program, seen, received)
        if received:
            return end(program, received)
        replace(program)


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """In a process group of its own: of a Ctrl-C it would get two signals, the terminal's and ours."""
    return subprocess.Popen(  # noqa: S603 - what the command line says
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - there are no threads here
    )


def die_with_parent() -> None:
    with contextlib.suppress(AttributeError):  # where there is no Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def watch(program: subprocess.Popen[bytes], seen: Files, received: list[int]) -> None:
    """Until a file changes or a signal comes; a program that ends by itself may work after the next change."""
    told = False
    while not received and files(Path()) == seen:
        if not told and program.poll() is not None:
            told = True
            sys.stderr.write(f"ended with exit status {program.returncode}; waiting for a change\n")
        time.sleep(POLL)


def files(folder: Path) -> Files:
    """What is looked at; not what is hidden, like .venv."""
    found: Files = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        paths = [os.path.join(parent, name) for name in names if name.endswith(".py")]  # noqa: PTH118 - ten times a second
        found |= stamps(paths)
    return found | stamps([os.environ.get("ENV_FILE") or ".env"])


def stamps(paths: list[str]) -> Files:
    found: Files = {}
    for path in paths:
        with contextlib.suppress(OSError):  # it went meanwhile
            found[path] = os.stat(path).st_mtime_ns  # noqa: PTH116
    return found


def replace(program: subprocess.Popen[bytes]) -> None:
    program.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(GRACE)
    program.kill()
    program.wait()


def end(program: subprocess.Popen[bytes], received: list[int]) -> int:
    """It drains; a second signal ends it at once."""
    program.terminate()
    while program.poll() is None and len(received) == 1:
        time.sleep(POLL)
    program.kill()
    return program.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
