"""The commands that are asked of Redis, each tried before a client is used: a refusal is found at start."""

from collections.abc import Awaitable, Callable
from typing import Any

from coredis.exceptions import AuthorizationError, ResponseError, UnknownCommandError, WrongTypeError

SECONDS = 1  # that a key of a trial lives

# By name, all that is sent, also by scripts, but for what a connection begins with (HELLO, SELECT, in a cluster
# CLUSTER SLOTS). docs/redis.md grants these.
TRIALS: dict[str, Callable[[Any, str], Awaitable[Any]]] = {
    "SET": lambda client, key: client.set(key, b"0", ex=SECONDS),
    "GET": lambda client, key: client.get(key),
    "MGET": lambda client, key: client.mget([key]),
    "INCR": lambda client, key: client.incr(key),
    "EXPIRE": lambda client, key: client.expire(key, SECONDS),
    "TTL": lambda client, key: client.ttl(key),
    "EVAL": lambda client, key: client.eval("return 0", keys=[key]),
    "DEL": lambda client, key: client.delete([key]),
}


class CommandRefused(Exception):  # noqa: N818 - read by an operator
    """By the rights of the user, or because the server has renamed it; its cause has Redis's words."""


async def try_commands(client: Any, key: str) -> None:
    """In one round trip. Raises CommandRefused, and what else Redis has against a command now."""
    async with client.pipeline(transaction=False, raise_on_error=False) as pipeline:
        answers = {name: trial(pipeline, key) for name, trial in TRIALS.items()}
    for name, answer in answers.items():
        try:
            await answer
        except (AuthorizationError, UnknownCommandError) as error:
            raise CommandRefused(name) from error


def is_of_one_command(error: Exception) -> bool:
    """Whether Redis is sound and only can't do this with this key; else its answer is about all of them, like OOM."""
    if isinstance(error, WrongTypeError):
        return True
    return type(error) is ResponseError and not str(error).partition(" ")[0].isupper()
