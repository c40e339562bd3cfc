"""Scheduled work: events from outside, each done once; `python app.py run TYPE` does the same from a job."""

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta

from infra.events.cloudevents import CloudEvent
from infra.sql.database import Database
from infra.logs import get_logger
from infra.http.operations import operation
from infra.events.outbox import Outbox
from infra.http.problems import Duplicate, Unavailable, invalid
from infra.state import Request
from infra.base.times import now_ms
from settings import Settings

BATCH = 500  # rows deleted at a time
CLAIM_MARGIN = 10  # seconds that a claim outlasts REQUEST_TIMEOUT, for clocks that differ
MEMORY = 7 * 24 * 3600  # seconds that an event's id is known

log = get_logger("task")


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
            row = await database.fetch_one("SELECT claimed_until FROM received_events WHERE event_key = :key", values)
            if row and row[0] is None:
                return False
            raise Unavailable("another delivery of this event is being worked on") from None
    return True


async def purge_sessions(database: Database, settings: Settings) -> None:
    """Deletes what has expired. A spent refresh token is known, and its reuse seen, until it expires."""
    now = now_ms()
    deleted = {
        "sessions": await purge(database, "sessions", "account_id, id", now),
        "refresh_tokens": await purge(database, "refresh_tokens", "token_hash", now),
        "received_events": await purge(database, "received_events", "event_key", now),
    }
    log.info("expired sessions purged", extra=deleted)


async def purge(database: Database, table: str, key: str, now: int) -> int:
    """In batches, each a transaction of its own: what is done stays done. The number of rows."""
    batch = f"{table} WHERE expires_at <= :now ORDER BY expires_at LIMIT {BATCH}"
    if not database.mysql:  # SQLite's DELETE may know no LIMIT
        batch = f"{table} WHERE ({key}) IN (SELECT {key} FROM {batch})"  # noqa: S608
    total = 0
    while deleted := await database.execute(f"DELETE FROM {batch}", {"now": now}):  # noqa: S608
        total += deleted
    return total


async def deliver_events(database: Database, settings: Settings) -> None:
    """Sends what is due in the outbox: where no instance has the CPU to do it in the background."""
    if not await Outbox(database, settings).deliver_due():
        raise Unavailable("the sink takes no events")


TASKS: dict[str, Callable[[Database, Settings], Awaitable[None]]] = {
    "dev.berth.sessions.purge": purge_sessions,
    "dev.berth.events.deliver": deliver_events,
}


class Task(CloudEvent, kw_only=True):
    """An event that asks for work; its data isn't read. In binary mode the attributes are in ce- headers."""

    type: Annotated[str, Meta(extra_json_schema={"enum": list(TASKS)})]


@operation(bearer="events_token")
async def receive_event(request: Request, event: Task) -> None:
    """Do the work that an event asks for, once.

    204: it is done, now or earlier. 5xx: it isn't, send the event again.
    """
    settings, database = request.state.settings, request.state.database
    if event.type not in TASKS:
        raise invalid("type", f"expected one of {', '.join(TASKS)}")
    key = event_key(event)
    if await claim(database, key, settings.request_timeout + CLAIM_MARGIN):
        try:
            await TASKS[event.type](database, settings)
        except BaseException:
            with suppress(Unavailable):  # or the claim runs out
                await database.execute("DELETE FROM received_events WHERE event_key = :key", {"key": key})
            raise
        await database.execute("UPDATE received_events SET claimed_until = NULL WHERE event_key = :key", {"key": key})
