"""Another package is bent in infra/fast/ only: its private names, its classes, how Python imports it."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import ROOT

FOLDERS = ("handlers", "infra", "migrations/versions")
FILES = sorted(
    [ROOT / "app.py", ROOT / "settings.py", *(file for name in FOLDERS for file in (ROOT / name).rglob("*.py"))]
)
PUBLIC = {"_make", "_asdict", "_replace", "_fields", "_exit"}  # of a NamedTuple, of os: private in name only
MADE_TO_BE_SET = re.compile(
    r"(sys|threading)\.\w+hook|warnings\.formatwarning|logging\.(raise|log)[A-Z]\w+"
)  # as Python documents
HOOKS = {"meta_path", "path_hooks"}  # of sys

BAD = {
    "a private attribute": "connection._reader",
    "a private attribute of a module": "import sys\nsys._getframe()",
    "a private attribute by its name": "getattr(connection, '_reader')",
    "a private attribute of a base class": "class A(B):\n    def f(self): return self._reader",
    "a private module": "from uvicorn import _types",
    "a private name": "from asyncio.base_events import _run_until_complete_cb",
    "a class that is swapped": "connection.__class__ = Other",
    "an import hook": "import sys\nsys.meta_path.insert(0, finder)",
    "an import hook by its name": "from sys import meta_path",
    "another module's function replaced": "import re\nre.compile = late",
    "another class's method replaced": "from uvicorn import Server\nServer.run = ours",
    "a replacement by its name": "import re\nsetattr(re, 'compile', late)",
}
GOOD = {
    "its own private attribute": "class A:\n    def f(self, other):\n        self._x = other._x",
    "its own private method": "class A:\n    def _f(self): ...\n    def g(self): return self._f()",
    "its own private class attribute": "class A:\n    _x: int = 1\nA._x",
    "a named tuple": "row = Row._make(values)\nrow._replace(x=1)",
    "a special name": "type(self).__name__, self.__class__",
    "an attribute of an object": "import re\nsettings.level = 1\nself.pattern = re.compile('x')",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in PUBLIC


def own_names(tree: ast.Module) -> set[str]:
    """The private names that the file defines: functions, methods, variables, attributes of self."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


def imported_names(tree: ast.Module) -> set[str]:
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {(alias.asname or alias.name).partition(".")[0] for node in imports for alias in node.names}


def findings(source: str) -> Iterator[str]:
    """The names by which the source bends what isn't its own."""
    tree = ast.parse(source)
    own, imported = own_names(tree), imported_names(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr="__class__", ctx=ast.Store() | ast.Del()):
                yield "__class__"
            case ast.Attribute(attr=name) if (is_private(name) and name not in own) or name in HOOKS:
                yield name
            case ast.Attribute(value=ast.Name(id=module), attr=name, ctx=ast.Store() | ast.Del()) if (
                module in imported and not MADE_TO_BE_SET.fullmatch(f"{module}.{name}")
            ):
                yield f"{module}.{name}"
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]) if is_private(name):
                yield name
            case ast.Call(func=ast.Name(id="setattr"), args=[ast.Name(id=module), *_]) if module in imported:
                yield f"setattr({module})"
            case ast.ImportFrom() | ast.Import():
                parts = f"{getattr(node, 'module', None) or ''}.{'.'.join(alias.name for alias in node.names)}".split(
                    "."
                )
                yield from (part for part in parts if is_private(part) or part in HOOKS)


def overridden(file: Path) -> Iterator[str]:
    """Private methods that the file's classes take from another package's class and change."""
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    written = own_names(ast.parse(file.read_text(encoding="utf-8")))
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ == module.__name__:
            foreign = [base for base in kind.__mro__[1:] if not base.__module__.startswith(("infra", "handlers"))]
            names = {name for name in vars(kind) if is_private(name) and name in written}
            yield from (name for name in names if any(name in vars(base) for base in foreign))


def place(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("source", BAD.values(), ids=BAD.keys())
def test_a_file_that_bends_what_is_not_its_own_is_found(source: str) -> None:
    assert list(findings(source))


@pytest.mark.parametrize("source", GOOD.values(), ids=GOOD.keys())
def test_a_file_that_uses_what_is_its_own_is_not_found(source: str) -> None:
    assert list(findings(source)) == []


def test_a_private_method_of_another_package_that_is_overridden_is_found() -> None:
    assert "_read_packet" in set(overridden(ROOT / "infra/fast/mysql_packets.py"))


def test_other_packages_are_bent_in_infra_fast_only() -> None:
    outside = [file for file in FILES if not place(file).startswith("infra/fast/")]
    assert len(outside) > 60
    found = {(place(file), name) for file in outside for name in findings(file.read_text(encoding="utf-8"))}
    found |= {(place(file), name) for file in outside if "migrations" not in place(file) for name in overridden(file)}
    assert found == set()
