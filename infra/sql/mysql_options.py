"""How to reach MySQL: TLS in MySQL's own words, session variables. For the pool and for the migrations."""

import math
import ssl
from typing import Any

from pymysql.constants import CLIENT

from infra.base.certificates import load_pair
from settings import Settings

# What a server's own settings, or its init_connect, might have made of a new session. All in one statement, whose first
# word no setting changes the meaning of; MySQL and MariaDB name the isolation level differently.
SESSION = (
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin, time_zone = '+00:00', sql_mode = 'TRADITIONAL', "
    "autocommit = 1, completion_type = 0, unique_checks = 1, sql_auto_is_null = 0, sql_safe_updates = 0, "
    "sql_big_selects = 1, sql_select_limit = 18446744073709551615 "
    "/*M! , tx_isolation = 'REPEATABLE-READ' */ /*!80000 , transaction_isolation = 'REPEATABLE-READ' */"
)


def mysql_password(settings: Settings) -> str:
    """The password's UTF-8 bytes as Latin-1, in which aiomysql and PyMySQL encode it."""
    return (settings.mysql_password or "").encode().decode("latin-1")


def connection_options(settings: Settings, *, unix_socket: str | None) -> dict[str, Any]:
    """Keyword arguments that aiomysql and PyMySQL share; the socket wins over host and port."""
    options: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": settings.mysql_connect_timeout,
        "client_flag": CLIENT.FOUND_ROWS,  # an UPDATE that changes nothing has still found its row
        "init_command": SESSION + session_limits(settings),
    }
    if unix_socket:
        return options | {"unix_socket": unix_socket}  # never leaves the machine: no TLS inside
    return options | {"ssl": tls_context(settings)}


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """https://dev.mysql.com/doc/refman/8.4/en/connection-options.html#option_general_ssl-mode"""
    mode = settings.mysql_ssl_mode
    if mode == "disabled":
        return None
    if mode in ("verify_ca", "verify_identity"):
        context = ssl.create_default_context(cafile=settings.mysql_ssl_ca)
        context.check_hostname = mode == "verify_identity"
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context() would read the CAs for 15 ms
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    load_pair(context, settings.mysql_ssl_cert, settings.mysql_ssl_key)
    return context


def tls_required(settings: Settings) -> bool:
    """Whether a connection without TLS must not be used; PyMySQL and aiomysql take one silently (a socket counts)."""
    return settings.mysql_ssl_mode not in ("disabled", "preferred")


def session_limits(settings: Settings) -> str:
    """The server too gives up a statement that nobody waits for any more."""
    seconds = settings.mysql_query_timeout
    return (
        f", innodb_lock_wait_timeout = {math.ceil(seconds)} "
        f"/*M! , max_statement_time = {seconds} */ /*!80000 , max_execution_time = {math.ceil(seconds * 1000)} */"
    )
