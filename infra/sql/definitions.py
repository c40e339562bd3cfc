"""Definitions for a migration, in SQL that both databases take but for words in braces: `{ID}`, `{TABLE}`.

MySQL commits after each statement, so each of these may be run again after a crash.
"""

import sqlalchemy
from alembic import op

WORDS = {
    "mysql": {
        "ID": "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin",
        "TABLE": "ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin",
    },
    "sqlite": {"ID": "TEXT", "TABLE": "WITHOUT ROWID"},
}


def execute(statement: str) -> None:
    """Such as `CREATE TABLE IF NOT EXISTS notes (id {ID} NOT NULL PRIMARY KEY, text TEXT NOT NULL) {TABLE}`."""
    op.execute(statement.format(**WORDS[op.get_bind().dialect.name]))


def add_column(table: str, column: str, definition: str) -> None:
    """Such as `add_column("notes", "pinned_at", "BIGINT NULL")`."""
    if column not in {known["name"] for known in sqlalchemy.inspect(op.get_bind()).get_columns(table)}:
        execute(f"ALTER TABLE {table} ADD COLUMN {column} {definition}")


def add_index(table: str, index: str, *columns: str) -> None:
    """Such as `add_index("notes", "notes_pinned_at", "pinned_at")`."""
    if index not in {known["name"] for known in sqlalchemy.inspect(op.get_bind()).get_indexes(table)}:
        execute(f"CREATE INDEX {index} ON {table} ({', '.join(columns)})")
