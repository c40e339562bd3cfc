"""Probes: who asks, what they see. Lost servers are in tests/faults."""

import pytest

from tests.support.service import Service


@pytest.mark.parametrize("path", ["/health/live", "/health/startup"])
def test_live_and_startup_ask_no_other_system(service: Service, path: str) -> None:
    answer = service.client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "checks": {}})


def test_ready_tells_of_each_system_and_how_long_it_took(service: Service, backend: str) -> None:
    answer = service.client.get("/health/ready")
    health = answer.json()
    assert (answer.status_code, set(health), health["status"]) == (200, {"status", "checks"}, "ok")
    assert set(health["checks"]) == ({"database"} if backend == "sqlite" else {"database", "redis"})
    for check in health["checks"].values():
        assert set(check) == {"status", "duration_ms"}
        assert check["status"] == "ok"
        assert 0 < check["duration_ms"] < 1000


@pytest.mark.parametrize("path", ["/health/live", "/health/startup", "/health/ready"])
def test_a_probe_may_be_a_head_request(service: Service, path: str) -> None:
    answer = service.client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
