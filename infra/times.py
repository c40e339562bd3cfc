"""Times: Unix milliseconds in the database, RFC 3339 in UTC outside."""

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def utc(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)
