"""A service that trusts Berth: it asks for every request whose token that is.

BERTH_URL=http://localhost:8000 EVENTS_TOKEN=... uvicorn --app-dir examples --port 8001 orders:app
"""

import os

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

berth = httpx.AsyncClient(
    base_url=os.environ["BERTH_URL"], headers={"Authorization": f"Bearer {os.environ['EVENTS_TOKEN']}"}
)


async def list_orders(request: Request) -> JSONResponse:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    answer = await berth.post("/v1/auth/introspect", data={"token": token})
    whose = answer.raise_for_status().json()
    if whose.get("token_type") != "Bearer":  # not a live access token
        return JSONResponse({"title": "Unauthorized"}, 401, headers={"WWW-Authenticate": "Bearer"})
    return JSONResponse({"orders_of": whose["username"]})


app = Starlette(routes=[Route("/orders", list_orders)])
