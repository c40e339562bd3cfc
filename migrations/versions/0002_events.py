"""Events taken in, so that each is done once, and events that are still to go out.

An event to go out is a row of `outbox` from the transaction that it tells of until the sink has taken it. Its id orders
the events of one account.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

MYSQL = (
    """
    CREATE TABLE IF NOT EXISTS received_events (
        event_key CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        claimed_until BIGINT NULL,
        expires_at BIGINT NOT NULL,
        KEY expires_at (expires_at)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
    """,
    """
    CREATE TABLE IF NOT EXISTS outbox (
        id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        account_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        event TEXT NOT NULL,
        attempts INT NOT NULL,
        attempt_at BIGINT NOT NULL,
        KEY account (account_id, id),
        KEY attempt_at (attempt_at)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
    """,
)

SQLITE = (
    """
    CREATE TABLE IF NOT EXISTS received_events (
        event_key TEXT NOT NULL PRIMARY KEY,
        claimed_until INTEGER NULL,
        expires_at INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS outbox (
        id TEXT NOT NULL PRIMARY KEY,
        account_id TEXT NOT NULL,
        event TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        attempt_at INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS received_events_expires_at ON received_events (expires_at)",
    "CREATE INDEX IF NOT EXISTS outbox_account ON outbox (account_id, id)",
    "CREATE INDEX IF NOT EXISTS outbox_attempt_at ON outbox (attempt_at)",
)


def upgrade() -> None:
    """MySQL commits after each statement, so each may be run again after a crash."""
    for statement in MYSQL if op.get_bind().dialect.name == "mysql" else SQLITE:
        op.execute(statement)
