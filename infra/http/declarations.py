"""What is declared wrongly, told before the first request: where it stands, and what was expected."""

import dataclasses
import functools
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from infra.base.kinds import TOKEN
from infra.http.answers import Headers
from infra.http.expectations import PYTHON_TYPES, described
from infra.http.operations import Declaration, body_and_headers
from infra.http.parameters import BODY_READERS, STRUCT_READERS, is_header, is_struct, parameter_of
from infra.http.parts import Part, Reader
from settings import Settings

ROOT = Path(__file__).parents[2]
IN_A_TEXT: tuple[Any, ...] = (*PYTHON_TYPES, msgspec.inspect.EnumType, msgspec.inspect.LiteralType)
WITHOUT_BODY = {204, 205, 304}
NO_OPERATION = "expected @operation() above it, or include_in_schema=False in its route"

Readers = Mapping[type, Reader]


def faults_of(routes: Sequence[Route], parts: Sequence[Part], readers: Readers) -> Iterator[str]:
    """All that is wrong, a line each."""
    for route in routes:
        for fault in handler_faults(route, readers):
            yield f"{place(route.endpoint)}: {fault}"
    yield from repeated(routes)
    yield from unrouted(routes)
    yield from hook_faults(parts)
    yield from reader_faults(parts, readers)
    yield from task_faults(parts)


def handler_of(endpoint: Any) -> Any:
    """The function under its @operation()."""
    return handler_of(endpoint.handler) if isinstance(endpoint, Declaration) else endpoint


def place(function: Any) -> str:
    """Its file, line and name."""
    function = handler_of(function)
    code = getattr(function, "__code__", None)
    if not code:
        return repr(function)
    file = Path(code.co_filename)
    file = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    return f"{file}:{code.co_firstlineno}: {function.__name__}"


def handler_faults(route: Route, readers: Readers) -> Iterator[str]:
    declared = route.endpoint
    if not isinstance(declared, Declaration):
        if route.include_in_schema:
            yield NO_OPERATION
        return
    if isinstance(declared.handler, Declaration):
        yield "expected one @operation() above it"
        return
    if not route.methods:
        yield f"the route {route.path} has no methods: expected methods=[...]"
    if len((route.methods or set()) - {"HEAD"}) > 1 and route.include_in_schema:
        methods = " and ".join(sorted(route.methods or ()))
        yield f"the route {route.path} has {methods}: expected one, for an operationId is of one"
    if not isinstance(route.app, Declaration):
        yield f"the route {route.path} has middleware: expected it in the app's, which all requests pass"
    if not inspect.iscoroutinefunction(declared.handler):
        yield "expected `async def`"
    try:
        kinds = get_type_hints(declared.handler, include_extras=True)
    except NameError as error:
        yield f"{error}: expected annotations that can be looked up when it is imported"
        return
    yield from parameter_faults(declared, route, kinds, readers)
    yield from answer_faults(declared, kinds)
    if declared.bearer and declared.bearer not in token_settings():
        yield f"bearer={declared.bearer!r}: expected a setting that holds a token: {' or '.join(token_settings())}"


@functools.cache
def token_settings() -> list[str]:
    fields = [field for field in dataclasses.fields(Settings) if "variable" in field.metadata]
    return [field.name for field in fields if field.metadata["variable"].kind is TOKEN]


def parameter_faults(declared: Declaration, route: Route, kinds: Mapping[str, Any], readers: Readers) -> Iterator[str]:
    parameters = list(inspect.signature(declared.handler).parameters.values())
    if not parameters or parameters.pop(0).name != "request":
        yield "expected `request` as its first parameter"
        return
    names = {parameter.name for parameter in parameters}
    for name in route.param_convertors.keys() - names:
        yield f"the path {route.path} has {{{name}}}: expected a parameter `{name}`"
    if len(bodies := sorted(names & BODY_READERS)) > 1:
        yield f"parameters {' and '.join(f'`{name}`' for name in bodies)}: expected one that reads the body"
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            yield f"parameter `{parameter}`: expected one that is given by its name"
        elif parameter.name not in kinds:
            yield f"parameter `{parameter.name}`: expected a type"
        elif fault := source_fault(parameter.name, kinds[parameter.name], route, readers):
            yield f"parameter `{parameter.name}`: {fault}"


def source_fault(name: str, kind: Any, route: Route, readers: Readers) -> str:
    """Why nothing can fill the parameter; empty when something does."""
    if name in route.param_convertors or is_header(kind):
        return (
            "" if stands_in_a_text(kind) else f"expected a type that a text stands for, such as Id, not {shown(kind)}"
        )
    if parameter_of(name, kind, route.param_convertors, readers):
        return schema_fault(kind) if is_struct(kind) else ""
    if name in STRUCT_READERS:
        return f"expected a Struct, not {shown(kind)}"
    if is_struct(kind):
        return f"a Struct is read into one of {', '.join(STRUCT_READERS)}: expected one of these names"
    types = ", ".join(reader.__name__ for reader in readers)
    named = f"a name in the path {route.path}, " if route.param_convertors else ""
    return f"nothing gives a handler {shown(kind)}: expected {named}a Header[...], a Struct, or one of {types}"


