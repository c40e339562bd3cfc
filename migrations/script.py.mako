"""${message}."""

from infra.sql.definitions import execute

revision = "${up_revision}"
down_revision = ${'"%s"' % down_revision if down_revision else None}


def upgrade() -> None:
    """MySQL commits after each statement, so that each must be one that may be run again after a crash."""
    execute(
        """
        TO BE WRITTEN, as SQL that both databases take but for {ID} and {TABLE} (infra/sql/definitions.py)
        """
    )
