"""The router: finds the operation of a request, and answers what it raises."""

from collections.abc import Sequence
from typing import Any

import starlette.routing
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from infra.base.errors import Duplicate, Unavailable
from infra.http.problems import Problem, error_response


class Router(starlette.routing.Router):
    """Starlette's, but a path without parameters is looked up: it would try one route after the other.

    `OPTIONS *` asks about the server as a whole (RFC 9110, 9.3.7): it is told every method that a route has.
    """

    def __init__(self, routes: Sequence[Route], **options: Any) -> None:
        super().__init__(routes, redirect_slashes=False, **options)
        fixed = [route for route in routes if not route.param_convertors]
        self.fixed = {(method, route.path): route for route in fixed for method in route.methods or ()}
        methods = {method for route in routes for method in route.methods or ()}
        self.allow = ", ".join(sorted({*methods, "OPTIONS"}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        try:
            route = self.fixed.get((scope["method"], scope["path"]))
            if route is None and scope["path"] == "*":
                await Response(status_code=204, headers={"Allow": self.allow})(scope, receive, send)
            elif route is None:
                await super().__call__(scope, receive, send)
            else:
                scope["route"] = route
                await route.app(scope, receive, send)
        except (Problem, Unavailable, Duplicate, HTTPException, ClientDisconnect) as error:
            await error_response(error, scope)(scope, receive, send)
