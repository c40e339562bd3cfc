"""Times: Unix milliseconds in the database, RFC 3339 in UTC outside."""

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Meta

Time = Annotated[datetime, Meta(tz=True, description="RFC 3339, in UTC", examples=["2026-11-24T08:55:26.427000Z"])]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def utc(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)
