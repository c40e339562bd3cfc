"""Every wrong field of a JSON value, in the API's words: msgspec stops at the first one, and speaks Python."""

import functools
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import inspect

from infra.http.expectations import PYTHON_TYPES, described, python_type
from infra.http.problems import FieldError
from infra.http.shapes import (
    ANYTHING,
    MOST_VALUES,
    Choice,
    EnoughError,
    Items,
    Names,
    Positions,
    Record,
    Scalar,
    Shape,
    Tagged,
    Walk,
)

DEEP = "nested too deeply"


def wrong_fields(value: Any, struct: type[msgspec.Struct], strict: bool = True) -> list[FieldError]:
    """What `struct` doesn't take, in the order of the document: at most MOST_ERRORS, and one more if there are more.

    `value` is as json.loads gives it; where a name may be given twice, its objects are Repeated.
    """
    return walked(expectation(struct), value, Walk(strict, MOST_VALUES))


def forbidden_fields(value: Any) -> list[FieldError]:
    """What no body may have, whatever its type: a name given twice, a NUL."""
    return walked(ANYTHING, value, Walk(strict=True, most_values=math.inf))


def walked(shape: Shape, value: Any, walk: Walk) -> list[FieldError]:
    try:
        with suppress(EnoughError):
            shape.check(value, walk)
    except RecursionError:
        return [FieldError("", DEEP)]
    return walk.errors


@functools.cache
def expectation(struct: type[msgspec.Struct]) -> Shape:
    return shape_of(inspect.type_info(struct), {})


def shape_of(kind: inspect.Type, made: dict[int, Shape]) -> Shape:
    """`made` are the shapes by the ids of their types, for a type may be part of itself."""
    shape: Shape
    inner, _ = described(kind)
    if id(inner) in made:
        return made[id(inner)]
    match inner:
        case inspect.UnionType():
            shape = choice(kind, inner, made)
        case inspect.TupleType() | inspect.NamedTupleType() | inspect.StructType(array_like=True):
            shape = positions(inner, made)
        case inspect.StructType() | inspect.TypedDictType() | inspect.DataclassType():
            shape = record(inner, made)
        case inspect.CollectionType():
            shape = Items(kind, shape_of(inner.item_type, made), inner.min_length, inner.max_length)
        case inspect.DictType():
            shape = Names(kind, inner, shape_of(inner.value_type, made))
        case _ if type(inner) in PYTHON_TYPES or isinstance(inner, inspect.EnumType | inspect.LiteralType):
            shape = Scalar(kind, python_type(inner), endless=isinstance(inner, inspect.DecimalType))
        case _:
            shape = ANYTHING
    return shape


def record(kind: inspect.StructType | inspect.TypedDictType | inspect.DataclassType, made: dict[int, Shape]) -> Record:
    shape = made[id(kind)] = Record(isinstance(kind, inspect.StructType) and kind.forbid_unknown_fields)
    if isinstance(kind, inspect.StructType) and kind.tag_field is not None:
        shape.fields[kind.tag_field] = tag_of(kind)
    for field in kind.fields:
        shape.fields[field.encode_name] = shape_of(field.type, made)
    shape.required = [field.encode_name for field in kind.fields if field.required]
    return shape


def positions(
    kind: inspect.TupleType | inspect.NamedTupleType | inspect.StructType, made: dict[int, Shape]
) -> Positions:
    shape = made[id(kind)] = Positions()
    if isinstance(kind, inspect.TupleType):
        shape.items = [shape_of(item, made) for item in kind.item_types]
        shape.least = shape.most = len(shape.items)
        return shape
    tags = [tag_of(kind)] if isinstance(kind, inspect.StructType) and kind.tag is not None else []
    shape.items = [*tags, *(shape_of(field.type, made) for field in kind.fields)]
    shape.least = len(tags) + sum(field.required for field in kind.fields)
    if isinstance(kind, inspect.NamedTupleType) or kind.forbid_unknown_fields:
        shape.most = len(shape.items)
    return shape


def tag_of(kind: inspect.StructType) -> Scalar:
    literal = inspect.LiteralType((kind.tag,))
    return Scalar(literal, python_type(literal))


def choice(kind: inspect.Type, union: inspect.UnionType, made: dict[int, Shape]) -> Shape:
    scalars, objects, arrays = [], [], []
    for member, _ in map(described, union.types):
        shape = shape_of(member, made)
        if shape is ANYTHING:
            return ANYTHING
        if isinstance(shape, Scalar):
            scalars.append(member)
        elif isinstance(shape, Record | Names):
            objects.append((member, shape))
        else:
            arrays.append((member, shape))
    scalar = Scalar(kind, python_type(inspect.UnionType(tuple(scalars)))) if scalars else None
    return Choice(kind, one_of(objects), one_of(arrays), scalar)


def one_of(shapes: Sequence[tuple[Any, Shape]]) -> Shape | None:
    """Of several, all are Structs with a tag."""
    return Tagged(shapes) if len(shapes) > 1 else shapes[0][1] if shapes else None
