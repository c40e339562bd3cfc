"""A part of the service: what a folder or a file of handlers adds to the platform."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import msgspec
from starlette.routing import Route

from infra.events.tasks import Task
from infra.http.state import Hook, State

Json = dict[str, Any]
Open = Callable[[State], AbstractAsyncContextManager[Mapping[str, Any]]]


class Reader(NamedTuple):
    """How a handler's parameter of one type is filled.

    `read` gets the request and the parameter's type. `problems`: the statuses of the Problems that it raises, and when.
    `security`: OpenAPI's Security Scheme Object, by its name. `headers`: a Struct of the headers that it reads.
    """

    read: Callable[[Any, Any], Awaitable[Any]]
    problems: Mapping[int, str] = {}
    security: Mapping[str, Json] = {}
    headers: type[msgspec.Struct] | None = None


class Part(NamedTuple):
    """`open` is entered by the lifespan after the platform, and what it gives is added to the state.

    `readers`: by the type of the parameters that they fill. `tasks`: scheduled work, by the type of the event that asks
    for it. `hooks`: what another part calls in its transaction, by the name that it gives, with an id.
    `calls`: the names of the hooks that this part calls, as `state.hooks` has them. `links`: what `GET /` shows, paths
    by their names. `token_prefixes`: what its tokens begin with, for the logs to blot out.
    """

    routes: Sequence[Route] = ()
    open: Open | None = None
    readers: Mapping[type, Reader] = {}
    tasks: Mapping[str, Task] = {}
    hooks: Mapping[str, Hook] = {}
    calls: Sequence[str] = ()
    links: Mapping[str, str] = {}
    token_prefixes: Sequence[str] = ()
