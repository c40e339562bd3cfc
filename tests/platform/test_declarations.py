"""What is declared wrongly ends the start with 70, and a line for each fault: where it is and what was expected."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app import PARTS
from infra.base.kinds import TOKEN
from settings import VARIABLES
from tests.conftest import TEST_SETTINGS
from tests.support.service import ROOT, clean_environment, parse

MODULE = """
from msgspec import Struct
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route

from infra.base.ids import Id
from infra.http.answers import Answer, Tagged
from infra.http.etags import IfMatch
from infra.http.operations import operation
from infra.http.pages import Page, PageQuery
from infra.http.parameters import Header
from infra.http.parts import Part, Reader
from infra.http.state import Request


class Note(Struct):
    id: Id


class Anything(Struct):
    anything: object


class Missing(Struct):
    id: "Idd"


async def read_id(request, kind): ...


async def read_match(request, kind): ...


async def read_id_too(request, kind): ...


async def count_notes(database, settings): ...


async def count_notes_too(database, settings): ...


def count_notes_at_once(database, settings): ...


async def forget_notes(transaction, note_id): ...


async def without_operation(request: Request) -> None: ...


@operation()
async def without_route(request: Request) -> None: ...


@operation()
async def without_methods(request: Request) -> None: ...


@operation()
async def twice(request: Request) -> None: ...


one = twice


@operation()
async def of_two_methods(request: Request) -> None: ...


@operation()
async def of_two_routes(request: Request) -> None: ...


@operation()
async def with_middleware(request: Request) -> None: ...


@operation()
async def of_a_path(request: Request, note_id: Id) -> None: ...


@operation()
async def of_the_same_path(request: Request, id: Id) -> None: ...


@operation()
async def twice(request: Request) -> None: ...


ROUTES = [
    Route("/v1/without-operation", without_operation),
    Route("/v1/without-methods", without_methods),
    Route("/v1/two-methods", of_two_methods, methods=["POST", "PUT"]),
    Route("/v1/one-route", of_two_routes, methods=["POST"]),
    Route("/v1/two-routes", of_two_routes, methods=["POST"]),
    Route("/v1/middleware", with_middleware, methods=["POST"], middleware=[Middleware(Note)]),
    Route("/v1/twice", one, methods=["POST"]),
    Route("/v1/twice", twice, methods=["POST"]),
    Route("/v1/paths/{note_id}", of_a_path, methods=["POST"]),
    Route("/v1/paths/{id}", of_the_same_path, methods=["POST"]),
]
PARTS = [
    Part(
        hooks={"note.deletd": forget_notes},
        calls=["note.deleted"],
        readers={Missing: Reader(read_id), IfMatch: Reader(read_match)},
        tasks={"notes.count": count_notes, "notes.count.now": count_notes_at_once},
    ),
    Part(readers={Missing: Reader(read_id_too)}, tasks={"notes.count": count_notes_too}),
]
"""
HANDLER = """

@operation({arguments})
{text}


ROUTES.append(Route("{path}", {name}, methods=["GET"]))
"""
START = """
import sys

import app
import notes

