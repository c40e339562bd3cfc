"""A defect of ours: a 500 that says nothing of the inside unless DEBUG is on, and a log line that says all."""

from typing import Any

import pytest

from tests.conftest import Sql, StartService
from tests.support.service import Service
from tests.support.wire import assert_problem

INSIDE = ["Traceback", 'File "', "ProgrammingError", "refresh_tokens", "SELECT", ".py", "pymysql"]


def provoke(service: Service, sql: Sql) -> Any:
    """The answer to a request whose statement the database can't make sense of."""
    sql(service, "ALTER TABLE refresh_tokens RENAME TO tokens_elsewhere")
    try:
        return service.client.post("/v1/auth/refresh", json={"refresh_token": "brt_anything"})
    finally:
        sql(service, "ALTER TABLE tokens_elsewhere RENAME TO refresh_tokens")


@pytest.mark.parametrize("debug", ["", "false"], ids=["unset", "false"])
def test_without_debug_no_traceback_leaves_the_process(start_service: StartService, sql: Sql, debug: str) -> None:
    service = start_service("mysql+redis", DEBUG=debug)
    answer = provoke(service, sql)
    problem = assert_problem(answer, 500, "/v1/auth/refresh")
    assert [word for word in INSIDE if word in answer.text] == []
    line = service.wait_for_log(severity="ERROR", trace_id=problem["trace_id"])
    assert "Traceback" in str(line)
    assert "refresh_tokens" in str(line)
    assert service.client.post("/v1/auth/refresh", json={"refresh_token": "brt_anything"}).status_code == 401


def test_with_debug_the_traceback_is_the_detail(start_service: StartService, sql: Sql) -> None:
    service = start_service("mysql+redis", DEBUG="true")
    problem = assert_problem(provoke(service, sql), 500, "/v1/auth/refresh")
    assert problem["detail"].startswith("Traceback (most recent call last)")
    assert "refresh_tokens" in problem["detail"]


@pytest.mark.parametrize("debug", ["true", "false"])
def test_whatever_debug_says_a_503_tells_no_cause(
    start_service: StartService, mysql_env: dict[str, Any], mysql_proxy: Any, debug: str
) -> None:
    service = start_service(**{**mysql_env, "MYSQL_PORT": mysql_proxy.port, "DEBUG": debug})
    mysql_proxy.refuse()
    mysql_proxy.cut()
    answer = service.client.post("/v1/auth/refresh", json={"refresh_token": "brt_anything"})
    assert_problem(answer, 503, "/v1/auth/refresh")
    assert [word for word in (*INSIDE, "127.0.0.1", str(mysql_proxy.port)) if word in answer.text] == []
    mysql_proxy.accept()
