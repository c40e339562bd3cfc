"""All metrics as Prometheus text: https://prometheus.io/docs/instrumenting/exposition_formats/."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import Metric, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.exposition import generate_latest

from infra.metrics.counters import Family, Histogram, Labels, Registry

__all__ = ["CONTENT_TYPE", "scrape"]


def scrape(registry: Registry) -> bytes:
    return generate_latest(Collector(registry))


class Collector:
    """What prometheus-client asks for its metrics: those of the registry, and the process's own."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self.registry.families():
            yield metric_of(family)
        yield from ProcessCollector(registry=None).collect()


def metric_of(family: Family) -> Metric:
    metric = Metric(family.name, family.help, family.kind)
    sample = f"{family.name}_total" if family.kind == "counter" else family.name
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            add_histogram(metric, labels, value)
        else:
            metric.add_sample(sample, dict(labels), value)
    return metric


def add_histogram(metric: Metric, labels: Labels, histogram: Histogram) -> None:
    counts = list(accumulate(histogram.counts))
    for bound, count in zip((*histogram.bounds, "+Inf"), counts, strict=True):
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": str(bound)}, count)
    metric.add_sample(f"{metric.name}_count", dict(labels), counts[-1])
    metric.add_sample(f"{metric.name}_sum", dict(labels), histogram.total)
