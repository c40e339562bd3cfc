"""`python app.py` with cheap password hashes, so that what is raced or killed happens often; SIGUSR1 logs its tasks."""

import asyncio
import os
import signal
import sys

import app
from handlers.accounts import passwords

passwords.Passwords.__init__.__defaults__ = (passwords.Cost(2**4, 8, 1),)


def log_tasks(*_: object) -> None:
    app.log.info("tasks", extra={"count": len(asyncio.all_tasks())})


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, log_tasks)
    status = app.main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
