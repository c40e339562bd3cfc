"""What a JSON value is checked against, and the walk along it that notes each field that is wrong."""

from collections import Counter
from collections.abc import Sequence
from types import GenericAlias
from typing import Any, Protocol

import msgspec
from msgspec import inspect

from infra.http.expectations import amount, expected, python_type
from infra.http.problems import FieldError

MOST_ERRORS = 50
MOST_VALUES = 50_000  # that are looked at
LONGEST_PATH = 200  # characters
REQUIRED = "required"
UNKNOWN = "unknown field"
TWICE = "given more than once"
NUL = "must not contain NUL"
INFINITE = (float("inf"), float("-inf"))  # 1e999, for json.loads


class Repeated(dict[str, Any]):
    """A JSON object that may give a name more than once; each has its last value."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def repeated_names(self) -> set[str]:
        return {name for name, times in Counter(name for name, _ in self.pairs).items() if times > 1}


class EnoughError(Exception):
    """More than MOST_ERRORS are found, or MOST_VALUES looked at: nobody would read on."""


class Walk:
    """Where the walk is, and what it has found."""

    def __init__(self, strict: bool, most_values: float) -> None:
        self.strict = strict
        self.values_left = most_values
        self.path: list[str | int] = []  # changed in place; made a text for what is wrong only
        self.errors: list[FieldError] = []

    def add(self, message: str) -> None:
        self.errors.append(FieldError(path_text(self.path), message))
        if len(self.errors) > MOST_ERRORS:
            raise EnoughError

    def step(self, name: str | int) -> None:
        self.path[-1] = name
        self.values_left -= 1
        if self.values_left < 0:
            raise EnoughError

    def along(self, items: list[Any], shape: "Shape") -> None:
        """Checks each of the items."""
        self.path.append(0)
        for index, item in enumerate(items):
            self.step(index)
            shape.check(item, self)
        self.path.pop()


def path_text(path: Sequence[str | int]) -> str:
    """Such as address.lines[2]."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step[: LONGEST_PATH + 1]}" for step in path)
    text = "".join(steps).removeprefix(".")
    return text if len(text) <= LONGEST_PATH else f"{text[: LONGEST_PATH - 1]}…"


class Shape(Protocol):
    def check(self, value: Any, walk: Walk) -> None: ...


class Anything:
    """What isn't looked at for its type."""

    def check(self, value: Any, walk: Walk) -> None:
        if isinstance(value, str):
            if "\0" in value:
                walk.add(NUL)
        elif value and isinstance(value, dict):
            self.check_object(value, walk)
        elif value and isinstance(value, list):
            walk.along(value, self)

    def check_object(self, value: dict[str, Any], walk: Walk) -> None:
        twice = repeated_names(value)
        walk.path.append("")
        for name, item in value.items():
            walk.step(name)
            if name in twice:
                walk.add(TWICE)
            elif "\0" in name:
                walk.add(NUL)
            else:
                self.check(item, walk)
        walk.path.pop()


ANYTHING = Anything()


def repeated_names(value: dict[str, Any]) -> set[str]:
    return value.repeated_names() if isinstance(value, Repeated) else set()


class Scalar:
    """A text, a number, one of some values; or one of several such types. msgspec itself judges them."""

    def __init__(self, kind: inspect.Type, python_type: Any, *, endless: bool = False) -> None:
        self.kind = kind
        self.endless = endless
        self.judge = judge_of(python_type)

    def check(self, value: Any, walk: Walk) -> None:
        if isinstance(value, str) and "\0" in value:
            walk.add(NUL)
        elif value in INFINITE and not self.endless:
            walk.add("out of range")
        elif not takes(self.judge, value, walk.strict):
            walk.add(f"expected {expected(self.kind, value, walk.strict)}")


class Items:
    """An array of any length, its items of one type."""

    def __init__(self, kind: inspect.Type, item: Shape, least: int | None, most: int | None) -> None:
        self.kind, self.item, self.least, self.most = kind, item, least, most

    def check(self, value: Any, walk: Walk) -> None:
        if not isinstance(value, list):
            walk.add("expected an array")
            return
        if not within(len(value), self.least, self.most):
            walk.add(f"expected {expected(self.kind, value)}")
        if value:
            walk.along(value, self.item)


