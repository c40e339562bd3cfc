"""What this is, for whoever finds its address."""

from msgspec import Struct
from starlette.responses import Response

from infra.bodies import json_response
from infra.state import Request
from infra.version import VERSION


class Index(Struct):
    name: str
    version: str
    revision: str | None
    links: dict[str, str]


async def index(request: Request) -> Response:
    links = {"register": "/v1/auth/register", "login": "/v1/auth/login", "me": "/v1/auth/me", "health": "/health/ready"}
    return json_response(Index("berth", VERSION, request.state.settings.k_revision, links))
