"""Prometheus metrics."""

from starlette.responses import Response

from infra.bearer import authenticate_service
from infra.state import Request


async def read_metrics(request: Request) -> Response:
    """200 in Prometheus' text format, for whoever has METRICS_TOKEN; where none is set for all, and in prod a 404."""
    from infra.scrape import CONTENT_TYPE, scrape  # noqa: PLC0415 - the first scrape pays for it, not the start

    settings = request.state.settings
    if settings.metrics_token or settings.sys_env == "prod":
        authenticate_service(request, settings.metrics_token)
    return Response(scrape(request.state), media_type=CONTENT_TYPE)
