"""The schema's revision: what the code needs, what the database has, and the way from one to the other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymysql

from infra.base.errors import StartupError, Unavailable, describe
from infra.logs import get_logger
from infra.sql import mysql_errors, sqlite_driver
from infra.sql.database import Database, sqlite_path
from infra.sql.errors import DETAIL
from infra.sql.mysql_options import SESSION, connection_options, mysql_password, tls_required
from infra.sql.revisions import MIGRATIONS, all_migrations, newest_revision
from settings import Settings

if TYPE_CHECKING:
    import alembic.config
    import sqlalchemy

log = get_logger("system")


async def missing_migrations(database: Database) -> list[str]:
    """The names of those that the schema lacks. None when it is newer: it must still serve yesterday's code."""
    revision = await current_revision(database)
    return [name for number, name in all_migrations().items() if number > revision]


async def current_revision(database: Database) -> str:
    """Empty when nothing was ever migrated."""
    tables = (
        "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'alembic_version'"
        if database.mysql
        else "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
    )
    if not await database.fetch_one(tables):
        return ""
    rows = await database.fetch_all("SELECT version_num FROM alembic_version")
    return max((str(version) for (version,) in rows), default="")


def migrate(settings: Settings) -> None:
    """Runs what is missing. Several at once wait for the first; a schema newer than the code stays as it is.

    Raises Unavailable, and StartupError 70 when a migration fails.
    """
    import alembic.config  # noqa: PLC0415 - 0.4 s that only a migration should pay
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415

    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with failures_of("the schema's revision"), migration_connection(settings) as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision is None or revision <= newest_revision():
            config.attributes["connection"] = connection
            upgrade(config, revision)
            revision = newest_revision()
    log.info("the schema is up to date", extra={"revision": revision})


def upgrade(config: "alembic.config.Config", revision: str | None) -> None:
    import alembic.command  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    missing = list(ScriptDirectory.from_config(config).iterate_revisions("head", revision or "base"))
    for number, script in enumerate(reversed(missing), start=1):
        log.info("migration %s, %d of %d: %s", script.revision, number, len(missing), script.doc.rstrip("."))
        with failures_of(f"migration {Path(script.path).stem}"):
            alembic.command.upgrade(config, script.revision)


@contextmanager
def failures_of(what: str) -> Iterator[None]:
    """Raises Unavailable, or StartupError 70 with the statement that failed."""
    import sqlalchemy.exc  # noqa: PLC0415

    try:
        yield
    except (StartupError, Unavailable):
        raise
    except sqlalchemy.exc.DBAPIError as error:
        if error.orig is None or may_pass(error.orig):
            raise Unavailable(DETAIL, error.orig or error) from error
        statement = " ".join((error.statement or "").split())
        raise StartupError(os.EX_SOFTWARE, f"{what} failed: {error.orig}, in: {statement}") from error
    except Exception as error:
        raise StartupError(os.EX_SOFTWARE, f"{what} failed: {describe(error)}") from error


def may_pass(error: BaseException) -> bool:
    """Also when the migrating user lacks a right: the same migration goes through when it is granted."""
    if isinstance(error, pymysql.err.MySQLError):
        return mysql_errors.is_passing(error) or mysql_errors.code_of(error) in mysql_errors.DENIED_CODES
    return sqlite_driver.is_passing(error)


@contextmanager
def migration_connection(settings: Settings) -> "Iterator[sqlalchemy.Connection]":
    """A connection that holds the database's migration lock until it closes. Raises Unavailable."""
    import sqlalchemy  # noqa: PLC0415

    seconds = settings.startup_timeout
    if settings.mysql_enabled:
        engine = sqlalchemy.create_engine("mysql+pymysql://", creator=lambda: connect_mysql(settings))
        lock = f"SELECT GET_LOCK({lock_name(settings.name)}, {seconds})"
    else:
        path = sqlite_path(settings)
        sqlite_driver.make_private(path)
        url = sqlalchemy.URL.create("sqlite", database=str(path))
        engine = sqlalchemy.create_engine(url, connect_args={"isolation_level": None, "timeout": seconds})
        lock = "BEGIN IMMEDIATE"
    try:
        with engine.connect() as connection:
            locked = connection.exec_driver_sql(lock)
            if settings.mysql_enabled and locked.scalar() != 1:
                raise Unavailable(DETAIL, "another migration holds the lock")
            yield connection
            connection.commit()
    finally:
        engine.dispose()


def lock_name(service: str) -> str:
    """In SQL. MySQL takes 64 characters, a database's name may have as many. Not MD5: MySQL 9.6 has taken it out."""
    return f"LEFT(CONCAT('{service}.', SHA2(DATABASE(), 224)), 64)"


def connect_mysql(settings: Settings) -> Any:
    """A PyMySQL connection, with the TLS that the pool's connections have. Raises Unavailable."""
    options = connection_options(settings, unix_socket=settings.mysql_unix_socket)
    # Without a limit on a statement; Alembic's own table names no engine.
    options |= {"init_command": f"{SESSION}, default_storage_engine = InnoDB"}
    options |= {"ssl_disabled": not options.get("ssl")}  # or PyMySQL would use TLS of its own accord
    options |= {"user": settings.mysql_username, "password": mysql_password(settings), "db": settings.mysql_database}
    address = {"host": settings.mysql_host or "localhost", "port": settings.mysql_port}
    try:
        try:
            connection = pymysql.connect(**address, **options)
        except pymysql.err.OperationalError as error:
            if error.args[0] != pymysql.constants.CR.CR_SSL_CONNECTION_ERROR or tls_required(settings):
                raise
            connection = pymysql.connect(**address, **options | {"ssl_disabled": True})
    except pymysql.err.MySQLError as error:
        raise Unavailable(DETAIL, error) from error
    if settings.mysql_init_command:
        try:
            connection.query(settings.mysql_init_command)
        except pymysql.err.MySQLError as error:
            connection.close()
            raise mysql_errors.init_command_failed(error) from error
    return connection
