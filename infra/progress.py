"""Long work, step by step: in a terminal one line that counts the seconds, elsewhere a log line."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from infra.logs import get_logger

TICK = 0.1  # seconds

log = get_logger("task")


@contextmanager
def progress(step: str) -> Iterator[None]:
    """Tells that the step runs while the block does."""
    if not sys.stderr.isatty():
        log.info(step)
        yield
        return
    started = time.monotonic()
    over = threading.Event()
    room = shutil.get_terminal_size().columns - len(" 00000.0 s")  # in a wrapped line \r doesn't lead back to the start

    def show(end: str) -> None:
        sys.stderr.write(f"\r{step[:room]} {time.monotonic() - started:.1f} s{end}")
        sys.stderr.flush()

    def tick() -> None:
        while not over.wait(TICK):
            show("")

    ticker = threading.Thread(target=tick, daemon=True)
    show("")
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()
        show("\n")
