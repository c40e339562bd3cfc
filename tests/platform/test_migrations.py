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
from tests.support.servers import MariaDB, free_port
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
        env=clean_environment({**TEST_SETTINGS, "PORT": free_port(), **env}),
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


NEWEST = max(all_migrations())
NEXT = f"{int(NEWEST) + 1:04}"
BESIDE = {  # files' names, what they say is before them, and what is said of the last
    "no number": ((), "more.py", NEWEST, f"expected a name with a number, such as {NEXT}_more.py"),
    "another revision": (
        (),
        "9002_more.py",
        NEWEST,
        'expected revision = "9002", not revision = "9001"',
    ),
    "another one before it": (
        (),
        "9001_more.py",
        "0001",
        f'expected down_revision = "{NEWEST}", not down_revision = "0001"',
    ),
    "one that is lost before it": (
        (),
        "9001_more.py",
        "9000",
        f'expected down_revision = "{NEWEST}", not down_revision = "9000"',
    ),
    "the number of another": (
        ("9001_less.py",),
        "9001_more.py",
        NEWEST,
        "expected a number of its own, such as 9002; 9001_less.py has this one",
    ),
}


@pytest.mark.parametrize("arguments", [(), ("migrate",)], ids=["serve", "migrate"])
@pytest.mark.parametrize("case", BESIDE)
def test_a_migration_that_is_not_in_the_chain_ends_the_start_with_70_and_its_name(
    project: Path, tmp_path: Path, case: str, arguments: tuple[str, ...]
) -> None:
    others, name, before, said = BESIDE[case]
    for file, down in (*((other, NEWEST) for other in others), (name, before)):
        (project / "migrations/versions" / file).write_text(MIGRATION.format(before=down, step=""))
    done = run_in(project, "app.py", *arguments, env={"DATA_DIR": str(tmp_path / "data")})
    assert (done.returncode, done.stderr) == (os.EX_SOFTWARE, ""), done.stdout + done.stderr
    assert critical(done.stdout)["message"] == f"migrations/versions/{name}: {said}"


def test_a_new_migration_gets_the_next_number_and_fails_until_it_is_written(
    project: Path, database: Environment
) -> None:
    made = run_in(project, "-m", "migrations.new", "add_notes", env={})
    assert (made.returncode, made.stdout.splitlines()[-1]) == (0, f"migrations/versions/{NEXT}_add_notes.py")
    refused = run_in(project, "app.py", "migrate", env=database)
    assert refused.returncode == os.EX_SOFTWARE
    assert critical(refused.stdout)["message"].startswith(f"migration {NEXT}_add_notes failed: ")
    assert "in: TO BE WRITTEN" in critical(refused.stdout)["message"]


NEW = {
    "add_notes": f"migrations/versions/{NEXT}_add_notes.py has this name already",
    "Add Notes": "usage: make migration NAME=add_notes",
    "../notes": "usage: make migration NAME=add_notes",
    "": "usage: make migration NAME=add_notes",
}


@pytest.mark.parametrize("name", NEW)
def test_a_name_that_is_taken_or_none_makes_no_migration(project: Path, name: str) -> None:
    versions = project / "migrations/versions"
    (versions / f"{NEXT}_add_notes.py").write_text(MIGRATION.replace("9001", NEXT).format(before=NEWEST, step=""))
    before = list(versions.iterdir())
    done = run_in(project, "-m", "migrations.new", name, env={})
    assert (done.returncode, done.stdout) == (os.EX_USAGE, "")
    assert done.stderr.startswith(NEW[name])
    assert list(versions.iterdir()) == before


DEFINED = """
    execute("CREATE TABLE IF NOT EXISTS more (id {ID} NOT NULL PRIMARY KEY, text TEXT NOT NULL) {TABLE}")
    add_column("more", "pinned_at", "BIGINT NULL")
    add_index("more", "more_pinned_at", "pinned_at")
"""


def test_one_definition_serves_both_databases_and_may_be_run_again_after_a_crash(
    project: Path, database: Environment
) -> None:
    head = MIGRATION.format(before=NEWEST, step="").partition("    op.")[0]
    head = head.replace("from alembic import op", "from infra.sql.definitions import add_column, add_index, execute")
    for steps in (DEFINED + "    raise ValueError", DEFINED):
        (project / "migrations/versions/9001_more.py").write_text(head + steps)
        done = run_in(project, "app.py", "migrate", env=database)
    assert done.returncode == 0, done.stdout
    assert run_in(project, "app.py", "migrate", env=database).returncode == 0


def test_the_start_names_the_migrations_that_were_forgotten(mariadb: MariaDB, mysql_env: Environment) -> None:
    first, *forgotten = all_migrations()
    mariadb.sql("UPDATE alembic_version SET version_num = %s", first, database=mysql_env["MYSQL_DATABASE"])
    done = run_app(env={**TEST_SETTINGS, "PORT": free_port(), **mysql_env})
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


@pytest.mark.parametrize("arguments", ["downgrade -1", "downgrade base", "upgrade head --sql"])
def test_alembic_from_the_shell_says_that_there_is_no_way_back_and_no_script(tmp_path: Path, arguments: str) -> None:
    done = run_in(ROOT, "-m", "alembic", *arguments.split(), env={"DATA_DIR": str(tmp_path)})
    assert done.returncode == os.EX_USAGE
    assert done.stderr.startswith("migrations go forward only")
    assert "Traceback" not in done.stderr


def test_alembic_from_the_shell_says_which_variable_is_wrong(tmp_path: Path) -> None:
    done = run_in(ROOT, "-m", "alembic", "current", env={"DATA_DIR": str(tmp_path), "SYS_ENV": "moon"})
    assert done.returncode == os.EX_CONFIG
    assert done.stderr.startswith("SYS_ENV is 'moon'")
    assert "Traceback" not in done.stderr
