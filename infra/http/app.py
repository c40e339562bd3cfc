"""The ASGI app: routes, parts and middleware put together."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from infra.http.operations import Declaration, Operation
from infra.http.parts import Part, Reader
from infra.http.routing import Router

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any]]]


def make_app(
    routes: Sequence[Route], parts: Sequence[Part], middleware: Sequence[Middleware], lifespan: Lifespan
) -> Starlette:
    """A Starlette app with our own router and nothing around it but the `middleware`, the first of it outermost.

    Starlette's constructor would add two of its own, and answers in plain text: here the router answers what handlers
    raise (with problem documents, inside the middleware that counts and logs), and the frame is the last net.
    """
    readers = {kind: reader for part in parts for kind, reader in part.readers.items()}
    every_route = [bound(route, readers) for route in routes]
    app = Starlette()
    app.router = Router(every_route, lifespan=lifespan)
    app.middleware_stack = app.router
    for kind, arguments, options in reversed(middleware):
        app.middleware_stack = kind(app.middleware_stack, *arguments, **options)
    return app


def bound(route: Route, readers: Mapping[type, Reader]) -> Route:
    """The route with the operation that its handler declares."""
    if not isinstance(route.endpoint, Declaration):
        return route
    operation = Operation(route.endpoint, readers)
    return Route(route.path, operation, methods=sorted(route.methods or ()), include_in_schema=route.include_in_schema)
