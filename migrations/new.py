"""Makes the file of the next migration: `make migration NAME=add_notes`."""

import os
import re
import sys
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from infra.sql.revisions import all_migrations, chain_faults, newest_revision

ROOT = Path(__file__).parents[1]
USAGE = "usage: make migration NAME=add_notes (lower case letters, digits and _)"


def refusals(name: str) -> list[str]:
    """Why there can be no migration of this name, a line each."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        return [USAGE]
    same = [migration for migration in all_migrations().values() if migration.partition("_")[2] == name]
    return [f"migrations/versions/{migration}.py has this name already" for migration in same] + chain_faults()


def main(arguments: list[str]) -> int:
    """The exit status; the file's name is printed."""
    name = "_".join(arguments)
    if refused := refusals(name):
        print(*refused, sep="\n", file=sys.stderr)
        return os.EX_USAGE
    scripts = ScriptDirectory.from_config(Config(toml_file=ROOT / "pyproject.toml"))
    number = f"{int(newest_revision() or 0) + 1:04}"
    scripts.generate_revision(number, name.replace("_", " ").capitalize(), head="head")
    print(f"migrations/versions/{number}_{name}.py")
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
