"""What a field takes, in the API's words: its own description, or what its type is in JSON."""

import datetime as dt
import decimal
import functools
import json
import operator
import uuid
from typing import Annotated, Any, Literal

from msgspec import Meta, inspect

NOUNS: dict[type[inspect.Type], str] = {
    inspect.NoneType: "null",
    inspect.BoolType: "true or false",
    inspect.IntType: "an integer",
    inspect.FloatType: "a number",
    inspect.DecimalType: "a decimal number",
    inspect.StrType: "a string",
    inspect.BytesType: "base64",
    inspect.ByteArrayType: "base64",
    inspect.MemoryViewType: "base64",
    inspect.UUIDType: "a UUID",
    inspect.DateTimeType: "a date-time in RFC 3339",
    inspect.DateType: "a date in RFC 3339",
    inspect.TimeType: "a time in RFC 3339",
    inspect.TimeDeltaType: "a duration in ISO 8601",
    inspect.ListType: "an array",
    inspect.SetType: "an array",
    inspect.FrozenSetType: "an array",
    inspect.VarTupleType: "an array",
    inspect.TupleType: "an array",
    inspect.NamedTupleType: "an array",
    inspect.DictType: "an object",
    inspect.TypedDictType: "an object",
    inspect.DataclassType: "an object",
}

UNITS: dict[type[inspect.Type], str] = {
    inspect.StrType: "character",
    inspect.BytesType: "byte",
    inspect.ByteArrayType: "byte",
    inspect.MemoryViewType: "byte",
    inspect.DictType: "name",
    inspect.ListType: "item",
    inspect.SetType: "item",
    inspect.FrozenSetType: "item",
    inspect.VarTupleType: "item",
}
PYTHON_TYPES: dict[type[inspect.Type], Any] = {
    inspect.NoneType: None,
    inspect.BoolType: bool,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.DecimalType: decimal.Decimal,
    inspect.StrType: str,
    inspect.BytesType: bytes,
    inspect.ByteArrayType: bytearray,
    inspect.MemoryViewType: memoryview,
    inspect.UUIDType: uuid.UUID,
    inspect.DateTimeType: dt.datetime,
    inspect.DateType: dt.date,
    inspect.TimeType: dt.time,
    inspect.TimeDeltaType: dt.timedelta,
}


def expected(kind: inspect.Type, value: Any, strict: bool = True) -> str:
    """What `kind` takes, said to one who sent `value`; not strict: a text that may stand for a number."""
    kind, description = described(kind)
    if strict and not same_json_type(kind, value):
        return noun(kind)  # a description speaks of the text in the string, and would mislead here
    if description:
        return description
    if isinstance(kind, inspect.UnionType):
        return alternatives([expected(member, value, strict) for member in kind.types])
    return noun(kind) + bounds(kind)


def described(kind: inspect.Type) -> tuple[inspect.Type, str]:
    """The type under its Meta, and the Meta's description."""
    if isinstance(kind, inspect.Metadata):
        return kind.type, (kind.extra_json_schema or {}).get("description", "")
    return kind, ""


def same_json_type(kind: inspect.Type, value: Any) -> bool:
    """False when `value` is no string where one is due, or no number; other types have one word for all."""
    match kind:
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.IntType() | inspect.FloatType():
            return type(value) in (int, float)
    return True


def noun(kind: inspect.Type) -> str:
    match kind:
        case inspect.EnumType():
            return one_of([member.value for member in kind.cls])
        case inspect.LiteralType():
            return one_of(list(kind.values))
        case inspect.StructType():
            return "an array" if kind.array_like else "an object"
    return NOUNS.get(type(kind), "another value")


def one_of(values: list[Any]) -> str:
    names = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def alternatives(words: list[str]) -> str:
    *others, last = dict.fromkeys(words)
    return f"{', '.join(others)} or {last}" if others else last


def bounds(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return number_bounds(kind)
    unit = UNITS.get(type(kind))
    if not unit:
        return ""
    length = amount(getattr(kind, "min_length", None), getattr(kind, "max_length", None), unit)
    pattern = getattr(kind, "pattern", None)
    return f"{length} that matches {pattern}" if pattern else length


def number_bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        words = [f"from {kind.ge} to {kind.le}"]
    else:
        named = {"of at least": kind.ge, "greater than": kind.gt, "of at most": kind.le, "less than": kind.lt}
        words = [f"{name} {bound}" for name, bound in named.items() if bound is not None]
    if kind.multiple_of is not None:
        words.append(f"that is a multiple of {kind.multiple_of}")
    return "".join(f" {word}" for word in words)


def amount(least: int | None, most: int | None, unit: str) -> str:
    """Such as " of 3 to 64 characters", or nothing."""
    if least is None and most is None:
        return ""
    units = unit if (least if most is None else most) == 1 else f"{unit}s"
    if least is None or most is None:
        return f" of at most {most} {units}" if least is None else f" of at least {least} {units}"
    return f" of {least} {units}" if least == most else f" of {least} to {most} {units}"


def python_type(kind: inspect.Type) -> Any:
    """What inspect.type_info made `kind` of."""
    match kind:
        case inspect.Metadata():
            return python_type(kind.type)
        case inspect.UnionType():
            return functools.reduce(operator.or_, map(python_type, kind.types))
        case inspect.EnumType():
            return kind.cls
        case inspect.LiteralType():
            return Literal[kind.values]
    scalar = PYTHON_TYPES.get(type(kind), Any)
    limits = {name: limit for name in kind.__struct_fields__ if (limit := getattr(kind, name)) is not None}
    return Annotated[scalar, Meta(**limits)] if limits else scalar
