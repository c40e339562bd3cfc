"""/metrics: what a scrape tells, and what it never tells."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import httpx
import pymysql
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import TEST_SETTINGS, StartService, backend_settings
from tests.support.proxy import Proxy
from tests.support.servers import MariaDB, Redis, free_port, wait_until
from tests.support.service import ROOT, Service
from tests.support.sink import Sink
from tests.support.wire import assert_problem, connect

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

DURATION = "http_server_request_duration_seconds"
WAIT = "db_client_connection_wait_time_seconds"


@pytest.fixture(scope="module")
def service(backend: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    with Service({**TEST_SETTINGS, **backend_settings(backend, request)}) as shared:
        yield shared


def scrape(service: Service) -> Samples:
    """Every sample by name and labels. One that is there twice fails the test."""
    answer = service.client.get("/metrics")
    assert answer.status_code == 200
    families = list(text_string_to_metric_families(answer.text))
    samples = [((one.name, frozenset(one.labels.items())), one.value) for family in families for one in family.samples]
    assert len(dict(samples)) == len(samples)
    assert len({family.name for family in families}) == len(families)
    return dict(samples)


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels."""
    return sum(number for (one, own), number in samples.items() if one == name and own >= labels.items())


def requests(samples: Samples, method: str, route: str, status: int) -> float:
    labels = {"http_request_method": method, "http_route": route, "http_response_status_code": str(status)}
    return value(samples, f"{DURATION}_count", **labels)


def test_it_is_prometheus_text_with_a_type_and_a_help_for_each_metric(service: Service) -> None:
    answer = service.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")


def test_a_request_is_counted_and_timed_under_its_route_template(service: Service) -> None:
    account = service.sign_up()
    before = scrape(service)
    started = time.perf_counter()
    service.client.delete("/v1/auth/sessions/no-such-one", headers=account.headers)
    after = scrape(service)
    template = ("DELETE", "/v1/auth/sessions/{session_id}", 404)
    assert requests(after, *template) - requests(before, *template) == 1
    spent = [value(one, f"{DURATION}_sum", http_route=template[1]) for one in (before, after)]
    assert 0 < spent[1] - spent[0] < time.perf_counter() - started
    assert "no-such-one" not in str(after)


def test_the_buckets_of_a_histogram_add_up(service: Service) -> None:
    service.sign_up()
    samples = scrape(service)
    labels = {"http_route": "/v1/auth/login", "http_response_status_code": "200"}
    counts = [value(samples, f"{DURATION}_bucket", **labels, le=bound) for bound in ("0.005", "1.0", "10.0", "+Inf")]
    assert counts == sorted(counts)
    assert counts[0] == 0  # a password is hashed
    assert counts[-1] == value(samples, f"{DURATION}_count", **labels) > 0


def test_no_client_can_make_new_series(service: Service) -> None:
    methods = ["PROPFIND", "MKCOL", "PURGE", "LOCK", "REPORT"]
    service.client.request(methods[0], "/nowhere")
    before = scrape(service)
    for method in methods:
        service.client.get(f"/nowhere/{method}")
        service.client.request(method, f"/nowhere/{method}")
        service.client.request(method, "/v1/auth/login")
    after = scrape(service)
    assert requests(after, "_OTHER", "", 404) - requests(before, "_OTHER", "", 404) == 5
    assert len({key for key in after if key[0] == f"{DURATION}_count"} - set(before)) <= 3


def test_what_is_refused_before_it_is_a_request_is_counted(service: Service) -> None:
    def refused() -> float:
        return requests(scrape(service), "_OTHER", "", 400)

    before = refused()
    service.raw(b"nonsense\r\n\r\n")
    wait_until(lambda: refused() - before == 1, "the count", within=5)


