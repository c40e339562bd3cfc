"""From where each account has been logged in to: such a client has limits of its own, whatever others do."""

from contextlib import suppress

from infra.base.errors import Duplicate
from infra.base.times import now_ms
from infra.sql.database import Connection, Database

DAY = 86_400_000  # milliseconds
KNOWN_FOR = 90 * DAY  # since the last log-in
MOST = 100  # of one account


async def remember_client(
    database: Database, account_id: str, network: str, known_until: int | None, password_hash: str
) -> None:
    """Known from now on, or for longer; `known_until` is what the row says, when there is one.

    Not when the account has another `password_hash` meanwhile: then whoever knew the old one is a stranger.
    """
    now = now_ms()
    values = {"account_id": account_id, "network": network, "expires_at": now + KNOWN_FOR}
    if known_until is None:
        await _make_room(database, account_id)
        with suppress(Duplicate):  # another log-in was first
            await database.execute(
                "INSERT INTO known_clients (account_id, network, expires_at)"
                " SELECT id, :network, :expires_at FROM accounts"
                " WHERE id = :account_id AND password_hash = :password_hash",
                values | {"password_hash": password_hash},
            )
    elif known_until < now + KNOWN_FOR - DAY:
        await database.execute(
            "UPDATE known_clients SET expires_at = :expires_at WHERE account_id = :account_id AND network = :network",
            values,
        )


async def forget_other_clients(transaction: Connection, account_id: str, network: str) -> None:
    """Whoever isn't this client is a stranger again."""
    await transaction.execute(
        "DELETE FROM known_clients WHERE account_id = :account_id AND network <> :network",
        {"account_id": account_id, "network": network},
    )


async def _make_room(database: Database, account_id: str) -> None:
    rows = await database.fetch_all(
        "SELECT expires_at, network FROM known_clients WHERE account_id = :account_id", {"account_id": account_id}
    )
    for _, network in sorted(rows)[: max(0, len(rows) - MOST + 1)]:
        await database.execute(
            "DELETE FROM known_clients WHERE account_id = :account_id AND network = :network",
            {"account_id": account_id, "network": network},
        )
