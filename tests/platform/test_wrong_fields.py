"""Every field that is wrong is named, in the API's words: bodies, forms, queries and events."""

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct
from starlette.requests import Request

from infra.events.cloudevents import CloudEvent
from infra.http.bodies import read_body, read_form, read_query
from infra.http.events import read_event
from infra.http.problems import Problem, invalid, problem_response

JSON = [(b"content-type", b"application/json")]
FORM = [(b"content-type", b"application/x-www-form-urlencoded")]
NUL = "must not contain NUL"
TWICE = "given more than once"
REQUIRED = "required"
UNKNOWN = "unknown field"
TWO = '{"a": 0, "a": 0}'


class Flag(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Line(Struct, rename={"text": "Text"}):
    text: Annotated[str, Meta(max_length=3)]
    number: int = 0


class Address(Struct, forbid_unknown_fields=True):
    town: Annotated[str, Meta(min_length=2, max_length=8, description="a town's name of 2 to 8 letters")]
    lines: list[Line] = []


class Dock(Struct, tag="dock"):
    quay: int


class Buoy(Struct, tag="buoy"):
    depth: float


class Point(Struct, array_like=True, forbid_unknown_fields=True):
    x: int
    y: int = 0


class Circle(Struct, array_like=True, tag=1):
    radius: int


class Square(Struct, array_like=True, tag=2):
    side: int


class Tree(Struct):
    value: int = 0
    children: list["Tree"] = []


class Crew(NamedTuple):
    captain: str
    size: int = 1


class Cargo(TypedDict):
    tons: int


@dataclasses.dataclass
class Tide:
    height: int
    at: list[dt.time]


class Span(Struct):
    start: int = 0
    end: int = 0

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise ValueError("end comes before start")


Port = NewType("Port", str)


class Everything(Struct, forbid_unknown_fields=True):
    address: Address | None = None
    place: Dock | Buoy | None = None
    shape: Circle | Square | None = None
    point: Point | None = None
    tree: Tree | None = None
    crew: Crew | None = None
    cargo: Cargo | None = None
    tide: Tide | None = None
    span: Span | None = None
    flag: Flag = Flag.RED
    level: Level = Level.LOW
    word: Literal["a", "b", 1, None] = "a"
    port: Port = Port("")
    pair: tuple[int, Port] = (1, Port(""))
    several: tuple[int, ...] = ()
    tags: Annotated[list[str], Meta(min_length=1, max_length=2)] | msgspec.UnsetType = msgspec.UNSET
    words: set[str] = set()
    things: set = set()  # type: ignore[type-arg]
    names: dict[str, int] = {}
    numbers: dict[int, str] = {}
    levels: dict[Annotated[str, Meta(min_length=2)], int] = {}
    bare_list: list = []  # type: ignore[type-arg]
    bare_dict: dict = {}  # type: ignore[type-arg]
    anything: Any = None
    whatever: Annotated[Any, Meta(description="any JSON")] | None = None
    mixed: int | str | None = None
    many: list[int] | dict[str, int] | bool = False
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    even: Annotated[int, Meta(ge=0, multiple_of=2)] = 0
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    code: Annotated[str, Meta(pattern="^[a-z]+$", min_length=1)] = "a"
    yes: bool = True
    nothing: None = None
    when: Annotated[dt.datetime, Meta(tz=True)] | msgspec.UnsetType = msgspec.UNSET
    day: dt.date | None = None
    hour: dt.time | msgspec.UnsetType = msgspec.UNSET
    lasts: dt.timedelta | msgspec.UnsetType = msgspec.UNSET
    id: uuid.UUID | msgspec.UnsetType = msgspec.UNSET
    price: decimal.Decimal = decimal.Decimal(0)
    blob: Annotated[bytes, Meta(max_length=3)] = b""


WRONG: list[tuple[str, dict[str, str]]] = [
    # of whatever kind, and all of them
    ("[]", {"": "expected an object"}),
    ("null", {"": "expected an object"}),
    (
        '{"b": 1, "count": 0, "a": 1, "yes": 1}',
        {"b": UNKNOWN, "count": "expected an integer from 1 to 9"} | {"a": UNKNOWN, "yes": "expected true or false"},
    ),
    (
        '{"address": {"town": "x", "z": 1, "lines": [{"Text": "four"}, {"number": "1"}, 5, {"text": 1, "Text": 1}]}}',
        {
            "address.town": "expected a town's name of 2 to 8 letters",
            "address.z": UNKNOWN,
            "address.lines[0].Text": "expected a string of at most 3 characters",
            "address.lines[1].number": "expected an integer",
            "address.lines[1].Text": REQUIRED,
            "address.lines[2]": "expected an object",
            "address.lines[3].Text": "expected a string",
        },
    ),
    ('{"address": {"town": 17}}', {"address.town": "expected a string"}),
    ('{"address": "x"}', {"address": "expected an object or null"}),
    (
        '{"tree": {"children": [{"value": "1"}, {"children": [{"value": null}]}]}}',
        {"tree.children[0].value": "expected an integer", "tree.children[1].children[0].value": "expected an integer"},
    ),
    # told apart by a tag
    ('{"place": {"quay": 1}}', {"place.type": REQUIRED}),
    ('{"place": {"type": "boat"}}', {"place.type": "expected one of dock, buoy"}),
    ('{"place": {"type": ["dock"]}}', {"place.type": "expected one of dock, buoy"}),
    ('{"place": {"type": "buoy", "quay": 1}}', {"place.depth": REQUIRED}),
    ('{"shape": [2, "x"]}', {"shape[1]": "expected an integer"}),
    ('{"shape": [3, 1]}', {"shape[0]": "expected one of 1, 2"}),
    ('{"shape": [true, 1]}', {"shape[0]": "expected one of 1, 2"}),
    ('{"shape": []}', {"shape[0]": REQUIRED}),
    ('{"shape": [2]}', {"shape": "expected an array of at least 2 items"}),
    # arrays and objects of each sort
    ('{"point": [1, 2, 3]}', {"point": "expected an array of 1 to 2 items"}),
    ('{"point": ["1", "2"]}', {"point[0]": "expected an integer", "point[1]": "expected an integer"}),
    ('{"crew": [1]}', {"crew[0]": "expected a string"}),
    ('{"crew": []}', {"crew": "expected an array of 1 to 2 items"}),
    (
        '{"cargo": {}, "tide": {"at": ["noon"]}}',
        {"cargo.tons": REQUIRED, "tide.at[0]": "expected a time in RFC 3339", "tide.height": REQUIRED},
    ),
    (
        '{"pair": [1], "several": [1, "2", 3, null]}',
        {
            "pair": "expected an array of 2 items",
            "several[1]": "expected an integer",
            "several[3]": "expected an integer",
        },
    ),
    ('{"tags": [], "words": [1]}', {"tags": "expected an array of 1 to 2 items", "words[0]": "expected a string"}),
    ('{"tags": {}}', {"tags": "expected an array"}),
    (
        '{"names": {"a": 1, "b": "2"}, "bare_list": {}, "bare_dict": []}',
        {"names.b": "expected an integer", "bare_list": "expected an array", "bare_dict": "expected an object"},
    ),
    (
        '{"numbers": {"1": "a", "x": "b", "2": 3}}',
        {"numbers.x": "expected an integer as its name", "numbers.2": "expected a string"},
    ),
    ('{"levels": {"a": 1}}', {"levels.a": "expected a string of at least 2 characters as its name"}),
    ('{"many": "x"}', {"many": "expected an array, an object or true or false"}),
    ('{"many": [1, "x"]}', {"many[1]": "expected an integer"}),
    ('{"many": {"a": "x"}}', {"many.a": "expected an integer"}),
    # single values
    (
        '{"flag": "blue", "level": 3, "word": "c"}',
        {"flag": "expected one of red, green"}
        | {"level": "expected one of 1, 2", "word": "expected one of null, 1, a, b"},
    ),
    (
        '{"mixed": [], "port": 1, "nothing": 0}',
        {"mixed": "expected an integer, a string or null", "port": "expected a string", "nothing": "expected null"},
    ),
    (
        '{"count": "1", "even": 3, "share": 1, "code": "A"}',
        {
            "count": "expected an integer",
            "even": "expected an integer of at least 0 that is a multiple of 2",
            "share": "expected a number greater than 0 less than 1",
            "code": "expected a string of at least 1 character that matches ^[a-z]+$",
        },
    ),
    ('{"share": 1e999, "mixed": -1e999}', {"share": "out of range", "mixed": "out of range"}),
    (
        '{"when": "2026-11-24T08:00:00", "day": 5, "hour": "x", "lasts": "x"}',
        {"when": "expected a date-time in RFC 3339", "day": "expected a date in RFC 3339 or null"}
        | {"hour": "expected a time in RFC 3339", "lasts": "expected a duration in ISO 8601"},
    ),
    (
        '{"id": "x", "price": "x", "blob": "!"}',
        {"id": "expected a UUID", "price": "expected a decimal number"}
        | {"blob": "expected base64 of at most 3 bytes"},
    ),
    # a NUL, wherever it stands
    *(
        (text % r"a\u0000", {field: NUL})
        for text, field in [
            ('{"port": "%s"}', "port"),
            ('{"pair": [1, "%s"]}', "pair[1]"),
            ('{"crew": ["%s"]}', "crew[0]"),
            ('{"cargo": {"tons": 1, "more": "%s"}}', "cargo.more"),
            ('{"names": {"%s": 1}}', "names.a\0"),
            ('{"numbers": {"1": "%s"}}', "numbers.1"),
            ('{"bare_list": [0, "%s"]}', "bare_list[1]"),
            ('{"bare_dict": {"a": ["%s"]}}', "bare_dict.a[0]"),
            ('{"anything": {"a": {"%s": 1}}}', "anything.a.a\0"),
            ('{"words": ["%s"]}', "words[0]"),
            ('{"mixed": "%s"}', "mixed"),
            ('{"address": {"town": "ab", "lines": [{"Text": "%s"}]}}', "address.lines[0].Text"),
        ]
    ),
    (r'{"port": "\u0000", "count": 0}', {"port": NUL, "count": "expected an integer from 1 to 9"}),
    (
        r'{"names": {"a\u0000": 1}, "cargo": {"tons": 1, "b\u0000": 1}, "count": 0}',
        {"names.a\0": NUL, "cargo.b\0": NUL, "count": "expected an integer from 1 to 9"},
    ),
    # a name twice, wherever it stands
    ('{"count": 1, "yes": true, "count": 1}', {"count": TWICE}),
    (
        '{"anything": [{"a": 1, "a": 1}], "count": 0}',
        {"anything[0].a": TWICE, "count": "expected an integer from 1 to 9"},
    ),
    ('{"names": {"a": 1, "a": 1}, "cargo": {"tons": 1, "x": 1, "x": 2}}', {"names.a": TWICE, "cargo.x": TWICE}),
    ('{"x": 1, "x": 1}', {"x": UNKNOWN}),
    (
        '{"whatever": {"a": [1, null, {"b": 1, "b": 1}]}, "count": 0}',
        {"whatever.a[2].b": TWICE, "count": "expected an integer from 1 to 9"},
    ),
    # what only msgspec knows
    ('{"span": {"start": 2, "end": 1}}', {"span": "end comes before start"}),
    ('{"price": 1e99999999999999999999999}', {"price": "is wrong"}),
    ('{"anything": [1e999]}', {"anything[0]": "is wrong"}),
    ('{"things": [[1]]}', {"": "is wrong"}),
]
RIGHT = [
    "{}",
    r'{"port": "a\\u0000", "anything": [[], {}, "\\u0000"]}',
    '{"price": 1e999, "even": %s}' % ("2" * 4000),
    '{"place": {"type": "dock", "quay": 1}, "shape": [1, 2], "point": [1], "crew": ["ada"], "cargo": {"tons": 1}}',
    json.dumps({"anything": {str(number): [[]] for number in range(20_000)}}),
]  # fmt: skip
NOT_JSON = [
    '{"anything": "\\ud800"}',
    '{"even": %s}' % ("2" * 5000),
    '{"anything": %s}' % ("[" * 100_000 + "]" * 100_000),
    '{"x": %s}' % ("[" * 100_000 + "]" * 100_000),
    "\ufeff{}",
    '{"share": NaN}',
]


def ask(
    reader: Callable[[Any, Any], Awaitable[Any]],
    struct: type[Struct],
    body: str = "",
    query: str = "",
    headers: list[tuple[bytes, bytes]] = JSON,
) -> Any:
    """What the reader makes of a request: a `struct`, or the problem document."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body.encode()}

    async def read() -> Any:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": query.encode()}
        try:
            return await reader(Request(scope, receive), struct)
        except Problem as problem:
            return json.loads(bytes(problem_response(problem, "/").body))

    return asyncio.run(read())


def named(problem: dict[str, Any]) -> list[tuple[str, str]]:
    assert problem["status"] == 422, problem
    return [(error["field"], error["message"]) for error in problem["errors"]]


@pytest.mark.parametrize(("body", "errors"), WRONG, ids=[body[:60] for body, _ in WRONG])
def test_every_wrong_field_is_named_in_the_order_of_the_body(body: str, errors: dict[str, str]) -> None:
    assert named(ask(read_body, Everything, body)) == list(errors.items())


@pytest.mark.parametrize("body", RIGHT, ids=[body[:60] for body in RIGHT])
def test_what_is_right_is_read(body: str) -> None:
    assert isinstance(ask(read_body, Everything, body), Everything)


@pytest.mark.parametrize("body", NOT_JSON, ids=[ascii(body[:60]) for body in NOT_JSON])
def test_what_no_reader_can_hold_is_a_400(body: str) -> None:
    assert ask(read_body, Everything, body)["status"] == 400


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("[]", "expected an object"),
        ('{"a": 1}', "a: unknown field"),
        ('{"a": 1, "b": 2, "c": 3}', "a: unknown field, and 2 more"),
        (json.dumps({f"x{number}": 1 for number in range(50)}), "x0: unknown field, and 49 more"),
        (json.dumps({f"x{number}": 1 for number in range(60_000)}), "x0: unknown field, and at least 50 more"),
        (json.dumps({"several": ["1"] * 100_000}), "several[0]: expected an integer, and at least 50 more"),
        (f'{{"anything": [{"{}, " * 9}{", ".join([TWO] * 99)}]}}', f"anything[9].a: {TWICE}, and at least 50 more"),
    ],
)
def test_the_detail_names_the_first_and_counts_the_others(body: str, detail: str) -> None:
    problem = ask(read_body, Everything, body)
    assert problem["detail"] == detail
    assert len(problem["errors"]) <= 50


def test_a_long_name_is_cut() -> None:
    body = {"n" * 250 + str(number): 1 for number in range(100)}
    errors = named(ask(read_body, Everything, json.dumps(body)))
    assert len(errors) == 50
    assert set(errors) == {("n" * 199 + "…", UNKNOWN)}


@pytest.mark.parametrize(("length", "named_as"), [(200, "n" * 200), (201, "n" * 199 + "…")])
def test_a_name_may_have_200_characters(length: int, named_as: str) -> None:
    assert named(ask(read_body, Everything, json.dumps({"n" * length: 1}))) == [(named_as, UNKNOWN)]


@pytest.mark.parametrize("alone", [r"\ud800", r"\uDFFF", r"\udc00\ud800", r"a\uD834b", r"\ud834\u0041"])
@pytest.mark.parametrize(
    "body",
    [
        '{"%s": 1}',
        '{"%s": 1, "%s": 1}',
        '{"port": "a", "%s": 1}',
        '{"anything": {"%s": 1}}',
        '{"anything": [{"a": {"%s": 1, "%s": 1}}]}',
        '{"names": {"%s": "x"}}',
        '{"address": {"port": 1, "%s": [], "%s": 1}}',
        '{"%s": 1, "port": 1e999, "port": 1}',
        '{"port": "%s"}',
        '{"anything": ["%s"]}',
        '{"unknown": "%s"}',
    ],
)
def test_what_is_not_unicode_is_a_400_wherever_it_stands(body: str, alone: str) -> None:
    assert ask(read_body, Everything, body.replace("%s", alone))["status"] == 400


def test_a_pair_of_surrogates_is_a_character() -> None:
    body = r'{"names": {"\ud83d\udd11": 1}}'
    assert ask(read_body, Everything, body).names == {"\U0001f511": 1}


def test_a_lone_surrogate_is_replaced_wherever_a_problem_has_it() -> None:
    problem = json.loads(bytes(problem_response(invalid("\ud800", "\udfff"), "/\ud800").body))
    assert (problem["detail"], problem["instance"], named(problem)) == ("?: ?", "/%3F", [("?", "?")])


@pytest.mark.parametrize(
    ("wrong", "field"), [({"yes": 1}, "yes"), ({"numbers": {"x": ""}}, "numbers"), ({"several": [1, ""]}, "several[1]")]
)
def test_where_a_huge_body_is_wrong_is_told_though_it_is_not_walked_to_its_end(
    wrong: dict[str, Any], field: str
) -> None:
    body = {"bare_list": [[]] * 90_000, **wrong}
    assert named(ask(read_body, Everything, json.dumps(body))) == [(field, "is wrong")]


@pytest.mark.parametrize("depth", [100, 300, 900, 5000])
@pytest.mark.parametrize(("before", "after"), [('{"anything": [', "]}"), ('{"children": [', "]}")])
def test_a_deep_body_is_refused_when_a_text_in_it_is_wrong(depth: int, before: str, after: str) -> None:
    body = before * depth + r'"\u0000"' + after * depth
    assert ask(read_body, Everything, body)["status"] in (400, 422)


class Query(Struct, forbid_unknown_fields=True, rename={"after": "from"}):
    limit: Annotated[int, Meta(ge=1, le=9)] = 1
    after: str = ""


class Token(Struct, rename={"secret": "token"}):
    secret: str
    live: bool = False


@pytest.mark.parametrize(
    ("query", "errors"),
    [
        ("limit=x&page=2", {"limit": "expected an integer from 1 to 9", "page": UNKNOWN}),
        ("limit=10&from=%00", {"limit": "expected an integer from 1 to 9", "from": NUL}),
        ("from=a&from=b&after=c", {"from": TWICE, "after": UNKNOWN}),
        ("x=1&x=2", {"x": UNKNOWN}),
    ],
)
def test_every_wrong_parameter_of_a_query_is_named(query: str, errors: dict[str, str]) -> None:
    assert named(ask(read_query, Query, query=query)) == list(errors.items())


@pytest.mark.parametrize(
    ("form", "errors"),
    [
        ("live=maybe", {"live": "expected true or false", "token": REQUIRED}),
        ("token=a&token=b&live=x", {"token": TWICE, "live": "expected true or false"}),
        ("token=%00", {"token": NUL}),
    ],
)
def test_every_wrong_field_of_a_form_is_named(form: str, errors: dict[str, str]) -> None:
    assert named(ask(read_form, Token, form, headers=FORM)) == list(errors.items())


def test_a_field_that_a_form_ignores_may_be_anything() -> None:
    assert ask(read_form, Token, "token=a&live=true&x=1&x=%00", headers=FORM) == Token("a", live=True)


EVENT = {b"ce-specversion": b"1.0", b"ce-id": b"1", b"ce-source": b"/cron", b"ce-type": b"tick"}


@pytest.mark.parametrize(
    ("headers", "errors"),
    [
        ([(b"ce-id", b"2")], {"id": TWICE}),
        ([(b"ce-time", b"1795510526")], {"time": "expected RFC 3339, in UTC or null"}),
        ([(b"ce-subject", b""), (b"ce-time", b"noon")],
         {"subject": "expected a string of at least 1 character or null", "time": "expected RFC 3339, in UTC or null"}),
    ],
)  # fmt: skip
def test_every_wrong_attribute_of_an_event_in_headers_is_named(
    headers: list[tuple[bytes, bytes]], errors: dict[str, str]
) -> None:
    assert named(ask(read_event, CloudEvent, headers=[*EVENT.items(), *headers])) == list(errors.items())


def test_an_extension_attribute_may_come_twice() -> None:
    headers = [*EVENT.items(), (b"ce-x", b"1"), (b"ce-x", b"2")]
    assert isinstance(ask(read_event, CloudEvent, headers=headers), CloudEvent)


NAMES = ["type", "quay", "Text", "value", "a", "a\0"]
TEXTS = st.text(max_size=3) | st.sampled_from(["\0", "a", "red", "dock", "buoy", "1", "2026-11-24", "\ud800"])


def objects(values: st.SearchStrategy[Any], names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Objects as tuples of pairs: a name may come twice."""
    return st.lists(st.tuples(names, values), max_size=4).map(tuple)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | objects(inner, st.sampled_from(NAMES)),
    max_leaves=6,
)


