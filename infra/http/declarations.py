"""What is declared wrongly, told before the first request: where it stands, and what was expected."""

import inspect
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from infra.http.answers import Headers
from infra.http.expectations import PYTHON_TYPES, described
from infra.http.operations import Declaration, body_and_headers
from infra.http.parameters import BODY_READERS, STRUCT_READERS, is_header, is_struct, parameter_of
from infra.http.parts import Part, Reader

ROOT = Path(__file__).parents[2]
IN_A_TEXT: tuple[Any, ...] = (*PYTHON_TYPES, msgspec.inspect.EnumType, msgspec.inspect.LiteralType)
NO_OPERATION = "expected @operation() above it, or include_in_schema=False in its route"

Readers = Mapping[type, Reader]


def faults_of(routes: Sequence[Route], parts: Sequence[Part], readers: Readers) -> Iterator[str]:
    """All that is wrong, a line each."""
    for route in routes:
        handler = getattr(route.endpoint, "handler", route.endpoint)
        for fault in handler_faults(route, readers):
            yield f"{place(handler)}: {fault}"
    yield from repeated(routes)
    yield from unrouted(routes)
    yield from hook_faults(parts)


def place(function: Any) -> str:
    """Its file, line and name."""
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
    if not route.methods:
        yield f"the route {route.path} has no methods: expected methods=[...]"
    if not inspect.iscoroutinefunction(declared.handler):
        yield "expected `async def`"
    try:
        kinds = get_type_hints(declared.handler, include_extras=True)
    except NameError as error:
        yield f"{error}: expected annotations that can be looked up when it is imported"
        return
    yield from parameter_faults(declared, route, kinds, readers)
    yield from answer_faults(declared, kinds)


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
        return ""
    if name in STRUCT_READERS:
        return f"expected a Struct, not {shown(kind)}"
    if is_struct(kind):
        return f"a Struct is read into one of {', '.join(STRUCT_READERS)}: expected one of these names"
    types = ", ".join(reader.__name__ for reader in readers)
    named = f"a name in the path {route.path}, " if route.param_convertors else ""
    return f"nothing gives a handler {shown(kind)}: expected {named}a Header[...], a Struct, or one of {types}"


def stands_in_a_text(kind: Any) -> bool:
    inner, _ = described(msgspec.inspect.type_info(kind))
    kinds = (
        [described(member)[0] for member in inner.types] if isinstance(inner, msgspec.inspect.UnionType) else [inner]
    )
    return all(isinstance(member, IN_A_TEXT) for member in kinds)


def answer_faults(declared: Declaration, kinds: Mapping[str, Any]) -> Iterator[str]:
    for status in (declared.status, *declared.problems, *declared.answers):
        if status not in set(HTTPStatus):
            yield f"{status}: expected a status of HTTP"
    if "return" not in kinds:
        yield "expected the type of its answer: `-> Note`, or `-> None` for a 204"
        return
    body, headers = body_and_headers(kinds["return"])
    if headers and not issubclass(headers, Headers):
        yield f"-> {shown(kinds['return'])}: expected a Headers beside the body, not {shown(headers)}"
    if isinstance(body, type) and issubclass(body, Response):
        if not declared.answers:
            yield f"-> {shown(body)}: expected what it answers, as in @operation(answers={{200: Note}})"
    elif not (body is None or is_struct(body)):
        yield f"-> {shown(body)}: expected a Struct, None, an Answer or a Response"


def shown(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def repeated(routes: Sequence[Route]) -> Iterator[str]:
    """Of two routes for the same, or two operations of the same name, only one would be found."""
    seen: dict[str, Any] = {}
    for route in routes:
        handler = getattr(route.endpoint, "handler", route.endpoint)
        names = [f"{method} {route.path}" for method in sorted(route.methods or ())]
        for name in [*names, *([handler.__name__] if route.include_in_schema else [])]:
            first = seen.setdefault(name, handler)
            if first is not handler:
                yield f"{place(handler)}: expected a {name} of its own, which {place(first)} has"


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
