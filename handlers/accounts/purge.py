"""Scheduled: what has expired is deleted."""

from infra.logs import get_logger
from infra.sql.database import Database
from infra.sql.expiry import delete_expired
from settings import Settings

log = get_logger("task")


async def purge_sessions(database: Database, settings: Settings) -> None:
    """A spent refresh token is known, and its reuse seen, until it expires."""
    deleted = {
        "sessions": await delete_expired(database, "sessions", "account_id, id"),
        "refresh_tokens": await delete_expired(database, "refresh_tokens", "token_hash"),
        "known_clients": await delete_expired(database, "known_clients", "account_id, network"),
        "received_events": await delete_expired(database, "received_events", "event_key"),  # only with events
    }
    log.info("expired sessions purged", extra=deleted)
