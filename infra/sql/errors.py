"""What a statement can end with, beside Duplicate and Unavailable."""

import re

from infra.base.errors import Unavailable

DETAIL = "the database is unavailable"


class ConnectionLost(Unavailable):
    """The connection broke, often before the statement ran: a read may be tried again."""


class Demoted(Unavailable):
    """The server takes no writes: after a failover its name leads to another one."""


class StatementError(Exception):
    """A defect: wrong SQL, or a row that the schema doesn't allow. Says the statement and never its values."""

    def __init__(self, error: str, statement: str) -> None:
        super().__init__(f"{error} in: {' '.join(statement.split())}")
        self.error = error
        self.statement = statement


def field_of(key: str) -> str:
    """`username` of a key or column that is named `t.username_key`; other keys are nobody's field."""
    found = re.search(r"(\w+)_key\b", key)
    return found[1] if found else "value"
