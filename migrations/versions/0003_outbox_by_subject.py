"""The outbox orders events by their subject, whatever that is, and not by an account.

On MySQL `account_id` stays, empty: instances of the version before may still write to it while they are replaced, and
what they write is delivered without an order.
"""

import sqlalchemy
from alembic import op

revision = "0003"
down_revision = "0002"

MYSQL = """
    ALTER TABLE outbox
        ADD COLUMN subject VARCHAR(128) NULL,
        MODIFY COLUMN account_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NULL,
        ADD KEY subject (subject, id)
"""

SQLITE = (
    """
    CREATE TABLE outbox_by_subject (
        id TEXT NOT NULL PRIMARY KEY,
        subject TEXT NULL,
        event TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        attempt_at INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "INSERT INTO outbox_by_subject SELECT id, account_id, event, attempts, attempt_at FROM outbox",
    "DROP TABLE outbox",
    "ALTER TABLE outbox_by_subject RENAME TO outbox",
    "CREATE INDEX outbox_subject ON outbox (subject, id)",
    "CREATE INDEX outbox_attempt_at ON outbox (attempt_at)",
)


def upgrade() -> None:
    """MySQL commits after each statement, so that it may have to go on after a crash between the two."""
    if op.get_bind().dialect.name == "mysql":
        if "subject" not in {column["name"] for column in sqlalchemy.inspect(op.get_bind()).get_columns("outbox")}:
            op.execute(MYSQL)
        op.execute("UPDATE outbox SET subject = account_id WHERE subject IS NULL AND account_id IS NOT NULL")
        return
    for statement in SQLITE:
        op.execute(statement)
