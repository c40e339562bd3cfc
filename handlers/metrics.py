"""Prometheus metrics."""

from starlette.responses import Response

from infra.http.operations import operation
from infra.http.state import Request


@operation(answers={200: "text/plain"}, bearer="metrics_token", bearer_optional=True)
async def read_metrics(request: Request) -> Response:
    """Read the metrics, in Prometheus' text format."""
    from infra.metrics.scrape import CONTENT_TYPE, scrape  # noqa: PLC0415 - the first scrape pays for it, not the start

    return Response(scrape(request.state.registry), media_type=CONTENT_TYPE)
