"""What the start doesn't pay for: packages that are not needed, and collecting garbage that isn't there."""

from pathlib import Path

from tests.conftest import TEST_SETTINGS
from tests.support.service import run

NOT_NEEDED = {"alembic", "coredis", "beartype", "aiomysql"}
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


def test_the_client_of_sqlite_is_imported_when_its_file_is_opened() -> None:
    assert "aiosqlite" not in imported("app, settings, infra.sql.mysql_driver")


def test_garbage_is_collected_from_the_end_of_the_start_on(tmp_path: Path) -> None:
    done = run("-c", OPEN, env={**TEST_SETTINGS, "DATA_DIR": tmp_path})
    assert "False True True" in done.stdout, done.stdout + done.stderr
