"""The OpenAPI document: it is one, it tells all, and what the service does is what it says."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode

from app import ROUTES
from infra.http.problems import ProblemDocument
from tests.conftest import TEST_SETTINGS
from tests.support.service import Service

Json = dict[str, Any]
SERVICE_TOKEN = "a-token-of-another-service"
OPERATIONS = sorted((route.path, method) for route in ROUTES for method in (route.methods or set()) - {"HEAD"})
BOUNDED = settings(
    max_examples=6,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# Of every operation, but not listed with each: what is wrong with the HTTP or the size of a request.
ANYWHERE = {400, 408, 413, 431}


@pytest.fixture(scope="module")
def described() -> Iterator[Service]:
    with Service({**TEST_SETTINGS, "EVENTS_TOKEN": SERVICE_TOKEN, "METRICS_TOKEN": SERVICE_TOKEN}) as service:
        yield service


@pytest.fixture(scope="module")
def document(described: Service) -> Json:
    answer = described.client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    found: Json = answer.json()
    return found


@pytest.fixture(scope="module")
def operations(document: Json) -> list[Json]:
    return [operation for methods in document["paths"].values() for operation in methods.values()]


def test_it_is_openapi_3_1(document: Json) -> None:
    assert document["openapi"].startswith("3.1.")
    validate(document)


def test_it_holds_every_route_and_no_other(document: Json) -> None:
    held = [(path, method.upper()) for path, methods in document["paths"].items() for method in methods]
    assert sorted(held) == OPERATIONS


def test_every_operation_has_a_summary_and_a_name_of_its_own(operations: list[Json]) -> None:
    assert all(operation["summary"] for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_a_field_has_the_limits_and_the_words_of_its_struct(document: Json) -> None:
    fields = document["components"]["schemas"]["Registration"]["properties"]
    username, email, password = fields["username"], fields["email"], fields["password"]
    assert (username["minLength"], username["maxLength"], username["examples"]) == (3, 64, ["ada"])
    assert username["pattern"].startswith("^[A-Za-z0-9._-]+$")
    assert username["description"] == "3 to 64 of the characters A-Z a-z 0-9 . _ -"
    assert (email["format"], email["maxLength"]) == ("email", 254)
    assert (password["minLength"], password["maxLength"]) == (8, 256)


def test_a_query_parameter_has_the_limits_of_its_struct(document: Json) -> None:
    [limit, after] = document["paths"]["/v1/auth/sessions"]["get"]["parameters"]
    assert (limit["name"], limit["in"], limit["required"]) == ("limit", "query", False)
    assert (limit["schema"]["minimum"], limit["schema"]["maximum"], limit["schema"]["default"]) == (1, 100, 20)
    assert after["name"] == "after"


def test_every_field_has_an_example_or_all_its_values(document: Json) -> None:
    without = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, about in schema["properties"].items()
        if not {"enum", "$ref", "anyOf", "items", "additionalProperties", "examples"} & set(about)
    ]
    assert without == []


def test_every_problem_has_an_example_that_is_a_problem_document(operations: list[Json]) -> None:
    for operation in operations:
        for status, answer in operation["responses"].items():
            media = answer.get("content", {}).get("application/problem+json")
            if media:
                assert msgspec.convert(media["example"], ProblemDocument).status == int(status)


def test_whoever_needs_a_token_says_which(document: Json) -> None:
    schemes = document["components"]["securitySchemes"]
    paths = document["paths"]
    assert {name: scheme["scheme"] for name, scheme in schemes.items()} == dict.fromkeys(
        ["access_token", "events_token", "metrics_token"], "bearer"
    )
    assert paths["/v1/auth/me"]["get"]["security"] == [{"access_token": []}]
    assert paths["/v1/auth/introspect"]["post"]["security"] == [{"events_token": []}]
    assert paths["/metrics"]["get"]["security"] == [{}, {"metrics_token": []}]
    assert "security" not in paths["/v1/auth/login"]["post"]


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda text: text)
def test_requests_made_from_it_get_the_answers_in_it(
    described: Service, document: Json, path: str, method: str
) -> None:
    operation = document["paths"][path][method.lower()]
    documented = {int(status) for status in operation["responses"] if status.isdigit()}
    headers = authorization(described, operation)
    can_be_wrong = {"parameters", "requestBody"} & set(operation) or {} not in operation.get("security", [{}])

    def check(case: schemathesis.Case[Any]) -> None:
        response = case.call(base_url=described.url, headers=headers)
        case.validate_response(response, headers=headers)
        assert response.status_code in documented | ANYWHERE

    for mode in GenerationMode if can_be_wrong else [GenerationMode.POSITIVE]:
        cases = schemathesis.openapi.from_dict(document)[path][method].as_strategy(generation_mode=mode)
        BOUNDED(given(cases)(check))()


def authorization(service: Service, operation: Json) -> dict[str, str]:
    match operation.get("security"):
        case [{"access_token": _}]:
            return service.sign_up().headers
        case [*_, {"events_token": _} | {"metrics_token": _}]:
            return {"Authorization": f"Bearer {SERVICE_TOKEN}"}
        case _:
            return {}
