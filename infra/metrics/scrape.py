"""All metrics of the process as Prometheus text. Names follow OpenTelemetry's where it has one."""

import platform
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import Metric, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.exposition import generate_latest

from infra.logs import dropped_lines
from infra.metrics.counters import Histogram
from infra.state import State
from infra.version import VERSION

__all__ = ["CONTENT_TYPE", "scrape"]

Labels = Mapping[str, str]

LABELS = ("http_request_method", "http_route", "http_response_status_code")


def scrape(state: State) -> bytes:
    return generate_latest(Scrape(state))


class Scrape:
    """In the place of a registry, for one answer: the numbers are with whoever counts."""

    def __init__(self, state: State) -> None:
        self.state = state

    def collect(self) -> Iterator[Metric]:
        yield from self.requests()
        yield from self.connections()
        if self.state.redis.enabled:
            yield from self.redis()
        yield from self.work()
        yield from ProcessCollector(registry=None).collect()

    def requests(self) -> Iterator[Metric]:
        metrics = self.state.metrics
        yield histogram(
            "http_server_request_duration_seconds",
            "Time to answer requests, by route template; empty: no route",
            (
                (
                    {"http_request_method": method, "http_route": route, "http_response_status_code": str(status)},
                    seconds,
                )
                for (method, route, status), seconds in metrics.seconds.items()
            ),
        )
        yield gauge("http_server_active_requests", "Requests in flight", [({}, metrics.in_flight)])

    def connections(self) -> Iterator[Metric]:
        database = self.state.database
        pools = {"primary": database.primary} | ({"replica": database.replica} if database.replica else {})
        named = [({"db_client_connection_pool_name": name}, pool) for name, pool in pools.items()]
        yield histogram(
            "db_client_connection_wait_time_seconds",
            "Time to get a database connection",
            ((labels, pool.wait_seconds) for labels, pool in named),
        )
        yield gauge(
            "db_client_connection_count",
            "Database connections open",
            (
                ({**labels, "db_client_connection_state": state}, value)
                for labels, pool in named
                for state, value in (("used", pool.used), ("idle", max(0, pool.size - pool.used)))
            ),
        )
        most = self.state.settings.mysql_pool_max_size
        yield gauge("db_client_connection_max", "MYSQL_POOL_MAX_SIZE", ((labels, most) for labels, _ in named))

    def redis(self) -> Iterator[Metric]:
        redis = self.state.redis
        yield gauge("berth_redis_up", "Whether Redis can be used", [({}, redis.client is not None)])
        yield counter("berth_redis_errors", "Redis commands that failed", [({}, redis.errors)])
        yield counter(
            "berth_cache_reads",
            "Sessions looked up in Redis",
            [({"result": "hit"}, redis.hits), ({"result": "miss"}, redis.misses)],
        )

    def work(self) -> Iterator[Metric]:
        passwords, outbox, settings = self.state.passwords, self.state.outbox, self.state.settings
        running = min(passwords.pending, passwords.cores)
        yield gauge(
            "berth_password_hashes",
            "Password hashes at work, and waiting for a core",
            [({"state": "running"}, running), ({"state": "queued"}, passwords.pending - running)],
        )
        yield counter(
            "berth_event_deliveries",
            "Attempts to send domain events to K_SINK",
            [({"outcome": "delivered"}, outbox.delivered), ({"outcome": "failed"}, outbox.failed)],
        )
        yield counter("berth_log_lines_dropped", "Log lines that could not be written", [({}, dropped_lines())])
        build = {"version": VERSION, "revision": settings.k_revision or "", "python": platform.python_version()}
        yield gauge("berth_build_info", "What runs", [(build, 1)])


def gauge(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    return family("gauge", name, name, text, samples)


def counter(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    return family("counter", name, f"{name}_total", text, samples)


def family(kind: str, name: str, sample: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    metric = Metric(name, text, kind)
    for labels, value in samples:
        metric.add_sample(sample, dict(labels), value)
    return metric


def histogram(name: str, text: str, samples: Iterable[tuple[Labels, Histogram]]) -> Metric:
    metric = Metric(name, text, "histogram")
    for labels, one in samples:
        counts = list(accumulate(one.counts))
        for bound, count in zip((*one.bounds, "+Inf"), counts, strict=True):
            metric.add_sample(f"{name}_bucket", {**labels, "le": str(bound)}, count)
        metric.add_sample(f"{name}_count", dict(labels), counts[-1])
        metric.add_sample(f"{name}_sum", dict(labels), one.total)
    return metric
