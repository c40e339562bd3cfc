"""What the start doesn't pay for: packages that are not needed, and collecting garbage that isn't there."""

from pathlib import Path

from tests.conftest import TEST_SETTINGS
from tests.support.service import run

NOT_NEEDED = {"alembic", "coredis", "beartype", "aiomysql", "sqlalchemy"}
OPEN = """
import asyncio, gc, app, settings
async def main():
    service = app.create_app(settings.load())
    before = gc.isenabled()
    async with service.router.lifespan_context(service):
        print(before, gc.isenabled(), gc.get_freeze_count() > 10_000)
asyncio.run(main())
"""


def imported(module: str) -> set[str]:
    done = run("-c", f"import sys, {module}; print(*sys.modules)", env={})
    return set(done.stdout.split())


def test_a_service_without_servers_imports_neither_their_clients_nor_the_migrations() -> None:
    loaded = imported("app")
    assert {"starlette", "uvicorn", "databases"} <= loaded
    assert loaded & NOT_NEEDED == set()


def test_the_redis_client_comes_without_the_type_checker_that_it_never_calls() -> None:
    loaded = imported("infra.redis.client")
    assert "coredis" in loaded
    assert "beartype" not in loaded


def test_what_was_left_out_of_the_start_can_be_imported_afterwards() -> None:
    code = """
import sys
from infra.sql import database
assert not [name for name in sys.modules if name.startswith("sqlalchemy")]
import sqlalchemy
print(sqlalchemy.create_engine("sqlite://").connect().exec_driver_sql("SELECT 41 + 1").scalar())
"""
    assert run("-c", code, env={}).stdout == "42\n"


def test_patterns_that_were_left_uncompiled_at_the_start_work_when_they_are_used() -> None:
    code = """
import re, settings
from marshmallow import ValidationError, validate
email = validate.Email()
assert type(email.DOMAIN_REGEX).__name__ == "LatePattern" and isinstance(re.compile("a"), re.Pattern)
print(email("ada@example.com"))
try:
    email("ada@example..com")
except ValidationError as error:
    print(error)
"""
    assert run("-c", code, env={}).stdout == "ada@example.com\nNot a valid email address.\n"


def test_garbage_is_collected_from_the_end_of_the_start_on(tmp_path: Path) -> None:
    done = run("-c", OPEN, env={**TEST_SETTINGS, "DATA_DIR": tmp_path})
    assert "False True True" in done.stdout, done.stdout + done.stderr
