"""Imports of a package without what it imports for nothing: nearly half of the start."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class LeftOut(RuntimeError):  # noqa: N818 - says it
    """Something was used that `without()` has left out of an import."""


class Unbound:
    """The base of classes that derive from a name that was left out."""

    def __init__(self, *_: object, **__: object) -> None:
        raise LeftOut(f"{type(self).__qualname__} derives from what without() left out of an import")


class Name:
    """In place of what a package left out has: while that import runs, a decorator that does nothing, a base, a type.

    Used afterwards it raises LeftOut.
    """

    def __init__(self, name: str, finder: "StandInFinder") -> None:
        self.left_out, self.finder = name, finder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = Name(f"{self.left_out}.{name}", self.finder)
        found.importing()
        return found

    def __call__(self, *args: Any, **_: object) -> Any:
        self.importing()
        return args[0] if args and callable(args[0]) else self

    def __getitem__(self, _: object) -> Any:
        self.importing()
        return self

    def __or__(self, _: object) -> Any:  # of two types
        self.importing()
        return self

    __ror__ = __or__

    def __mro_entries__(self, _: object) -> tuple[type, ...]:
        self.importing()
        return (Unbound,)

    def __bool__(self) -> bool:
        raise self.refusal()

    def __instancecheck__(self, _: object) -> bool:
        raise self.refusal()

    __subclasscheck__ = __instancecheck__

    def importing(self) -> None:
        if self.finder not in sys.meta_path:
            raise self.refusal()

    def refusal(self) -> LeftOut:
        return LeftOut(f"{self.left_out} is used, which without() left out of an import: FAST=off imports everything")


class StandIn(ModuleType):
    """In place of a module that was left out."""

    __version__ = "0"

    def __init__(self, name: str, finder: "StandInFinder") -> None:
        super().__init__(name)
        self.finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(Name(self.__name__, self.finder), name)


class StandInFinder(MetaPathFinder, Loader):
    """Finds each package, or part of one, by its name, with whatever is imported from it."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        left_out = any(f"{name}.".startswith(f"{package}.") for package in self.packages)
        return ModuleSpec(name, self, is_package=True) if left_out else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """The block's imports get stand-ins for those `packages` that are not loaded; afterwards they can be imported.

    What is used of them afterwards raises LeftOut, and so does making an object of a class that derives from them.
    """
    finder = StandInFinder([name for name in packages if name not in sys.modules])
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, StandIn)]:
            del sys.modules[name]
