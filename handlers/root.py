"""What this is, for whoever finds its address."""

from typing import Annotated

from msgspec import Meta, Struct

from infra.http.operations import operation
from infra.state import Request
from infra.version import VERSION


class Index(Struct):
    name: Annotated[str, Meta(examples=["berth"])]
    version: Annotated[str, Meta(examples=[VERSION])]
    revision: Annotated[str | None, Meta(description="K_REVISION", examples=["berth-00007-abc"])]
    links: Annotated[dict[str, str], Meta(examples=[{"login": "/v1/auth/login"}])]


@operation()
async def index(request: Request) -> Index:
    """Tell what this is."""
    settings = request.state.settings
    links = {"register": "/v1/auth/register", "login": "/v1/auth/login", "me": "/v1/auth/me", "health": "/health/ready"}
    if settings.docs_enabled:
        links |= {"docs": "/docs", "openapi": "/openapi.json"}
    return Index("berth", VERSION, settings.k_revision, links)