app.PARTS.extend(notes.PARTS)
app.ROUTES.extend(notes.ROUTES)
{start}
"""
STARTS = {"python app.py": "sys.exit(app.main([]))", "uvicorn app:app": "app.app"}
PATH = "/v1/notes/{note_id}"
TYPES = [*(kind.__name__ for part in PARTS for kind in part.readers), "Missing", "IfMatch"]
SOURCES = f"expected a name in the path {PATH}, a Header[...], a Struct, or one of {', '.join(TYPES)}"
TOKENS = " or ".join(name.lower() for name, line in VARIABLES.items() if line.kind is TOKEN)
JSON = "expected fields of types that JSON can hold"
CALLED = sorted({"note.deleted", *(name for part in PARTS for name in part.calls)})
# What handlers of /v1/notes/{note_id} look like, and what is said of them; a line for each fault.
RIGHT = {
    "everything": "async def handler(request: Request, note_id: Id, if_match: IfMatch, body: Note) -> Note: ...",
    "a header": "async def handler(request: Request, note_id: int, key: Header[str | None]) -> None: ...",
    "a page": "async def handler(request: Request, note_id: Id, query: PageQuery) -> Page[Note]: ...",
    "an answer's headers": "async def handler(request: Request, note_id: Id) -> Answer[Note, Tagged]: ...",
}
WRONG = {
    "no source": (
        "async def handler(request: Request, note_id: Id, size: int) -> Note: ...",
        f"parameter `size`: nothing gives a handler int: {SOURCES}",
    ),
    "an unknown type": (
        "async def handler(request: Request, note_id: Id, who: Route) -> Note: ...",
        f"parameter `who`: nothing gives a handler Route: {SOURCES}",
    ),
    "no type": (
        "async def handler(request: Request, note_id: Id, size) -> Note: ...",
        "parameter `size`: expected a type",
    ),
    "a type that isn't there": (
        "async def handler(request: Request, note_id: 'Idd') -> Note: ...",
        "name 'Idd' is not defined: expected annotations that can be looked up when it is imported",
    ),
    "any number of them": (
        "async def handler(request: Request, note_id: Id, **more: int) -> Note: ...",
        "parameter `**more: int`: expected one that is given by its name",
    ),
    "a Struct of another name": (
        "async def handler(request: Request, note_id: Id, note: Note) -> Note: ...",
        "parameter `note`: a Struct is read into one of query, form, body, event: expected one of these names",
    ),
    "a body that is no Struct": (
        "async def handler(request: Request, note_id: Id, body: str) -> Note: ...",
        "parameter `body`: expected a Struct, not str",
    ),
    "two bodies": (
        "async def handler(request: Request, note_id: Id, body: Note, form: Note) -> Note: ...",
        "parameters `body` and `form`: expected one that reads the body",
    ),
    "the path's parameter is missing": (
        "async def handler(request: Request) -> Note: ...",
        "the path /v1/notes/{note_id} has {note_id}: expected a parameter `note_id`",
    ),
    "the path's parameter is no text": (
        "async def handler(request: Request, note_id: list[str]) -> Note: ...",
        "parameter `note_id`: expected a type that a text stands for, such as Id, not list[str]",
    ),
    "no request": (
        "async def handler(note_id: Id) -> Note: ...",
        "expected `request` as its first parameter",
    ),
    "no answer type": (
        "async def handler(request: Request, note_id: Id): ...",
        "expected the type of its answer: `-> Note`, or `-> None` for a 204",
    ),
    "an answer of another type": (
        "async def handler(request: Request, note_id: Id) -> list: ...",
        "-> list: expected a Struct, None, an Answer or a Response",
    ),
    "a Response of nobody knows what": (
        "async def handler(request: Request, note_id: Id) -> Response: ...",
        "-> Response: expected what it answers, as in @operation(answers={200: Note})",
    ),
    "headers that are none": (
        "async def handler(request: Request, note_id: Id) -> Answer[Note, Note]: ...",
        "-> infra.http.answers.Answer[notes.Note, notes.Note]: expected a Headers beside the body, not Note",
    ),
    "not async": (
        "def handler(request: Request, note_id: Id) -> Note: ...",
        "expected `async def`",
    ),
    "a status that is none": (
        "async def handler(request: Request, note_id: Id) -> Note: ...",
        "99: expected a status of HTTP",
    ),
    "a body after a status that has none": (
        "async def handler(request: Request, note_id: Id) -> Note: ...",
        "-> Note: expected `-> None`, for 204 has no body",
    ),
    "a bearer token that no setting holds": (
        "async def handler(request: Request, note_id: Id) -> Note: ...",
        f"bearer='note_token': expected a setting that holds a token: {TOKENS}",
    ),
    "a field that JSON can't hold": (
        "async def handler(request: Request, note_id: Id, body: Anything) -> Note: ...",
        f"parameter `body`: Anything: type <class 'object'> is not supported: {JSON}",
    ),
    "a field of a type that isn't there": (
        "async def handler(request: Request, note_id: Id) -> Missing: ...",
        f"Missing: name 'Idd' is not defined: {JSON}",
    ),
    "pages of nobody knows what": (
        "async def handler(request: Request, note_id: Id) -> Page: ...",
        f"Page: type <class 'infra.http.pages.Listed'> is not supported: {JSON}",
    ),
    "an answer that JSON can't hold": (
        "async def handler(request: Request, note_id: Id) -> Response: ...",
        f"Anything: type <class 'object'> is not supported: {JSON}",
    ),
    "@operation() twice": (
        "async def handler(request: Request, note_id: Id) -> Note: ...",
        "expected one @operation() above it",
    ),
    "several at once": (
        "def handler(request: Request, note_id: Id, size: int): ...",
        "\n".join(
            (
                "expected `async def`",
                f"parameter `size`: nothing gives a handler int: {SOURCES}",
                "expected the type of its answer: `-> Note`, or `-> None` for a 204",
            )
        ),
    ),
}
ARGUMENTS = {
    "a status that is none": "99",
    "a body after a status that has none": "204",
    "a bearer token that no setting holds": "bearer='note_token'",
    "an answer that JSON can't hold": "answers={200: Anything}",
    "@operation() twice": ")\n@operation(",
}
OTHERS = {
    "without_operation": "expected @operation() above it, or include_in_schema=False in its route",
    "without_methods": "the route /v1/without-methods has no methods: expected methods=[...]",
    "without_route": "expected a route",
    "of_two_methods": "the route /v1/two-methods has POST and PUT: expected one, for an operationId is of one",
    "of_two_routes": "expected one route, for its name is the operationId of one",
    "with_middleware": "the route /v1/middleware has middleware: expected it in the app's, which all requests pass",
    "of_the_same_path": "expected a POST /v1/paths/{id} of its own, which of_a_path has",
    "read_id": "expected another type than Missing, which read_id_too reads",
    "read_match": "expected another type than IfMatch, which read_if_match reads",
    "count_notes_too": "expected a task notes.count of its own, which count_notes does",
    "count_notes_at_once": "expected `async def`",
    "forget_notes": f"no part calls hooks named note.deletd: expected one of {', '.join(CALLED)}",
}

Said = dict[str, str]


def name_of(case: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in case)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all of these handlers."""
    file = tmp_path_factory.mktemp("declared") / "notes.py"
    text = MODULE
    for case, handler in {**RIGHT, **{case: handler for case, (handler, _) in WRONG.items()}}.items():
        name = name_of(case)
        arguments = ARGUMENTS.get(case, "")
        path = PATH.replace("notes", name)
        text += HANDLER.format(arguments=arguments, text=handler.replace("handler", name, 1), path=path, name=name)
    file.write_text(text)
    return file


