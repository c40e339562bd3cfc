"""What can go wrong on any floor, in plain exceptions; `infra.http.problems` makes answers of them."""

import os
from collections.abc import Sequence

NO_ANSWER = "no answer in time"
RETRY_AFTER = 2  # seconds: the lost server's clients reconnect within that once it is back


class Unavailable(Exception):  # noqa: N818 - HTTP's word
    """What is needed is lost or too slow: 503. `cause` is for the log, `detail` for the client, too."""

    def __init__(self, detail: str, cause: BaseException | str = "", retry_after: int = RETRY_AFTER) -> None:
        super().__init__(detail)
        self.detail = detail
        self.cause = describe(cause) if isinstance(cause, BaseException) else cause
        self.retry_after = retry_after  # seconds


class Duplicate(Exception):  # noqa: N818
    """A unique key is taken: 409. `field` is the key's name without `_key`."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is taken")
        self.field = field


class StartupError(Exception):
    """`status` is the exit status, one of sysexits.h; each of `messages` is a line of its own."""

    def __init__(self, status: int, *messages: str) -> None:
        super().__init__("\n".join(messages))
        self.status = status
        self.messages = messages


class DeclarationError(StartupError):
    """What the code says of itself doesn't fit together: a handler, a hook, a migration. All faults at once."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(os.EX_SOFTWARE, *faults)


def describe(error: BaseException) -> str:
    """The innermost causes of an error in one line, without the groups and wrappers that libraries put around them."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    if isinstance(error, TimeoutError) and not str(error):  # of asyncio.timeout(), which gives no reason
        return NO_ANSWER
    inner = error.__cause__ or (error.__context__ if not error.__suppress_context__ else None)
    if isinstance(inner, Unavailable):  # of an attempt before this one
        inner = None
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{text} ({describe(inner)})" if inner is not None else text