@functools.cache
def schema_fault(struct: Any) -> str:
    """Why /openapi.json couldn't say what it holds; empty when it can."""
    try:
        msgspec.json.schema_components([struct])
    except (NameError, TypeError) as error:  # the last line says it
        return f"{shown(struct)}: {str(error).splitlines()[-1]}: expected fields of types that JSON can hold"
    return ""


def stands_in_a_text(kind: Any) -> bool:
    inner, _ = described(msgspec.inspect.type_info(kind))
    kinds = (
        [described(member)[0] for member in inner.types] if isinstance(inner, msgspec.inspect.UnionType) else [inner]
    )
    return all(isinstance(member, IN_A_TEXT) for member in kinds)


def answer_faults(declared: Declaration, kinds: Mapping[str, Any]) -> Iterator[str]:
    statuses = set(HTTPStatus)
    for status in (declared.status, *declared.problems, *declared.answers):
        if status not in statuses:
            yield f"{status}: expected a status of HTTP"
    if "return" not in kinds:
        yield "expected the type of its answer: `-> Note`, or `-> None` for a 204"
        return
    body, headers = body_and_headers(kinds["return"])
    if headers and not issubclass(headers, Headers):
        yield f"-> {shown(kinds['return'])}: expected a Headers beside the body, not {shown(headers)}"
    yield from body_faults(declared, body)


def body_faults(declared: Declaration, body: Any) -> Iterator[str]:
    if isinstance(body, type) and issubclass(body, Response):
        if not declared.answers:
            yield f"-> {shown(body)}: expected what it answers, as in @operation(answers={{200: Note}})"
    elif not (body is None or is_struct(body)):
        yield f"-> {shown(body)}: expected a Struct, None, an Answer or a Response"
    elif body and declared.status in WITHOUT_BODY:
        yield f"-> {shown(body)}: expected `-> None`, for {declared.status} has no body"
    for struct in filter(is_struct, (body, *declared.answers.values())):
        if fault := schema_fault(struct):
            yield fault


def shown(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def repeated(routes: Sequence[Route]) -> Iterator[str]:
    """Of two routes for the same, or two operations of the same name, only one would be found."""
    seen: dict[str, Any] = {}
    for route in routes:
        handler = handler_of(route.endpoint)
        names = [f"{method} {route.path}" for method in sorted(route.methods or ())]
        for name in [*names, *([handler.__name__] if route.include_in_schema else [])]:
            first = seen.setdefault(re.sub(r"{\w+", "{", name), handler)  # whatever a path's parameter is called
            if first is not handler:
                yield f"{place(handler)}: expected a {name} of its own, which {place(first)} has"
    handlers = [handler_of(route.endpoint) for route in routes if route.include_in_schema]
    for handler in dict.fromkeys(handlers):
        if handlers.count(handler) > 1:
            yield f"{place(handler)}: expected one route, for its name is the operationId of one"


def unrouted(routes: Sequence[Route]) -> Iterator[str]:
    """What stands beside handlers that have a route, and has none."""
    routed = [route.endpoint for route in routes if isinstance(route.endpoint, Declaration)]
    for module in dict.fromkeys(declared.handler.__module__ for declared in routed):
        for declared in vars(sys.modules[module]).values():
            if isinstance(declared, Declaration) and not any(declared is one for one in routed):
                yield f"{place(declared.handler)}: expected a route"


def forgotten(package: ModuleType, parts: Sequence[Part]) -> list[str]:
    """The modules of the package that no request can reach, a line each."""
    warnings = []
    for _, name, _ in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        part = getattr(sys.modules.get(name), "PART", None)
        if name not in sys.modules:
            warnings.append(f"{name} is imported by nobody: app.py lists what is served")
        elif part and not any(part is one for one in parts):
            warnings.append(f"{name}.PART is not in PARTS of app.py: nothing of it is served")
    return warnings


def hook_faults(parts: Sequence[Part]) -> Iterator[str]:
    called = {name for part in parts for name in part.calls}
    for part in parts:
        for name, hook in part.hooks.items():
            if name not in called:
                yield f"{place(hook)}: no part calls hooks named {name}: expected one of {', '.join(sorted(called))}"
            if not inspect.iscoroutinefunction(hook):
                yield f"{place(hook)}: expected `async def`"


def reader_faults(parts: Sequence[Part], readers: Readers) -> Iterator[str]:
    for part in parts:
        for kind, reader in part.readers.items():
            if readers[kind] is not reader:
                first = place(readers[kind].read)
                yield f"{place(reader.read)}: expected another type than {shown(kind)}, which {first} reads"


def task_faults(parts: Sequence[Part]) -> Iterator[str]:
    seen: dict[str, Any] = {}
    for name, task in (each for part in parts for each in part.tasks.items()):
        first = seen.setdefault(name, task)
        if first is not task:
            yield f"{place(task)}: expected a task {name} of its own, which {place(first)} does"
        if not inspect.iscoroutinefunction(task):
            yield f"{place(task)}: expected `async def`"
