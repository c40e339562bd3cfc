"""Stand-ins for what another package imports or makes and nothing here ever calls: nearly half of the start."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

COMPILE: Any = re.compile


class AnyName(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


class Anything(metaclass=AnyName):
    """In place of a class, to derive from or to make, of a decorator, which then does nothing, or of a module."""

    def __new__(cls, *args: Any, **_: Any) -> Any:
        return args[0] if args else super().__new__(cls)


class StandIn(ModuleType):
    __version__ = "0"

    def __getattr__(self, name: str) -> Any:
        return getattr(Anything, name)


class StandInFinder(MetaPathFinder, Loader):
    """Finds each package by its name, with whatever is imported from it."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in self.packages else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def stand_ins(*packages: str) -> Iterator[None]:
    """The block's imports get stand-ins for those `packages` that are not loaded; afterwards they can be imported."""
    missing = [name for name in packages if name not in sys.modules]
    finder = StandInFinder(missing)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, StandIn)]:
            del sys.modules[name]


class LatePattern:
    """A regular expression that is compiled when it is first used."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by what makes the class that it is an attribute of
            raise AttributeError(name)
        return getattr(COMPILE(*self.arguments), name)


@contextmanager
def late_patterns(module: str) -> Iterator[None]:
    """Where the block's imports load the `module`, it gets what it compiles as LatePatterns."""

    def compile_pattern(*arguments: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]  # noqa: SLF001 - nothing else tells who asks
        return (LatePattern if caller == module else COMPILE)(*arguments)

    re.compile = compile_pattern  # type: ignore[assignment]
    try:
        yield
    finally:
        re.compile = COMPILE
