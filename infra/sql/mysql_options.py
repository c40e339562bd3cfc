"""How to reach MySQL: TLS in MySQL's own words, session variables. For the pool and for the migrations."""

import math
import os
import ssl
from typing import Any

from pymysql.constants import CLIENT

from infra.base.errors import StartupError
from settings import Settings


def mysql_password(settings: Settings) -> str:
    """The password's UTF-8 bytes as Latin-1, in which aiomysql and PyMySQL encode it."""
    return (settings.mysql_password or "").encode().decode("latin-1")


def connection_options(settings: Settings, *, unix_socket: str | None) -> dict[str, Any]:
    """Keyword arguments that aiomysql and PyMySQL share; the socket wins over host and port."""
    options: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": settings.mysql_connect_timeout,
        "client_flag": CLIENT.FOUND_ROWS,  # an UPDATE that changes nothing has still found its row
        "init_command": session_variables(settings),
    }
    if unix_socket:
        return options | {"unix_socket": unix_socket}  # never leaves the machine: no TLS inside
    return options | {"ssl": tls_context(settings)}


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """https://dev.mysql.com/doc/refman/8.4/en/connection-options.html#option_general_ssl-mode

    Raises StartupError 78 when MYSQL_SSL_CA holds no certificate.
    """
    mode = settings.mysql_ssl_mode
    if mode == "disabled":
        return None
    if mode in ("verify_ca", "verify_identity"):
        try:
            context = ssl.create_default_context(cafile=settings.mysql_ssl_ca)
        except (OSError, ValueError) as error:
            expected = f"expected a PEM file of certificates ({error})"
            raise StartupError(os.EX_CONFIG, f"MYSQL_SSL_CA is '{settings.mysql_ssl_ca}': {expected}") from None
        context.check_hostname = mode == "verify_identity"
        return context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context() would read the CAs for 15 ms
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def tls_required(settings: Settings) -> bool:
    """Whether a connection without TLS must not be used; PyMySQL and aiomysql take one silently (a socket counts)."""
    return settings.mysql_ssl_mode not in ("disabled", "preferred")


def session_variables(settings: Settings) -> str:
    """Times in UTC, no silent truncation, and the server too gives up a statement that nobody waits for any more."""
    seconds = settings.mysql_query_timeout
    return (
        "SET time_zone = '+00:00', sql_mode = 'TRADITIONAL', "
        f"innodb_lock_wait_timeout = {math.ceil(seconds)} "
        f"/*M! , max_statement_time = {seconds} */ /*!80000 , max_execution_time = {math.ceil(seconds * 1000)} */"
    )
