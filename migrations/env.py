"""Alembic's entry point: `python app.py migrate`, or `alembic` from the command line with the same variables."""

import os
import sys

from alembic import context

import settings
from infra.base.variables import SettingsError
from infra.sql.schema import migration_connection


def load_settings() -> settings.Settings:
    try:
        return settings.load()
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(os.EX_CONFIG)


command = getattr(context.config.cmd_opts, "cmd", [None])[0]
if context.is_offline_mode() or (command and command.__name__ == "downgrade"):
    print("migrations go forward only, with the database at hand: to go back, restore a backup", file=sys.stderr)
    sys.exit(os.EX_USAGE)
connection = context.config.attributes.get("connection")
if connection is not None:
    context.configure(connection=connection)
    context.run_migrations()
else:
    with migration_connection(load_settings()) as connection:
        context.configure(connection=connection)
        context.run_migrations()