class Positions:
    """An array whose items have a type each."""

    def __init__(self) -> None:
        self.items: list[Shape] = []
        self.least = 0
        self.most: int | None = None

    def check(self, value: Any, walk: Walk) -> None:
        if not isinstance(value, list):
            walk.add("expected an array")
            return
        if not within(len(value), self.least, self.most):
            walk.add(f"expected an array{amount(self.least, self.most, 'item')}")
        walk.path.append(0)
        for index, (item, shape) in enumerate(zip(value, self.items, strict=False)):
            walk.step(index)
            shape.check(item, walk)
        walk.path.pop()


class Names:
    """An object whose names are the client's."""

    def __init__(self, kind: inspect.Type, names: inspect.DictType, item: Shape) -> None:
        self.kind, self.item, self.key = kind, item, names.key_type
        self.least, self.most = names.min_length, names.max_length
        self.judge = judge_of(GenericAlias(dict, (python_type(names.key_type), Any)))

    def check(self, value: Any, walk: Walk) -> None:
        if not isinstance(value, dict):
            walk.add("expected an object")
            return
        if not within(len(value), self.least, self.most):
            walk.add(f"expected {expected(self.kind, value)}")
        twice = repeated_names(value)
        walk.path.append("")
        for name, item in value.items():
            walk.step(name)
            if message := self.wrong_name(name, twice):
                walk.add(message)
            else:
                self.item.check(item, walk)
        walk.path.pop()

    def wrong_name(self, name: str, twice: set[str]) -> str:
        if name in twice:
            return TWICE
        if "\0" in name:
            return NUL
        if takes(self.judge, {name: None}, strict=True):
            return ""
        return f"expected {expected(self.key, name, strict=False)} as its name"


class Record:
    """An object whose names are declared."""

    def __init__(self, forbid_unknown: bool) -> None:
        self.fields: dict[str, Shape] = {}
        self.required: list[str] = []
        self.forbid_unknown = forbid_unknown

    def check(self, value: Any, walk: Walk) -> None:
        if not isinstance(value, dict):
            walk.add("expected an object")
            return
        twice = repeated_names(value)
        walk.path.append("")
        for name, item in value.items():
            walk.step(name)
            shape = self.fields.get(name)
            if shape is None and self.forbid_unknown:
                walk.add(UNKNOWN)
            elif name in twice:
                walk.add(TWICE)
            elif shape is None and "\0" in name:
                walk.add(NUL)
            else:
                (shape or ANYTHING).check(item, walk)
        for name in self.required:
            if name not in value:
                walk.path[-1] = name
                walk.add(REQUIRED)
        walk.path.pop()


class Tagged:
    """One of several Structs, told apart by a tag: a field, or an array's first item."""

    def __init__(self, structs: Sequence[tuple[inspect.StructType, Shape]]) -> None:
        first, _ = structs[0]
        self.step = 0 if first.array_like else first.tag_field or ""
        self.shapes = {(type(struct.tag), struct.tag): shape for struct, shape in structs}
        self.tags = inspect.LiteralType(tuple(struct.tag for struct, _ in structs))

    def check(self, value: Any, walk: Walk) -> None:
        present = value if isinstance(value, dict) else dict(enumerate(value[:1]))
        tag = present.get(self.step)
        shape = self.shapes.get((type(tag), tag)) if isinstance(tag, str | int) else None
        if shape:
            shape.check(value, walk)
            return
        walk.path.append(self.step)
        walk.add(f"expected {expected(self.tags, tag)}" if self.step in present else REQUIRED)
        walk.path.pop()


class Choice:
    """One of several types: an object, an array and something else at most, as msgspec can't tell more apart."""

    def __init__(self, kind: inspect.Type, objects: Shape | None, arrays: Shape | None, scalar: Scalar | None) -> None:
        self.kind, self.objects, self.arrays, self.scalar = kind, objects, arrays, scalar

    def check(self, value: Any, walk: Walk) -> None:
        shape: Shape | None = self.scalar
        if isinstance(value, dict):
            shape = self.objects or shape
        elif isinstance(value, list):
            shape = self.arrays or shape
        if shape:
            shape.check(value, walk)
        else:
            walk.add(f"expected {expected(self.kind, value, walk.strict)}")


def within(number: int, least: int | None, most: int | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most)


def judge_of(python_type: Any) -> type[msgspec.Struct]:
    """msgspec knows a Struct's types by heart, and any other's anew each time."""
    return msgspec.defstruct("Judge", [("value", python_type)], array_like=True)


def takes(judge: type[msgspec.Struct], value: Any, strict: bool) -> bool:
    try:
        msgspec.convert((value,), judge, strict=strict, str_keys=True)
    except (msgspec.ValidationError, ValueError, ArithmeticError):  # such as a date with a lone surrogate in it
        return False
    return True
