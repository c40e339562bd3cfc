"""Migrations: which there are, a step that was forgotten, and one that fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from infra.sql.revisions import all_migrations
from tests.conftest import TEST_SETTINGS, Environment, StartService
from tests.support.servers import MariaDB
from tests.support.service import ROOT, Record, clean_environment, parse, run_app

MIGRATION = '''"""One more."""

from alembic import op

revision = "9001"
down_revision = "{before}"


def upgrade() -> None:
    op.execute("CREATE TABLE more (x INTEGER)")
    {step}
'''
FAILING = {
    "a statement": (
        'op.execute("ALTER TABLE mroe\\n ADD COLUMN y INTEGER")',
        "in: ALTER TABLE mroe ADD COLUMN y INTEGER",
    ),
    "python": ('raise NotImplementedError("to be written")', "NotImplementedError: to be written"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What is needed to migrate, in a folder of its own."""
    for name in ("handlers", "infra", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("app.py", "settings.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture(params=["sqlite", "mysql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Environment:
    """An empty one."""
    if request.param == "sqlite":
        return {"DATA_DIR": str(tmp_path / "data")}
    mariadb: MariaDB = request.getfixturevalue("mariadb")
    return mariadb.environment(mariadb.create_database())


def run_in(project: Path, *arguments: str, env: Environment) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=clean_environment({**TEST_SETTINGS, **env}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def critical(output: str) -> Record:
    [line] = [line for line in map(parse, output.splitlines()) if line["severity"] == "CRITICAL"]
    return line


def test_each_migration_has_the_revision_that_its_file_s_name_begins_with_and_follows_the_one_before() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    chain = list(ScriptDirectory.from_config(config).walk_revisions())
    assert [script.revision for script in reversed(chain)] == list(all_migrations())
    assert [Path(script.path).stem for script in reversed(chain)] == list(all_migrations().values())


def test_migrating_tells_each_step_in_a_log_line(database: Environment) -> None:
    done = run_app("migrate", env={**TEST_SETTINGS, **database})
    assert (done.returncode, done.stderr) == (0, "")
    steps = [line["message"].partition(":")[0] for line in map(parse, done.stdout.splitlines())]
    total = len(all_migrations())
    told = [f"migration {revision}, {number} of {total}" for number, revision in enumerate(all_migrations(), start=1)]
    assert [step for step in steps if step.startswith("migration ")] == told


@pytest.mark.parametrize("kind", FAILING)
def test_a_migration_that_fails_ends_with_70_its_name_and_its_statement(
    project: Path, database: Environment, kind: str
) -> None:
    step, said = FAILING[kind]
    migration = MIGRATION.format(before=max(all_migrations()), step=step)
    (project / "migrations/versions/9001_more.py").write_text(migration)
    done = run_in(project, "app.py", "migrate", env=database)
    assert (done.returncode, done.stderr) == (os.EX_SOFTWARE, ""), done.stdout + done.stderr
    message = critical(done.stdout)["message"]
    assert message.startswith("migration 9001_more failed: ")
    assert said in message


def test_two_migrations_that_follow_the_same_one_end_with_70(project: Path, database: Environment) -> None:
    migration = MIGRATION.format(before=max(all_migrations()), step="")
    for revision in ("9001", "9002"):
        (project / f"migrations/versions/{revision}_more.py").write_text(migration.replace("9001", revision))
    done = run_in(project, "app.py", "migrate", env=database)
    assert done.returncode == os.EX_SOFTWARE
    assert "head" in critical(done.stdout)["message"]


def test_the_start_names_the_migrations_that_were_forgotten(mariadb: MariaDB, mysql_env: Environment) -> None:
    first, *forgotten = all_migrations()
    mariadb.sql("UPDATE alembic_version SET version_num = %s", first, database=mysql_env["MYSQL_DATABASE"])
    done = run_app(env={**TEST_SETTINGS, **mysql_env})
    message = critical(done.stdout)["message"]
    assert done.returncode == os.EX_CONFIG
    assert all(all_migrations()[revision] in message for revision in forgotten)
    assert all_migrations()[first] not in message


def test_a_new_migration_is_what_the_code_needs(
    project: Path, start_service: StartService, mysql_env: dict[str, Any]
) -> None:
    migration = MIGRATION.format(before=max(all_migrations()), step="")
    (project / "migrations/versions/9001_more.py").write_text(migration)
    done = run_in(project, "app.py", env=mysql_env)
    assert done.returncode == os.EX_CONFIG
    assert "9001_more" in critical(done.stdout)["message"]
    assert run_in(project, "app.py", "migrate", env=mysql_env).returncode == 0
    start_service(**mysql_env).sign_up()  # yesterday's code on today's schema


def test_alembic_works_from_the_shell_with_the_service_s_variables(database: Environment) -> None:
    def alembic(*arguments: str) -> str:
        done = run_in(ROOT, "-m", "alembic", *arguments, env=database)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert alembic("current") == ""
    alembic("upgrade", "head")
    assert alembic("current").startswith(f"{max(all_migrations())} (head)")


def test_alembic_from_the_shell_says_which_variable_is_wrong(tmp_path: Path) -> None:
    done = run_in(ROOT, "-m", "alembic", "current", env={"DATA_DIR": str(tmp_path), "SYS_ENV": "moon"})
    assert done.returncode == os.EX_CONFIG
    assert done.stderr.startswith("SYS_ENV is 'moon'")
    assert "Traceback" not in done.stderr
