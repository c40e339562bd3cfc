"""Accounts, sessions and the hashes of refresh tokens.

Ids are UUIDv7 made by the application, times are Unix milliseconds. Each key leads with the account where it can, so
that a sharded database finds its shard; there are no foreign keys, and whoever deletes an account deletes its rows.
"""

from alembic import op

revision = "0001"
down_revision = None

MYSQL = (
    """
    CREATE TABLE IF NOT EXISTS accounts (
        id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        username VARCHAR(64) NOT NULL,
        username_key VARCHAR(64) NOT NULL,
        email VARCHAR(254) NOT NULL,
        email_key VARCHAR(320) NOT NULL,
        password_hash VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        created_at BIGINT NOT NULL,
        updated_at BIGINT NOT NULL,
        last_login_at BIGINT NULL,
        UNIQUE KEY username_key (username_key),
        UNIQUE KEY email_key (email_key)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
    """,
    """
    CREATE TABLE IF NOT EXISTS sessions (
        account_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        created_at BIGINT NOT NULL,
        last_used_at BIGINT NOT NULL,
        expires_at BIGINT NOT NULL,
        client VARCHAR(64) NOT NULL,
        user_agent VARCHAR(512) NOT NULL,
        PRIMARY KEY (account_id, id),
        KEY expires_at (expires_at)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
    """,
    """
    CREATE TABLE IF NOT EXISTS refresh_tokens (
        token_hash CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        account_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        session_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        expires_at BIGINT NOT NULL,
        spent_at BIGINT NULL,
        KEY account_session (account_id, session_id),
        KEY expires_at (expires_at)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
    """,
)

SQLITE = (
    """
    CREATE TABLE IF NOT EXISTS accounts (
        id TEXT NOT NULL PRIMARY KEY,
        username TEXT NOT NULL,
        username_key TEXT NOT NULL UNIQUE,
        email TEXT NOT NULL,
        email_key TEXT NOT NULL UNIQUE,
        password_hash TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        last_login_at INTEGER NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS sessions (
        account_id TEXT NOT NULL,
        id TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        last_used_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        client TEXT NOT NULL,
        user_agent TEXT NOT NULL,
        PRIMARY KEY (account_id, id)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS refresh_tokens (
        token_hash TEXT NOT NULL PRIMARY KEY,
        account_id TEXT NOT NULL,
        session_id TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        spent_at INTEGER NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS sessions_expires_at ON sessions (expires_at)",
    "CREATE INDEX IF NOT EXISTS refresh_tokens_account_session ON refresh_tokens (account_id, session_id)",
    "CREATE INDEX IF NOT EXISTS refresh_tokens_expires_at ON refresh_tokens (expires_at)",
)


def upgrade() -> None:
    """MySQL commits after each statement, so each may be run again after a crash."""
    for statement in MYSQL if op.get_bind().dialect.name == "mysql" else SQLITE:
        op.execute(statement)
