"""What a handler's signature promises: parameters from the path and from headers, answers with headers of their own."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import TEST_SETTINGS
from tests.support.service import Service

SCRIPT = """
import os
import sys
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.routing import Route

import app
from infra.base.ids import Id
from infra.http.answers import Answer, Headers, Tagged
from infra.http.etags import etag_of
from infra.http.operations import operation
from infra.http.parameters import Header
from infra.http.state import Request

Short = Annotated[str, Meta(max_length=5, description="at most 5 characters", examples=["a"])]


class Echo(Struct):
    number: int
    trip_key: str
    times: int | None


class Place(Struct):
    path: str


class Sent(Headers):
    sail_count: int | UnsetType = UNSET


@operation()
async def echo(request: Request, number: int, trip_key: Header[Short], times: Header[int | None]) -> Echo:
    return Echo(number, trip_key, times)


@operation()
async def touch(request: Request, name: str) -> Answer[None, Tagged]:
    return Answer(None, Tagged(etag_of(name)))


@operation(202)
async def send(request: Request, number: int) -> Answer[Echo, Sent]:
    return Answer(Echo(number, "", None), Sent(number or UNSET))


@operation()
async def find(request: Request, found_id: Id) -> None:
    assert found_id


@operation()
async def locate(request: Request) -> Place:
    return Place(request.url_for("echo", number=7).path)


app.ROUTES.extend([
    Route("/v1/echo/{number}", echo, methods=["GET"]),
    Route("/v1/place", locate, methods=["GET"]),
    Route("/v1/found/{found_id}", find, methods=["GET"]),
    Route("/v1/touch/{name}", touch, methods=["PUT"]),
    Route("/v1/send/{number}", send, methods=["POST"]),
])
status = app.main([])
sys.stdout.flush()
os._exit(status)
"""
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def echoing() -> Iterator[Service]:
    class Echoing(Service):
        command = (sys.executable, "-c", SCRIPT)

    with Echoing({**TEST_SETTINGS, "CORS_ORIGINS": ORIGIN}) as service:
        yield service


@pytest.fixture(scope="module")
def paths(echoing: Service) -> dict[str, Any]:
    found: dict[str, Any] = echoing.client.get("/openapi.json").json()["paths"]
    return found


def test_a_parameter_of_the_path_and_one_of_a_header_are_of_the_types_that_are_declared(echoing: Service) -> None:
    answer = echoing.client.get("/v1/echo/-7", headers={"Trip-Key": "a", "Times": "3"})
    assert answer.json() == {"number": -7, "trip_key": "a", "times": 3}


def test_a_header_that_may_be_none_may_be_left_out(echoing: Service) -> None:
    assert echoing.client.get("/v1/echo/7", headers={"Trip-Key": "a"}).json()["times"] is None


@pytest.mark.parametrize("number", ["x", "1.5", "%20", "%D9%A3", "1%00", "1e400", "9" * 5000])
def test_a_path_with_another_type_is_no_resource(echoing: Service, number: str) -> None:
    answer = echoing.client.get(f"/v1/echo/{number}", headers={"Trip-Key": "a"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "no such resource")


def test_a_route_is_found_by_the_name_of_its_handler(echoing: Service) -> None:
    assert echoing.client.get("/v1/place").json() == {"path": "/v1/echo/7"}


IDS = {
    "01a20cc4-61db-78ba-be5f-cae656cb245f": 204,
    "01A20CC4-61DB-78BA-BE5F-CAE656CB245F": 404,
    "01a20cc461db78babe5fcae656cb245f": 404,
    "01a20cc4-61db-78ba-be5f-cae656cb245f%0A": 404,
    "x": 404,
}


@pytest.mark.parametrize("found_id", IDS)
def test_an_id_in_a_path_is_one_as_ids_are_written(echoing: Service, found_id: str) -> None:
    assert echoing.client.get(f"/v1/found/{found_id}").status_code == IDS[found_id]


def test_a_text_in_a_path_holds_no_nul(echoing: Service) -> None:
    assert [echoing.client.put(f"/v1/touch/{name}").status_code for name in ("a", "a%00")] == [204, 404]


WRONG = {
    "missing": ([], "Trip-Key", "required"),
    "too long": ([("Trip-Key", "abcdef")], "Trip-Key", "expected at most 5 characters"),
    "twice, which is one text": ([("Trip-Key", "abc"), ("Trip-Key", "d")], "Trip-Key", "expected at most 5 characters"),
    "no number": ([("Trip-Key", "a"), ("Times", "x")], "Times", "expected an integer or null"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_header_that_is_wrong_is_a_422_that_names_it(echoing: Service, case: str) -> None:
    headers, field, message = WRONG[case]
    answer = echoing.client.get("/v1/echo/7", headers=headers)
    assert (answer.status_code, answer.json()["errors"]) == (422, [{"field": field, "message": message}])


def test_an_answer_without_a_body_may_have_headers(echoing: Service) -> None:
    answer = echoing.client.put("/v1/touch/a")
    assert (answer.status_code, answer.headers["etag"], answer.content) == (204, '"a"', b"")
    assert "content-type" not in answer.headers


@pytest.mark.parametrize(("number", "sent"), [("3", "3"), ("0", None)])
def test_a_header_that_is_unset_is_not_sent(echoing: Service, number: str, sent: str | None) -> None:
    answer = echoing.client.post(f"/v1/send/{number}")
    assert (answer.status_code, answer.headers.get("sail-count")) == (202, sent)
    assert (answer.headers["content-type"], answer.json()["number"]) == ("application/json", int(number))


def test_the_document_has_each_parameter_and_header(paths: dict[str, Any]) -> None:
    described = paths["/v1/echo/{number}"]["get"]
    found = [(one["name"], one["in"], one["required"]) for one in described["parameters"]]
    assert found == [("number", "path", True), ("Trip-Key", "header", True), ("Times", "header", False)]
    assert described["parameters"][1]["schema"]["maxLength"] == 5
    assert {"404", "422"} <= described["responses"].keys()
    assert paths["/v1/touch/{name}"]["put"]["responses"]["204"]["headers"]["ETag"]["required"]
    assert not paths["/v1/send/{number}"]["post"]["responses"]["202"]["headers"]["Sail-Count"].get("required")


def preflight(service: Service, header: str, method: str = "GET") -> int:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
    return service.client.options("/v1/echo/7", headers={"Origin": ORIGIN, **asked}).status_code


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Trip-Key", 200),
        ("Times", 200),
        ("Authorization", 200),
        ("Content-Type", 200),
        ("X-Request-ID", 200),
        ("traceparent", 200),
        ("Nobody-Reads-It", 400),
    ],
)
def test_another_origin_may_send_the_headers_that_an_operation_reads(
    echoing: Service, header: str, status: int
) -> None:
    assert preflight(echoing, header) == status


@pytest.mark.parametrize(("method", "status"), [("PUT", 200), ("POST", 200), ("TRACE", 400)])
def test_another_origin_may_use_the_methods_that_routes_have(echoing: Service, method: str, status: int) -> None:
    assert preflight(echoing, "Trip-Key", method) == status


def test_another_origin_may_read_the_headers_that_operations_answer(echoing: Service) -> None:
    answer = echoing.client.get("/v1/echo/7", headers={"Origin": ORIGIN})
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert exposed >= {"ETag", "Retry-After", "Sail-Count", "WWW-Authenticate", "X-Request-ID", "traceparent"}
