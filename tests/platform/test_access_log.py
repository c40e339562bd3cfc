"""The lines of a running service: one access line a request, the four formats, and no secret in any of them."""

import json
import re

import pytest

from tests.conftest import StartService
from tests.support.service import ROOT, Service

PAGE = (ROOT / "docs/operations.md").read_text()
SENT = {
    "User-Agent": "curl/8.5.0",
    "X-Forwarded-For": "203.0.113.7",
    "X-Request-ID": "request-1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
# Times, the account's id, the span's id, durations.
CHANGING = re.compile(
    r'\d{4}-\d\d-\d\dT[\d:.]+Z|^[\d:.]{12}|[0-9a-f-]{36}|"[0-9a-f]{16}"|(?<=duration)\D+[\d.]+|(?<="latency":)"[\d.]+s"'
)


def test_a_request_has_one_access_line_with_the_ids_of_its_answer(service: Service) -> None:
    account = service.sign_up()
    answer = service.client.get("/v1/auth/sessions?limit=7", headers=account.headers | {"User-Agent": "a browser"})
    trace_id = answer.headers["traceparent"].split("-")[1]
    line = service.wait_for_log(type="access", trace_id=trace_id)
    assert len(service.log(type="access", trace_id=trace_id)) == 1
    assert (line["method"], line["route"], line["path"], line["status"]) == (
        "GET",
        "/v1/auth/sessions",
        "/v1/auth/sessions",
        200,
    )
    assert line["response_bytes"] == len(answer.content)
    assert (line["client"], line["user_agent"]) == ("127.0.0.1", "a browser")
    assert (line["account_id"], line["request_id"]) == (account.id, answer.headers["x-request-id"])
    assert line["duration_ms"] > 0


def test_below_the_level_a_request_has_no_line(start_service: StartService) -> None:
    service = start_service(LOG_LEVEL="WARNING")
    assert service.client.get("/").status_code == 200
    assert service.stop() == 0
    assert service.log(type="access") == []


def test_no_line_holds_a_secret_whatever_the_client_does_with_it(start_service: StartService, backend: str) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    key = "the key of this very service, kept secret"
    service = start_service(backend, LOG_LEVEL="DEBUG", SECRET_KEY=key, METRICS_TOKEN=trace_id)
    password, client = "my unlikely password", service.client
    account = service.sign_up(password=password)
    newer = client.post("/v1/auth/refresh", json={"refresh_token": account.refresh_token}).json()
    client.post("/v1/auth/refresh", json={"refresh_token": account.refresh_token})
    client.post("/v1/auth/login", json={"login": account.username, "password": password + "x"})
    client.post("/v1/auth/login", json={"login": password, "password": password, password: password})
    for secret in (account.access_token, newer["refresh_token"], newer["access_token"]):
        client.get(f"/{secret}", params={"token": secret})
        client.get("/v1/auth/me", headers={"Authorization": f"Bearer {secret}", "Cookie": secret})
        for name in ("User-Agent", "X-Request-ID", "X-Forwarded-For"):  # one of them shown is enough
            client.get("/", headers={name: secret})
    client.get("/", headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    assert service.stop() == 0
    said = "\n".join(service.output)
    secrets = [password, account.access_token, account.refresh_token, newer["access_token"], newer["refresh_token"]]
    secrets += [text for name, text in service.env.items() if name in ("SECRET_KEY", "METRICS_TOKEN", "MYSQL_PASSWORD")]
    assert [secret for secret in secrets if secret in said] == []
    assert len(service.log(type="access")) > 10


def test_what_no_client_has_sent_is_not_searched_for_secrets(start_service: StartService) -> None:
    service = start_service(METRICS_TOKEN="berth.access")
    service.client.get("/", headers={"User-Agent": "berth.access"})
    service.client.get("/")
    assert service.stop() == 0
    assert [line["logger"] for line in service.log(type="access", path="/")][-2:] == ["***", "berth.access"]


@pytest.mark.parametrize("log_format", ["json", "gcp", "ecs", "console"])
def test_a_request_has_the_line_that_the_page_shows_for_each_format(
    start_service: StartService, log_format: str
) -> None:
    service = start_service(LOG_FORMAT=log_format, GOOGLE_CLOUD_PROJECT="harbour")
    service.client.post("/v1/auth/logout", headers=service.sign_up().headers | SENT)
    assert service.stop() == 0
    [printed] = [line for line in service.output if "/logout 204" in line]
    [shown] = re.findall(rf"^{log_format}\b.*:\n\n```\w+\n(.*/logout 204.*)\n```", PAGE, re.MULTILINE)
    assert CHANGING.sub("*", printed) == CHANGING.sub("*", shown)


def test_on_cloud_run_the_format_is_gcp_with_the_projects_trace_names(start_service: StartService) -> None:
    service = start_service(K_SERVICE="berth", GOOGLE_CLOUD_PROJECT="my-project")
    service.client.get("/nothing", headers={"X-Cloud-Trace-Context": f"{'a' * 32}/1;o=1"})
    assert service.stop() == 0
    [line] = [json.loads(text) for text in service.output if "GET /nothing 404" in text]
    assert line["logging.googleapis.com/trace"] == f"projects/my-project/traces/{'a' * 32}"
