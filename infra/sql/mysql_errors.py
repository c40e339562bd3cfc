"""MySQL's errors, MariaDB's too: which are nobody's fault, and what the others say."""

from pymysql import err
from pymysql.constants import CR, ER

from infra.base.errors import Duplicate, Unavailable
from infra.sql.errors import DETAIL, ConnectionLost, Demoted, StatementError, field_of

FAILURES = (err.MySQLError, OSError, EOFError, RuntimeError)
NEEDS_TLS = "caching_sha2_password needs TLS: MYSQL_SSL_MODE is disabled, or the server offers none"

DUPLICATE_CODES = {ER.DUP_ENTRY, 1586}  # ER_DUP_ENTRY_WITH_KEY_NAME
# The last two are MariaDB's ER_CONNECTION_KILLED and MySQL's ER_CLIENT_INTERACTION_TIMEOUT.
LOST_CODES = {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, ER.SERVER_SHUTDOWN, 1927, 4031}
DEMOTED_CODES = {ER.OPTION_PREVENTS_STATEMENT, 1836}  # --read-only; MySQL's ER_READ_ONLY_MODE
DENIED_CODES = {ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR}
# Another time, or on another server, the same statement would have gone through.
PASSING_CODES = {
    *(ER.CON_COUNT_ERROR, ER.TOO_MANY_USER_CONNECTIONS, ER.USER_LIMIT_REACHED, ER.OUT_OF_RESOURCES, ER.OUTOFMEMORY),
    *(ER.OUT_OF_SORTMEMORY, ER.DISK_FULL, ER.RECORD_FILE_FULL, ER.GET_ERRNO, ER.ERROR_ON_WRITE, ER.ERROR_ON_READ),
    *(ER.OPEN_AS_READONLY, ER.CANT_UPDATE_WITH_READLOCK),
    *(ER.LOCK_WAIT_TIMEOUT, ER.LOCK_TABLE_FULL, ER.LOCK_DEADLOCK, ER.CHECKREAD),
    ER.TABLE_DEF_CHANGED,  # by a migration, since the transaction began
    *(ER.ERROR_DURING_COMMIT, ER.ERROR_DURING_ROLLBACK, ER.QUERY_INTERRUPTED),
    *(ER.NET_READ_ERROR, ER.NET_READ_INTERRUPTED, ER.NET_ERROR_ON_WRITE, ER.NET_WRITE_INTERRUPTED),
    *(ER.ABORTING_CONNECTION, ER.NEW_ABORTING_CONNECTION),
    ER.UNKNOWN_COM_ERROR,  # of a Galera node that is cut off
    ER.UNKNOWN_ERROR,  # of Vitess, while a shard has no primary
    1637,  # ER_TOO_MANY_CONCURRENT_TRXS
    1792,  # ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
    1969,  # MariaDB's ER_STATEMENT_TIMEOUT
    3024,  # MySQL's ER_QUERY_TIMEOUT
    3100,  # ER_RUN_HOOK_ERROR and the next: group replication refuses a commit
    3101,
    3168,  # ER_SERVER_ISNT_AVAILABLE
}
# Client errors begin at 2000, the proxies' and TiDB's own at 9000: none of them is about the statement.
CLIENT_CODES, PROXY_CODES = range(2000, 3000), range(9000, 10_000)
# What these say names parts of the schema; others quote values.
SPEAKING_CODES = {
    *(ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR, ER.BAD_NULL_ERROR, ER.NO_DEFAULT_FOR_FIELD, ER.WRONG_VALUE_COUNT_ON_ROW),
    4025,  # MariaDB's ER_CONSTRAINT_FAILED
}
NAMES = {code: name for name, code in vars(ER).items() if name.isupper() and isinstance(code, int)}


def code_of(error: BaseException) -> int | None:
    """None for those of the packages themselves, about a connection that is closed or a packet out of order."""
    code = error.args[0] if isinstance(error, err.MySQLError) and error.args else None
    return code if isinstance(code, int) and code else None


def explain(error: BaseException, statement: str) -> Duplicate | Unavailable | StatementError:
    """What to raise in its place."""
    code = code_of(error)
    if code in DUPLICATE_CODES:
        return Duplicate(duplicate_field(str(error.args[1])))
    if is_passing(error):
        return unavailable(error)
    name = NAMES.get(code or 0, type(error).__name__)
    said = f": {error.args[1]}" if code in SPEAKING_CODES else ""
    return StatementError(f"MySQL error {code} {name}{said}", statement)


def is_passing(error: BaseException) -> bool:
    code = code_of(error)
    if code is None:
        return not isinstance(error, err.ProgrammingError)
    if code in CLIENT_CODES or code in PROXY_CODES:
        return True
    return code in LOST_CODES | DEMOTED_CODES | PASSING_CODES


def unavailable(error: BaseException) -> Unavailable:
    """For any error while connecting, too."""
    if isinstance(error, RuntimeError) and "caching_sha2_password" in str(error):  # the packages would ask for another
        return Unavailable(DETAIL, NEEDS_TLS)
    code = code_of(error)
    kind = ConnectionLost if code in LOST_CODES else Demoted if code in DEMOTED_CODES else Unavailable
    return kind(DETAIL, error)


def init_command_failed(error: BaseException) -> Unavailable:
    """Says so where the statement is to blame: waiting doesn't mend it."""
    found = unavailable(error)
    return found if is_passing(error) else Unavailable(DETAIL, f"MYSQL_INIT_COMMAND is refused: {found.cause}")


def duplicate_field(message: str) -> str:
    """The key's name is quoted last, whatever `lc_messages`: "Duplicate entry 'x' for key 't.name_key'"."""
    return field_of(message.rpartition("'")[0].rpartition("'")[2])
