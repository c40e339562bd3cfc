"""`make mutants`: what it breaks, which tests it runs for that, and that what it leaves out is still there."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from tests.mutants.__main__ import equivalents, sample
from tests.mutants.operators import OPERATORS, RemoveDecorator
from tests.mutants.rooms import LEFT_OUT, ROOMS, ROOT, modules

SOURCE = '''
async def end(database, values):
    """A docstring."""
    async with asyncio.timeout(5):
        await database.execute("DELETE FROM sessions WHERE account_id = :a AND id = :b AND spent_at IS NULL", values)
    return connect(values, connect_timeout=5) if len(values) > 1 else False
'''


def mutants(source: str) -> set[str]:
    """The lines that any operator makes of any of these."""
    made: set[str] = set()
    for operator in OPERATORS:
        places = sum(len(list(operator.mutation_positions(node))) for node in ast_nodes(get_ast(source)))
        for occurrence in range(places):
            lines = mutate_code(source, operator, occurrence).splitlines()
            made |= {line.strip().replace("( ", "(") for line in lines}
    return made - {line.strip() for line in source.splitlines()}


@pytest.mark.parametrize(
    "line",
    [
        "pass",
        "async with asyncio.timeout(None):",
        "async with asyncio.timeout(6):",
        "return connect(values, connect_timeout=None) if len(values) > 1 else False",
        "return connect(values, connect_timeout=5) if len(values) >= 1 else False",
        "return connect(values, connect_timeout=5) if len(values) > 1 else True",
        'await database.execute("DELETE FROM sessions WHERE id = :b AND spent_at IS NULL", values)',
        'await database.execute("DELETE FROM sessions WHERE account_id = :a AND spent_at IS NULL", values)',
        'await database.execute("DELETE FROM sessions WHERE account_id = :a AND id = :b", values)',
    ],
)
def test_a_statement_a_condition_a_bound_and_a_time_out_are_broken(line: str) -> None:
    assert line in mutants(SOURCE)


@pytest.mark.parametrize("source", ['"""A docstring."""\nimport os\n', "@overload\ndef f() -> int: ...\n"])
def test_what_only_a_reader_or_a_type_checker_reads_is_left_alone(source: str) -> None:
    assert mutants(source) == set()


def test_a_star_that_multiplies_nothing_is_left_alone() -> None:
    named = [mutant.new for mutant in sample([Path("infra/redis/store.py")], 1000, random.Random(1))]
    assert [line for line in named if line.startswith(("def ", "async def "))] == []


def test_a_decorator_is_left_out() -> None:
    source = "@cache\n@other\ndef f(): ...\n"
    assert [mutate_code(source, RemoveDecorator(), number) for number in range(2)] == [
        "@other\ndef f(): ...\n",
        "@cache\ndef f(): ...\n",
    ]


def test_every_module_belongs_to_a_room_with_tests() -> None:
    files = [path for room in ("handlers", "infra") for path in (ROOT / room).rglob("*.py") if path.read_text()]
    without = {str(path.relative_to(ROOT)) for path in files} - {str(path) for room in ROOMS for path in modules(room)}
    assert without == LEFT_OUT
    assert [name for tests in ROOMS.values() for name in tests if not (ROOT / name).exists()] == []


def test_a_break_that_is_known_to_be_equivalent_is_not_made() -> None:
    path = Path("infra/sql/mysql_driver.py")
    texts = [mutant.old for mutant in sample([path], 1000, random.Random(1))]
    assert len(texts) > 20
    assert "@lru_cache(maxsize=512)" not in texts


def test_what_is_left_out_as_equivalent_is_still_in_the_code() -> None:
    assert equivalents()
    for path, old, _ in equivalents():
        assert all(line.strip() in (ROOT / path).read_text(encoding="utf-8") for line in old.split("\n")), (path, old)


HANGS = "import signal, time\n\ndef test_hangs():\n    {before}time.sleep(60)\n\ndef test_next():\n    pass\n"
DEAF = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM}); "  # as within C


@pytest.mark.parametrize(
    ("before", "said"),
    [("", "the test hangs: no end after 1 s\n1 failed, 1 passed"), (DEAF, "Timeout (0:00:02)!")],
    ids=["in Python", "in C"],
)
def test_a_test_that_hangs_is_red(tmp_path: Path, before: str, said: str) -> None:
    (tmp_path / "test_hangs.py").write_text(HANGS.format(before=before))
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", "0", "--limit", "1"]
    command += ["-o", "faulthandler_timeout=2", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 1, done.stdout + done.stderr
    assert [line for line in said.splitlines() if line not in done.stdout + done.stderr] == []
