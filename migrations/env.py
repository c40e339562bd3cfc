"""Alembic's entry point: `python app.py migrate`, or `alembic` from the command line with the same variables."""

from alembic import context

import settings
from infra.sql.schema import migration_connection

connection = context.config.attributes.get("connection")
if connection is not None:
    context.configure(connection=connection)
    context.run_migrations()
else:
    with migration_connection(settings.load()) as connection:
        context.configure(connection=connection)
        context.run_migrations()