def test_requests_in_flight_are_told(service: Service) -> None:
    assert value(scrape(service), "http_server_active_requests") == 1  # the scrape itself
    with connect(service) as connection:
        connection.sendall(b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        wait_until(lambda: value(scrape(service), "http_server_active_requests") == 2, "the second request", within=5)
    wait_until(lambda: value(scrape(service), "http_server_active_requests") == 1, "its end", within=5)


def test_password_hashes_at_work_and_waiting_are_told(service: Service) -> None:
    account = service.sign_up()
    body = {"login": account.username, "password": account.password}
    seen = []
    with ThreadPoolExecutor(12) as threads:
        log_ins = [threads.submit(service.client.post, "/v1/auth/login", json=body) for _ in range(12)]
        while wait(log_ins, timeout=0.02).not_done:
            seen.append(scrape(service))
    assert max(value(samples, "berth_password_hashes", state="running") for samples in seen) >= 1
    assert max(value(samples, "berth_password_hashes", state="queued") for samples in seen) >= 1
    assert value(scrape(service), "berth_password_hashes") == 0


def test_what_runs_is_told(start_service: StartService) -> None:
    samples = scrape(start_service(K_REVISION="berth-00042"))
    assert value(samples, "berth_build_info", revision="berth-00042", python=sys.version.split()[0]) == 1
    assert value(samples, "process_resident_memory_bytes") > 2**20
    assert value(samples, "process_start_time_seconds") > 0


def test_the_use_of_connections_and_the_wait_for_one_are_told(start_service: StartService, mariadb: MariaDB) -> None:
    service = start_service("mysql+redis", MYSQL_POOL_MAX_SIZE=1, MYSQL_POOL_TIMEOUT=0.3)
    account = service.sign_up()
    before = scrape(service)
    change = {"json": {"username": "renamed", "current_password": account.password}, "headers": account.headers}
    locker = pymysql.connect(unix_socket=str(mariadb.unix_socket), user="root", database=service.env["MYSQL_DATABASE"])
    with locker, locker.cursor() as cursor, ThreadPoolExecutor(1) as threads:
        cursor.execute("SELECT * FROM accounts FOR UPDATE")
        slow = threads.submit(httpx.patch, f"{service.url}/v1/auth/me", timeout=30, **change)  # type: ignore[arg-type]
        wait_until(lambda: in_use(service) == 1, "the connection in use", within=5)
        assert service.client.patch("/v1/auth/me", **change).status_code == 503  # type: ignore[arg-type]
        locker.rollback()
        assert slow.result().status_code == 200
    after = scrape(service)
    waits = [value(one, f"{WAIT}_count") - value(one, f"{WAIT}_bucket", le="0.1") for one in (before, after)]
    assert waits[1] - waits[0] == 1
    assert value(after, "db_client_connection_count", db_client_connection_state="used") == 0
    assert value(after, "db_client_connection_count", db_client_connection_state="idle") == 1
    assert value(after, "db_client_connection_max", db_client_connection_pool_name="primary") == 1


def in_use(service: Service) -> float:
    return value(scrape(service), "db_client_connection_count", db_client_connection_state="used")


def test_redis_hits_and_misses_errors_and_loss_are_told(start_service: StartService, redis: Redis) -> None:
    proxy = Proxy(redis.port)
    service = start_service(**redis.environment() | {"REDIS_PORT": str(proxy.port)})  # type: ignore[arg-type]
    account = service.sign_up()
    for _ in range(3):
        service.client.get("/v1/auth/me", headers=account.headers)
    samples = scrape(service)
    results = [value(samples, "berth_cache_reads_total", result=result) for result in ("hit", "miss")]
    assert results == [2, 1]
    assert (value(samples, "berth_redis_up"), value(samples, "berth_redis_errors_total")) == (1, 0)
    proxy.close()
    wait_until(lambda: value(scrape(service), "berth_redis_up") == 0, "the loss of Redis", within=10)
    errors = value(scrape(service), "berth_redis_errors_total")
    assert errors >= 1
    assert service.client.get("/v1/auth/me", headers=account.headers).status_code == 200
    assert value(scrape(service), "berth_redis_errors_total") == errors  # without Redis nothing is tried


def test_deliveries_of_events_are_told(start_service: StartService, sink: Sink) -> None:
    sink.answers = [500]
    service = start_service(K_SINK=sink.url)
    service.sign_up()
    wait_until(lambda: deliveries(service, "delivered") == 1, "the delivery", within=10)
    assert deliveries(service, "failed") == 1


def deliveries(service: Service, outcome: str) -> float:
    return value(scrape(service), "berth_event_deliveries_total", outcome=outcome)


def test_with_a_token_it_asks_for_it(start_service: StartService) -> None:
    service = start_service(METRICS_TOKEN="for-prometheus")

    def status(**headers: str) -> int:
        return service.client.get("/metrics", headers=headers).status_code

    assert_problem(service.client.get("/metrics"), 401)
    assert status(authorization="Bearer for-somebody") == 401
    assert status(authorization="Bearer for-prometheus") == 200


def test_in_prod_without_a_token_there_is_no_such_route(start_service: StartService) -> None:
    service = start_service("mysql+redis", SYS_ENV="prod", SECRET_KEY=os.urandom(32).hex())
    assert_problem(service.client.get("/metrics"), 404)
    assert_problem(service.client.get("/metrics", headers={"Authorization": "Bearer None"}), 404)


def test_every_metric_and_label_of_the_dashboard_is_in_a_scrape(start_service: StartService) -> None:
    service = start_service("mysql+redis", K_SINK=f"http://127.0.0.1:{free_port()}")
    account = service.sign_up()
    service.client.get("/v1/auth/me", headers=account.headers)
    samples = scrape(service)
    labels_of: dict[str, set[str]] = {}
    for name, labels in samples:
        labels_of.setdefault(name, {"job", "instance"}).update(dict(labels))
    dashboard = json.loads((ROOT / "deploy/grafana/berth.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 15
    for expression in expressions:
        metrics = re.findall(r"([a-z_]+)\{([^}]*)\}", expression)
        assert metrics
        grouped = re.findall(r"by \(([^)]*)\)", expression)
        for name, selectors in metrics:
            wanted = set(re.findall(r"(\w+)!?[=~]", selectors)) | {one for by in grouped for one in by.split(", ")}
            assert name in labels_of, expression
            assert wanted <= labels_of[name], expression


def test_a_start_does_not_pay_for_it() -> None:
    code = "import app, sys; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=30).returncode == 0
