"""The schema's revision: what the code needs, what the database has, and the way from one to the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.base.errors import Unavailable
from infra.logs import get_logger
from infra.sql.database import Database, sqlite_path
from infra.sql.mysql import connection_options, mysql_password, tls_required
from settings import Settings

if TYPE_CHECKING:
    import sqlalchemy

SCHEMA_REVISION = "0003"  # the newest in migrations/versions; revisions sort as text
MIGRATIONS = Path(__file__).parents[2] / "migrations"

log = get_logger("system")


async def is_current(database: Database) -> bool:
    """Whether the schema is the one that the code needs, or newer: a newer one must still serve yesterday's code."""
    tables = (
        "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'alembic_version'"
        if database.primary.mysql
        else "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
    )
    if not await database.fetch_one(tables):
        return False
    row = await database.fetch_one("SELECT version_num FROM alembic_version")
    return row is not None and str(row[0]) >= SCHEMA_REVISION


def migrate(settings: Settings) -> None:
    """Runs what is missing. Several at once wait for the first; a schema newer than the code stays as it is.

    Raises Unavailable, or what a migration raises.
    """
    import alembic.command  # noqa: PLC0415 - 0.4 s that only a migration should pay
    import alembic.config  # noqa: PLC0415
    import sqlalchemy.exc  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        with migration_connection(settings) as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
            if revision is None or revision <= SCHEMA_REVISION:
                config.attributes["connection"] = connection
                missing = list(ScriptDirectory.from_config(config).iterate_revisions("head", revision or "base"))
                for number, script in enumerate(reversed(missing), start=1):
                    step = f"{number} of {len(missing)}"
                    log.info("migration %s, %s: %s", script.revision, step, script.doc.rstrip("."))
                    alembic.command.upgrade(config, script.revision)
                revision = SCHEMA_REVISION
    except sqlalchemy.exc.OperationalError as error:
        raise Unavailable("the database is unavailable", error.orig or error) from error
    log.info("the schema is up to date", extra={"revision": revision})


@contextmanager
def migration_connection(settings: Settings) -> "Iterator[sqlalchemy.Connection]":
    """A connection that holds the database's migration lock until it closes. Raises Unavailable."""
    import sqlalchemy  # noqa: PLC0415

    seconds = settings.startup_timeout
    if settings.mysql_enabled:
        engine = sqlalchemy.create_engine("mysql+pymysql://", creator=lambda: connect_mysql(settings))
        lock = f"SELECT GET_LOCK({lock_name(settings.name)}, {seconds})"
    else:
        url = sqlalchemy.URL.create("sqlite", database=str(sqlite_path(settings)))
        engine = sqlalchemy.create_engine(url, connect_args={"isolation_level": None, "timeout": seconds})
        lock = "BEGIN IMMEDIATE"
    try:
        with engine.connect() as connection:
            locked = connection.exec_driver_sql(lock)
            if settings.mysql_enabled and locked.scalar() != 1:
                raise Unavailable("the database is unavailable", "another migration holds the lock")
            yield connection
            connection.commit()
    finally:
        engine.dispose()


def lock_name(service: str) -> str:
    """In SQL. MySQL takes 64 characters, a database's name may have as many. Not MD5: MySQL 9.6 has taken it out."""
    return f"LEFT(CONCAT('{service}.', SHA2(DATABASE(), 224)), 64)"


def connect_mysql(settings: Settings) -> Any:
    """A PyMySQL connection, with the TLS that the pool's connections have. Raises Unavailable."""
    import pymysql  # noqa: PLC0415

    options = connection_options(settings, unix_socket=settings.mysql_unix_socket)
    options |= {"init_command": "SET time_zone = '+00:00'"}  # no limit on a statement
    options |= {"ssl_disabled": not options.get("ssl")}  # or PyMySQL would use TLS of its own accord
    options |= {"user": settings.mysql_username, "password": mysql_password(settings), "db": settings.mysql_database}
    address = {"host": settings.mysql_host or "localhost", "port": settings.mysql_port}
    try:
        try:
            return pymysql.connect(**address, **options)
        except pymysql.err.OperationalError as error:
            if error.args[0] != pymysql.constants.CR.CR_SSL_CONNECTION_ERROR or tls_required(settings):
                raise
            return pymysql.connect(**address, **options | {"ssl_disabled": True})
    except pymysql.err.MySQLError as error:
        raise Unavailable("the database is unavailable", error) from error
