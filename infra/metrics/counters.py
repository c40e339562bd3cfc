"""What is counted while requests run. Whoever counts keeps the numbers; infra/scrape.py gathers them."""

from bisect import bisect_left
from collections.abc import Sequence

# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class RequestMetrics:
    """By method, route template and status: all three come from sets of bounded size."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.seconds: dict[tuple[str, str, int], Histogram] = {}

    def observe(self, method: str, route: str | None, status: int, seconds: float) -> None:
        key = (method if method in METHODS else "_OTHER", route or "", status)
        histogram = self.seconds.get(key)
        if histogram is None:
            histogram = self.seconds[key] = Histogram(REQUEST_SECONDS)
        histogram.observe(seconds)
