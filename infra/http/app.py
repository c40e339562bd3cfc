"""The ASGI app: routes, parts and middleware put together."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from infra.base.errors import DeclarationError
from infra.http.declarations import faults_of
from infra.http.etags import IF_MATCH, IfMatch
from infra.http.operations import Declaration, Operation
from infra.http.parts import Part, Reader
from infra.http.routing import Router

READERS: Mapping[type, Reader] = {IfMatch: IF_MATCH}

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any]]]


def make_app(routes: Sequence[Route], middleware: Sequence[Middleware], lifespan: Lifespan) -> Starlette:
    """A Starlette app with our own router and nothing around it but the `middleware`, the first of it outermost.

    Starlette's constructor would add two of its own, and answers in plain text: here the router answers what handlers
    raise (with problem documents, inside the middleware that counts and logs), and the frame is the last net.
    """
    app = Starlette()
    app.router = Router(routes, lifespan=lifespan)
    app.middleware_stack = app.router
    for kind, arguments, options in reversed(middleware):
        app.middleware_stack = kind(app.middleware_stack, *arguments, **options)
    return app


def bind(routes: Sequence[Route], parts: Sequence[Part]) -> list[Route]:
    """The routes with the operations that their handlers declare. Raises DeclarationError with all that is wrong."""
    readers = {**{kind: reader for part in parts for kind, reader in part.readers.items()}, **READERS}
    if faults := list(faults_of(routes, parts, readers)):
        raise DeclarationError(faults)
    return [bound(route, readers) for route in routes]


def bound(route: Route, readers: Mapping[type, Reader]) -> Route:
    if not isinstance(route.endpoint, Declaration):
        return route
    operation = Operation(route.endpoint, route.param_convertors, readers)
    methods = sorted(route.methods or ())
    return Route(route.path, operation, methods=methods, name=route.name, include_in_schema=route.include_in_schema)
