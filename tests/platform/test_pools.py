"""docs/pools.md: its sums are those of the manifests, and they come out."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.manifests import ROOT, Manifest, compose, find, read_all, render, server_of, settings_from

MYSQL_DEFAULT = 151  # max_connections
SMALLEST_CLOUD_SQL = 250  # max_connections of db-f1-micro
JOBS = 2  # connections of the migration and the clean-up


def pool_of(variables: Mapping[str, object], folder: Path) -> int:
    return settings_from(variables, folder).mysql_pool_max_size


def on_compose(folder: Path) -> str:
    pool = pool_of(compose()["services"]["app"]["environment"], folder)
    return said("1", 1, pool, MYSQL_DEFAULT)


def on_kubernetes(folder: Path) -> str:
    """The autoscaler's most, the surge of a rolling update, and one that stops."""
    manifests = render("kubernetes/overlays/prod")
    most = find(manifests, "HorizontalPodAutoscaler")["spec"]["maxReplicas"]
    surge = find(manifests, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    pool = pool_of(server_of(manifests).variables, folder)
    return said(f"({most} + {surge} + 1)", most + surge + 1, pool, MYSQL_DEFAULT)


def on_knative(folder: Path) -> str:
    manifests = render("knative")
    most = int(annotation(find(manifests, "Service"), "max-scale"))
    return said(f"2 x {most}", 2 * most, pool_of(server_of(manifests).variables, folder), MYSQL_DEFAULT)


def on_cloud_run(folder: Path) -> str:
    manifests = read_all(ROOT / "deploy/cloudrun/service.yaml")
    most = int(annotation(manifests[0], "maxScale"))
    return said(f"2 x {most}", 2 * most, pool_of(server_of(manifests).variables, folder), SMALLEST_CLOUD_SQL)


def annotation(manifest: Manifest, name: str) -> str:
    value: str = manifest["spec"]["template"]["metadata"]["annotations"][f"autoscaling.knative.dev/{name}"]
    return value


def said(instances: str, count: int, pool: int, server: int) -> str:
    """The sum as the page has it. Fails when it doesn't fit into the server."""
    total = count * pool + JOBS
    assert total <= server
    return f"{instances} x {pool} + {JOBS} = {total} of {server}"


@pytest.mark.parametrize("platform", [on_compose, on_kubernetes, on_knative, on_cloud_run])
def test_the_pools_of_all_instances_fit_into_the_server_as_the_page_says(
    platform: Callable[[Path], str], tmp_path: Path
) -> None:
    name = platform.__name__.removeprefix("on_").replace("_", " ")
    rows = [line for line in (ROOT / "docs/pools.md").read_text(encoding="utf-8").splitlines() if "| " in line]
    [row] = [line for line in rows if line.lower().startswith(f"| {name} ")]
    assert row.split(" | ")[-1].removesuffix(" |") == platform(tmp_path)
