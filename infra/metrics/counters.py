"""What is counted. Whoever counts keeps the numbers and registers how to read them; scrape.py writes them."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

Labels = Mapping[str, str]


class Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Family(NamedTuple):
    """A metric and its samples; a counter's name is without `_total`."""

    kind: Literal["gauge", "counter", "histogram"]
    name: str
    help: str
    samples: Iterable[tuple[Labels, float | Histogram]]


Collect = Callable[[], Iterable[Family]]


class Registry:
    """All metrics of the process. `prefix` begins the names of those that no convention names."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.collectors: list[Collect] = []

    def register(self, collect: Collect) -> None:
        """`collect` is called at each scrape."""
        self.collectors.append(collect)

    def families(self) -> Iterator[Family]:
        for collect in self.collectors:
            for family in collect():
                yield family._replace(name=family.name.replace("{service}", self.prefix))


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

    def collect(self) -> Iterator[Family]:
        names = ("http_request_method", "http_route", "http_response_status_code")
        yield Family(
            "histogram",
            "http_server_request_duration_seconds",
            "Time to answer requests, by route template; empty: no route",
            [(dict(zip(names, map(str, key), strict=True)), histogram) for key, histogram in self.seconds.items()],
        )
        yield Family("gauge", "http_server_active_requests", "Requests in flight", [({}, self.in_flight)])
