"""Which migrations there are, by the names of their files: `0002_events.py` makes revision 0002. They sort as text."""

from pathlib import Path

MIGRATIONS = Path(__file__).parents[2] / "migrations"


def all_migrations() -> dict[str, str]:
    """`0002_events` by its revision `0002`, in their order."""
    files = sorted((MIGRATIONS / "versions").glob("[0-9]*_*.py"))
    return {file.stem.partition("_")[0]: file.stem for file in files}


def newest_revision() -> str:
    """What the code needs; empty when it needs none."""
    return max(all_migrations(), default="")
