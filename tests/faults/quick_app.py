"""`python app.py` with cheap password hashes, so that what is raced or killed happens often; SIGUSR1 logs its tasks."""

import asyncio
import os
import signal
import sys
from functools import partial

import app
from handlers import accounts
from handlers.accounts.passwords import Cost

QUICK = accounts.PART._replace(open=partial(accounts.open_accounts, cost=Cost(2**4, 8, 1)))
app.PARTS[app.PARTS.index(accounts.PART)] = QUICK


def log_tasks(*_: object) -> None:
    app.log.info("tasks", extra={"count": len(asyncio.all_tasks())})


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, log_tasks)
    status = app.main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