def json_text(value: Any) -> str:
    match value:
        case tuple():
            return "{" + ", ".join(f"{json.dumps(name)}: {json_text(item)}" for name, item in value) + "}"
        case list():
            return "[" + ", ".join(map(json_text, value)) + "]"
    return json.dumps(value)


def harmless(value: Any) -> bool:
    """No NUL in it, and no name twice."""
    match value:
        case tuple():
            names = [name for name, _ in value]
            return len(set(names)) == len(names) and all(harmless(part) for pair in value for part in pair)
        case list():
            return all(map(harmless, value))
    return not (isinstance(value, str) and "\0" in value)


@settings(max_examples=300, deadline=None, database=None)
@given(objects(VALUES, st.sampled_from(Everything.__struct_fields__)))
@example((("things", [[1]]),))
def test_a_body_is_refused_exactly_when_msgspec_refuses_it_or_it_has_a_nul_or_a_name_twice(value: Any) -> None:
    body = json_text(value)
    try:
        msgspec.json.decode(body, type=Everything)
        taken = True
    except (msgspec.DecodeError, TypeError):  # TypeError: an array can't be in a set
        taken = False
    answer = ask(read_body, Everything, body)
    assert isinstance(answer, Everything) == (taken and harmless(value)), answer
    if not isinstance(answer, Everything):
        assert answer["status"] in (400, 422)
        assert all(error["message"] for error in answer.get("errors", []))
