"""Imported before all else by app.py: what the other imports, which take a while, must find."""

import gc
import os
import signal
import sys

# Objects. At 700, Python's own, what 32 requests hold at the same time makes it look for garbage again and again.
GARBAGE_THRESHOLD = 10_000

gc.disable()  # until `opened`: imports make no garbage, and looking for it costs a fifth of them


def end_on_signals() -> None:
    """PID 1 ignores a signal that it has no handler for. The server sets its own when it starts."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number if sys.argv[1:] else 0))


def opened() -> None:
    """When the lifespan has opened everything: modules and code are never looked at again."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    gc.enable()
