"""A service that trusts Berth: it asks for every request whose token that is.

BERTH_URL=http://localhost:8000 EVENTS_TOKEN=... .venv/bin/uvicorn --app-dir examples --port 8001 orders:app
"""

import asyncio
import json
import os
import urllib.request
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def introspect(token: str) -> dict[str, Any]:
    """RFC 7662. A service with many requests keeps its connections, with an HTTP client of its choice."""
    question = urllib.request.Request(  # noqa: S310 - the scheme is in BERTH_URL, which is the operator's
        f"{os.environ['BERTH_URL']}/v1/auth/introspect",
        data=urlencode({"token": token}).encode(),
        headers={"Authorization": f"Bearer {os.environ['EVENTS_TOKEN']}"},
    )
    with urllib.request.urlopen(question, timeout=5) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
    return found


async def list_orders(request: Request) -> JSONResponse:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    whose = await asyncio.to_thread(introspect, token)
    if not whose["active"]:
        return JSONResponse({"title": "Unauthorized"}, 401, headers={"WWW-Authenticate": "Bearer"})
    return JSONResponse({"orders_of": whose["username"]})


app = Starlette(routes=[Route("/orders", list_orders)])
