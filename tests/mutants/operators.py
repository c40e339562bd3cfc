"""What is broken: cosmic-ray's operators that say something here, and four for what it leaves alone."""

import re
from collections.abc import Iterator
from typing import Any

from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Name

Position = tuple[int, int]
Span = tuple[Position, Position]

SWAPS = {
    "Comparison": "Eq_NotEq NotEq_Eq Lt_LtE LtE_Lt Lt_GtE Gt_GtE GtE_Gt Gt_LtE Is_IsNot IsNot_Is",
    "Binary": "Add_Sub Sub_Add Mul_Div Div_Mul",
    "Unary": "Delete_Not Delete_USub",
}
NAMES = [f"Replace{kind}Operator_{swap}" for kind, swaps in SWAPS.items() for swap in swaps.split()]
NAMES += ["AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"]
NAMES += ["ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"]
NAMES += ["ExceptionReplacer", "NumberReplacer"]
CONDITION = r"[\w.]+ (?:IS (?:NOT )?NULL|(?:=|<>|[<>]=?) (?::\w+|[\w.]+))"
CONDITIONS = (rf"(?<=WHERE ){CONDITION} AND ", rf" AND {CONDITION}")
# An assert is there for mypy's sake, as ruff's S101 sees to; without __slots__ all goes on.
KEPT = {"import_name", "import_from", "string", "strings", "pass_stmt", "global_stmt", "nonlocal_stmt", "assert_stmt"}


class Own(Operator):  # type: ignore[misc]  # cosmic-ray has no types
    """An operator that lists what it can break in a node."""

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()

    def places(self, node: Any) -> list[Any]:
        raise NotImplementedError

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        for _ in self.places(node):
            yield node.start_pos, node.end_pos


class RemoveStatement(Own):
    """A statement is left out; `pass` stands there."""

    def places(self, node: Any) -> list[Any]:
        if node.type != "simple_stmt" or node.children[0].type in KEPT:
            return []
        statement = node.children[0]
        declares = statement.type == "expr_stmt" and statement.children[1].type == "annassign"
        return [] if declares or statement.get_first_leaf().value in ("__slots__", "__all__", "...") else [node]

    def mutate(self, node: Any, _: int) -> Any:
        first = node.children[0]
        node.children[0] = Name("pass", first.start_pos, first.get_first_leaf().prefix)
        return node


class RemoveDecorator(Own):
    """A decorator is left out, but @overload, which only a type checker reads."""

    def places(self, node: Any) -> list[Any]:
        return [node] if node.type == "decorator" and node.children[1].get_code() != "overload" else []

    def mutate(self, *_: Any) -> None:
        pass  # no node, where there was one


class RemoveCondition(Own):
    """One of several conditions of a SQL statement is left out."""

    def places(self, node: Any) -> list[Any]:
        if node.type not in ("string", "fstring_string"):
            return []
        return [found for pattern in CONDITIONS for found in re.finditer(pattern, node.value)]

    def mutate(self, node: Any, index: int) -> Any:
        found = self.places(node)[index]
        node.value = node.value[: found.start()] + node.value[found.end() :]
        return node


class NoTimeOut(Own):
    """`timeout(5)` becomes `timeout(None)`, and `timeout=5` becomes `timeout=None`."""

    def places(self, node: Any) -> list[Any]:
        if node.type == "argument" and len(node.children) == 3:
            return [2] if str(node.children[0].get_code()).strip().endswith("timeout") else []
        previous = node.get_previous_sibling() if node.type == "trailer" else None
        called = previous is not None and str(previous.get_last_leaf().value) == "timeout"
        return [1] if called and len(node.children) == 3 else []

    def mutate(self, node: Any, index: int) -> Any:
        place = self.places(node)[index]
        replaced = node.children[place]
        node.children[place] = Name("None", replaced.start_pos, replaced.get_first_leaf().prefix)
        return node


OPERATORS: list[Any] = [get_operator(f"core/{name}")() for name in NAMES]
OPERATORS += [RemoveStatement(), RemoveDecorator(), RemoveCondition(), NoTimeOut()]
