"""What a package imports for nothing is left out; whoever uses it afterwards hears so."""

from pathlib import Path

import pytest

from infra.fast.lean_imports import LeftOut, without
from tests.support.service import run

GUEST = """
import heavy.door as door
from heavy import Base, decorate
from heavy.types import Text

if heavy_version := __import__("heavy").__version__:
    pass


@decorate
def plain(x: Text | int) -> Text[int]:
    return x


@decorate(strict=True)
def configured():
    return "configured"


class Derived(Base):
    def method(self) -> "str | Text":
        return "derived"


def check(value):
    return door.is_right(value, str)
"""

AFTERWARDS = {
    "a function that is called": ("guest.check(1)", "heavy.door.is_right"),
    "a class that is made": ("guest.Base()", "heavy.Base"),
    "an attribute of a class": ("guest.Base.make", "heavy.Base"),
    "an attribute of a module": ("guest.door.other", "heavy.door"),
    "an instance check": ("isinstance(1, guest.Text)", "heavy.types.Text"),
    "a subclass check": ("issubclass(int, guest.Text)", "heavy.types.Text"),
    "a condition": ("bool(guest.door.is_right)", "heavy.door"),
    "a decorator": ("guest.decorate(print)", "heavy.decorate"),
    "a base class": ("types.new_class('X', (guest.Base,))", "heavy.Base"),
    "a type with parameters": ("guest.Text[int]", "heavy.types.Text"),
    "a union of types": ("int | guest.Text", "heavy.types.Text"),
    "an object of a class that derives from one": ("guest.Derived()", "Derived"),
}
PROLOGUE = """
import sys, types
from infra.fast.lean_imports import LeftOut, without
with without("heavy"):
    import guest
"""


def imported(module: str) -> set[str]:
    done = run("-c", f"import sys, {module}; print(*sys.modules)", env={"FAST": "on"})
    return set(done.stdout.split())


def run_guest(folder: Path, code: str) -> str:
    (folder / "guest.py").write_text(GUEST)
    done = run("-c", PROLOGUE + code, env={"PYTHONPATH": str(folder)})
    return done.stdout + done.stderr


def test_decorators_bases_and_annotations_work_while_the_import_runs(tmp_path: Path) -> None:
    code = "print(guest.plain(3), guest.configured(), guest.Derived.method(None), 'heavy' in sys.modules)"
    assert run_guest(tmp_path, code) == "3 configured derived False\n"


@pytest.mark.parametrize("use", AFTERWARDS)
def test_what_was_left_out_and_is_used_afterwards_raises_and_says_what(tmp_path: Path, use: str) -> None:
    expression, name = AFTERWARDS[use]
    code = f"try:\n    print('answered', {expression})\nexcept LeftOut as error:\n    print('left out:', error)"
    said = run_guest(tmp_path, code)
    assert said.startswith("left out: ")
    assert name in said


def test_a_part_of_a_package_is_left_out_and_the_rest_is_not(tmp_path: Path) -> None:
    (tmp_path / "heavy").mkdir()
    (tmp_path / "heavy/__init__.py").write_text("from heavy import part, party\n")
    (tmp_path / "heavy/part.py").write_text("raise ImportError('imported')\n")
    (tmp_path / "heavy/party.py").write_text("found = True\n")
    code = """
from infra.fast.lean_imports import LeftOut, without
with without("heavy.part"):
    import heavy
print(heavy.party.found)
try:
    heavy.part.anything()
except LeftOut as error:
    print(error)
"""
    said = run("-c", code, env={"PYTHONPATH": str(tmp_path)}).stdout.splitlines()
    assert said[0] == "True"
    assert "heavy.part.anything" in said[1]


def test_a_package_that_is_loaded_already_is_not_left_out() -> None:
    with without("infra"):
        import infra.fast.lean_imports as again  # noqa: PLC0415
    assert again.LeftOut is LeftOut


def test_coredis_without_its_type_checker_answers_no_question_wrongly() -> None:
    code = """
import infra.redis.client, coredis.typing
try:
    print(coredis.typing.is_bearable(1, str))
except Exception as error:
    print(type(error).__name__)
"""
    assert run("-c", code, env={"FAST": "on"}).stdout == f"{LeftOut.__name__}\n"


def test_text_given_to_databases_which_sqlalchemy_would_parse_is_refused() -> None:
    code = """
import infra.sql.backend, databases.core
try:
    databases.core.Connection._build_query("SELECT 1")
except Exception as error:
    print(type(error).__name__)
"""
    assert run("-c", code, env={"FAST": "on"}).stdout == f"{LeftOut.__name__}\n"


def test_the_service_comes_without_sqlalchemy() -> None:
    loaded = imported("app")
    assert "databases" in loaded
    assert "sqlalchemy" not in loaded


def test_the_redis_client_comes_without_the_type_checker_that_it_never_calls() -> None:
    loaded = imported("infra.redis.client")
    assert "coredis" in loaded
    assert "beartype" not in loaded


def test_the_settings_come_without_validators_that_they_never_call() -> None:
    loaded = imported("settings")
    assert "marshmallow.fields" in loaded
    assert "marshmallow.validate" not in loaded


def test_what_was_left_out_of_the_start_can_be_imported_afterwards() -> None:
    code = """
from infra.sql import database
import sqlalchemy
print(sqlalchemy.create_engine("sqlite://").connect().exec_driver_sql("SELECT 41 + 1").scalar())
"""
    assert run("-c", code, env={"FAST": "on"}).stdout == "42\n"
