"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1): made from routes, their operations and Structs."""

import functools
import inspect
import sys
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.routing import Route

from infra.events.cloudevents import STRUCTURED
from infra.http.operations import Operation, operations_of
from infra.http.problems import PROBLEM_HEADERS, ProblemDocument
from settings import Settings

Json = dict[str, Any]

REF_TEMPLATE = "#/components/schemas/{name}"
BODY_TYPES = {"body": "application/json", "form": "application/x-www-form-urlencoded", "event": STRUCTURED}
PROBLEM = {"$ref": REF_TEMPLATE.format(name=ProblemDocument.__name__)}
OTHER_PROBLEM = {
    "description": "any other problem: 400 not HTTP or for another host, 408 sent too slowly, 413 body too large,"
    " 431 headers too large, 503 overloaded or without the database (with Retry-After), 504 answered too slowly",
    "content": {"application/problem+json": {"schema": PROBLEM}},
}
WITHOUT_NUL = r"^[^\x00]*$"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
ASKED_FOR = "x-asked-for"


@functools.cache
def openapi_document(app: Starlette, settings: Settings, description: str) -> bytes:
    """The document's JSON; made when it is first asked for. `description`: what the API is for."""
    described = list(operations_of(app.routes))
    types = list(
        dict.fromkeys([ProblemDocument, *(kind for *_, operation in described for kind in types_of(operation))])
    )
    refs, components = msgspec.json.schema_components(types, ref_template=REF_TEMPLATE)
    schemas = dict(zip(types, refs, strict=True))
    for *_, operation in described:
        for struct in bodies_of(operation).values():
            ask_for_less(components[schemas[struct]["$ref"].rpartition("/")[2]])
    paths: dict[str, Json] = {}
    for route, method, operation in described:
        paths.setdefault(route.path_format, {})[method.lower()] = describe(route, operation, schemas)
    modules = dict.fromkeys(operation.handler.__module__ for *_, operation in described)
    security = {name: scheme for *_, operation in described for name, scheme in operation.security.items()}
    document = {
        "openapi": "3.1.1",
        "info": {
            "title": settings.name.replace("-", " ").title(),
            "version": settings.version,
            "description": description,
        },
        "tags": [{"name": tag(module), "description": docstring(sys.modules[module])[0]} for module in modules],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {"OtherProblem": OTHER_PROBLEM},
            "securitySchemes": security,
        },
    }
    return msgspec.json.encode(document)


def types_of(operation: Operation) -> Iterator[Any]:
    """What is in components: bodies and answers."""
    yield from bodies_of(operation).values()
    yield from (kind for kind in operation.answers.values() if kind and not isinstance(kind, str))


def bodies_of(operation: Operation) -> dict[str, Any]:
    """The Struct of each media type."""
    return {BODY_TYPES[name]: kind for name, kind, _ in operation.parameters if name in BODY_TYPES}


def ask_for_less(schema: Json) -> None:
    """NUL is refused in any text. What a field asks for, where it takes more, is ASKED_FOR in its extra_json_schema."""
    for field in schema["properties"].values():
        for kind in (field, *field.get("anyOf", [])):
            kind.update(kind.pop(ASKED_FOR, {}))
            if kind.get("type") == "string":
                kind["pattern"] = kind.get("pattern") or WITHOUT_NUL


def describe(route: Route, operation: Operation, schemas: dict[Any, Json]) -> Json:
    """The Operation Object; what doesn't apply is left out."""
    summary, description = docstring(operation.handler)
    content = {media_type: {"schema": schemas[struct]} for media_type, struct in bodies_of(operation).items()}
    anyone: list[Json] = [{}] if operation.bearer_optional else []
    needed: list[Json] = [{scheme: []} for scheme in operation.security]
    responses = {str(status): answer(status, kind, schemas) for status, kind in operation.answers.items()}
    if operation.answer_headers:
        responses[str(operation.status)]["headers"] = described_fields(operation.answer_headers)
    for status, when in sorted(operation.problems.items()):
        responses[str(status)] = problem(status, when, route.path)
    described: Json = {
        "operationId": operation.handler.__name__,
        "tags": [tag(operation.handler.__module__)],
        "summary": summary,
        "description": description,
        "parameters": [*path_parameters(route, operation), *header_parameters(operation), *query_parameters(operation)],
        "requestBody": content and {"required": True, "content": content},
        "security": needed and [*anyone, *needed],
        "responses": responses | {"default": {"$ref": "#/components/responses/OtherProblem"}},
    }
    return {name: value for name, value in described.items() if value}


def path_parameters(route: Route, operation: Operation) -> list[Json]:
    kinds = {name: kind for name, kind, _ in operation.parameters if name in route.param_convertors}
    return [
        {"name": name, "in": "path", "required": True, "schema": msgspec.json.schema(kind)}
        for name, kind in kinds.items()
    ]


def header_parameters(operation: Operation) -> list[Json]:
    structs = [reader.headers for _, _, reader in operation.parameters if reader.headers]
    return [parameter for struct in structs for parameter in fields_as_parameters(struct, "header")]


def query_parameters(operation: Operation) -> list[Json]:
    queries = [kind for name, kind, _ in operation.parameters if name == "query"]
    return [parameter for query in queries for parameter in fields_as_parameters(query, "query")]


def fields_as_parameters(struct: type[msgspec.Struct], place: str) -> list[Json]:
    """The Parameter Object of each field."""
    return [{"name": name, "in": place, **field} for name, field in described_fields(struct).items()]


def described_fields(struct: type[msgspec.Struct]) -> Json:
    """By its name, what a Parameter Object and a Header Object say of a field."""
    _, components = msgspec.json.schema_components([struct], ref_template=REF_TEMPLATE)
    [described] = components.values()
    return {
        name: {"required": name in described["required"], "schema": schema}
        for name, schema in described["properties"].items()
    }


def answer(status: int, kind: Any, schemas: dict[Any, Json]) -> Json:
    """The Response Object of a Struct, of a media type, or of None."""
    described: Json = {"description": HTTPStatus(status).phrase}
    if isinstance(kind, str):
        described["content"] = {kind: {"schema": {"type": "string"}}}
    elif kind:
        described["content"] = {"application/json": {"schema": schemas[kind]}}
    return described


def problem(status: int, when: str, path: str) -> Json:
    example = ProblemDocument("about:blank", HTTPStatus(status).phrase, status, when, path, TRACE_ID)
    content = {"application/problem+json": {"schema": PROBLEM, "example": example}}
    described: Json = {"description": when, "content": content}
    if status in PROBLEM_HEADERS:
        described["headers"] = {PROBLEM_HEADERS[status]: {"required": True, "schema": {"type": "string"}}}
    return described


def tag(module: str) -> str:
    return module.rpartition(".")[2]


def docstring(documented: object) -> tuple[str, str]:
    """Its first paragraph and the others."""
    first, _, others = inspect.cleandoc(documented.__doc__ or "").partition("\n\n")
    return first.removesuffix("."), others