def started(module: Path, start: str) -> list[str]:
    """The messages of its CRITICAL lines."""
    done = subprocess.run(
        [sys.executable, "-c", START.format(start=STARTS[start])],
        cwd=module.parent,
        env=clean_environment({**TEST_SETTINGS, "DATA_DIR": module.parent / "data", "PYTHONPATH": ROOT}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (os.EX_SOFTWARE, ""), done.stdout + done.stderr
    lines = [line for line in map(parse, done.stdout.splitlines()) if line["severity"] == "CRITICAL"]
    return [line["message"] for line in lines]


@pytest.fixture(scope="module")
def messages(module: Path) -> list[str]:
    return started(module, "python app.py")


def said_of(messages: list[str], module: Path, name: str) -> str:
    """After its file, its line and its name."""
    number = next(number for number, line in enumerate(module.read_text().splitlines(), 1) if f"def {name}(" in line)
    places = [f"{module}:{line}: {name}: " for line in range(number - 2, number + 1)]  # with its decorators
    found = [message for message in messages if message.startswith(tuple(places))]
    return "\n".join(message.split(f": {name}: ", 1)[1] for message in found)


@pytest.mark.parametrize("case", WRONG)
def test_a_handler_that_is_declared_wrongly_is_told_what_was_expected(
    messages: list[str], module: Path, case: str
) -> None:
    name = name_of(case)
    assert said_of(messages, module, name) == WRONG[case][1].replace(PATH, PATH.replace("notes", name))


@pytest.mark.parametrize("case", RIGHT)
def test_a_handler_that_is_declared_well_is_not_named(messages: list[str], case: str) -> None:
    assert [message for message in messages if name_of(case) in message] == []


@pytest.mark.parametrize("name", OTHERS)
def test_a_route_that_lacks_something_and_a_hook_that_nobody_calls_are_told(
    messages: list[str], module: Path, name: str
) -> None:
    said = said_of(messages, module, name)
    assert re.sub(r"\S+:\d+: ", "", said) == OTHERS[name]


def test_an_operation_without_parentheses_is_told_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "notes.py"
    file.write_text("from infra.http.operations import operation\n\n\n@operation\nasync def handler(request): ...\n")
    done = subprocess.run(
        [sys.executable, file], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert f'File "{file}", line 4' in done.stderr
    assert done.stderr.endswith("TypeError: expected @operation(), with parentheses\n")


def test_two_handlers_of_the_same_name_or_route_are_told(messages: list[str]) -> None:
    found = [message.partition("expected ")[2] for message in messages if ": twice: " in message]
    assert [text.partition(", which ")[0] for text in found] == ["a POST /v1/twice of its own", "a twice of its own"]


def test_nothing_else_is_told(messages: list[str]) -> None:
    assert len(messages) == sum(said.count("\n") + 1 for _, said in WRONG.values()) + len(OTHERS) + 2


def test_another_server_that_asks_for_the_app_ends_as_well(module: Path, messages: list[str]) -> None:
    assert started(module, "uvicorn app:app") == messages


FORGOTTEN = {
    "it isn't imported": ("", "handlers.forgotten is imported by nobody: app.py lists what is served"),
    "its part isn't listed": (
        "import handlers.forgotten",
        "handlers.forgotten.PART is not in PARTS of app.py: nothing of it is served",
    ),
    "nothing": ("import handlers.forgotten\napp.PARTS.append(handlers.forgotten.PART)", None),
}


@pytest.mark.parametrize("case", FORGOTTEN)
def test_a_module_of_handlers_that_is_not_in_the_app_is_warned_of(tmp_path: Path, case: str) -> None:
    line, said = FORGOTTEN[case]
    (tmp_path / "forgotten.py").write_text("from infra.http.parts import Part\n\nPART = Part()\n")
    start = f"import app, handlers\nhandlers.__path__.append({str(tmp_path)!r})\n{line}\napp.main(['migrate'])"
    done = subprocess.run(
        [sys.executable, "-c", start],
        cwd=ROOT,
        env=clean_environment({**TEST_SETTINGS, "DATA_DIR": tmp_path / "data"}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = [line for line in map(parse, done.stdout.splitlines()) if line["severity"] == "WARNING"]
    assert [line["message"] for line in lines] == ([said] if said else [])
    assert done.stderr == ""
