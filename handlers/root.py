"""What this is, for whoever finds its address."""

from typing import Annotated

from msgspec import Meta, Struct

from infra.http.operations import operation
from infra.http.state import Request
from settings import NAME, VERSION


class Index(Struct):
    name: Annotated[str, Meta(examples=[NAME])]
    version: Annotated[str, Meta(examples=[VERSION])]
    revision: Annotated[str | None, Meta(description="K_REVISION", examples=[f"{NAME}-00007-abc"])]
    links: Annotated[dict[str, str], Meta(examples=[{"health": "/health/ready"}])]


@operation()
async def index(request: Request) -> Index:
    """Tell what this is."""
    settings = request.state.settings
    links = {**request.state.links, "health": "/health/ready"}
    if settings.docs_enabled:
        links |= {"docs": "/docs", "openapi": "/openapi.json"}
    return Index(NAME, VERSION, settings.k_revision, links)
