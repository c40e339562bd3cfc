"""Scheduled work: what an event from outside asks for, each event done once."""

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from infra.base.errors import Duplicate, Unavailable
from infra.base.times import now_ms
from infra.events.cloudevents import CloudEvent
from infra.logs import get_logger
from infra.sql.database import Database
from infra.sql.expiry import delete_expired
from settings import Settings

CLAIM_MARGIN = 10  # seconds that a claim outlasts REQUEST_TIMEOUT, for clocks that differ
MEMORY = 7 * 24 * 3600  # seconds that an event's id is known

log = get_logger("task")

Task = Callable[[Database, Settings], Awaitable[None]]


async def run_once(event: CloudEvent, task: Task, database: Database, settings: Settings) -> None:
    """Does the task unless it was done for this event. Raises Unavailable while another delivery of it is at work."""
    key = event_key(event)
    if not await claim(database, key, settings.request_timeout + CLAIM_MARGIN):
        return
    try:
        await task(database, settings)
    except BaseException:
        with suppress(Unavailable):  # or the claim runs out
            await database.execute("DELETE FROM received_events WHERE event_key = :key", {"key": key})
        raise
    await database.execute("UPDATE received_events SET claimed_until = NULL WHERE event_key = :key", {"key": key})


def event_key(event: CloudEvent) -> str:
    return hashlib.sha256(msgspec.json.encode([event.source, event.id])).hexdigest()


async def claim(database: Database, key: str, seconds: float) -> bool:
    """False when the event is done. Raises Unavailable while another delivery of it is at work."""
    now = now_ms()
    values = {"key": key, "now": now, "until": now + round(seconds * 1000)}
    try:
        await database.execute(
            "INSERT INTO received_events (event_key, claimed_until, expires_at) VALUES (:key, :until, :expires_at)",
            {"key": key, "until": values["until"], "expires_at": now + MEMORY * 1000},
        )
    except Duplicate:
        taken_over = await database.execute(
            "UPDATE received_events SET claimed_until = :until WHERE event_key = :key AND claimed_until <= :now", values
        )
        if not taken_over:
            rows = await database.fetch_all("SELECT claimed_until FROM received_events WHERE event_key = :key", values)
            if rows == [(None,)]:
                return False
            raise Unavailable("another delivery of this event is being worked on") from None
    return True


async def purge_received_events(database: Database, settings: Settings) -> None:
    """Forgets the events that came a week ago or earlier."""
    deleted = await delete_expired(database, "received_events", "event_key")
    log.info("expired events purged", extra={"received_events": deleted})
