"""Which migrations there are, by the names of their files: `0002_events.py` makes revision 0002. They sort as text."""

import re
from pathlib import Path

from infra.base.errors import DeclarationError

MIGRATIONS = Path(__file__).parents[2] / "migrations"


def all_migrations() -> dict[str, str]:
    """`0002_events` by its revision `0002`, in their order."""
    files = sorted((MIGRATIONS / "versions").glob("[0-9]*_*.py"))
    return {file.stem.partition("_")[0]: file.stem for file in files}


def newest_revision() -> str:
    """What the code needs; empty when it needs none."""
    return max(all_migrations(), default="")


def check_chain() -> None:
    """Raises DeclarationError when a migration would be left out, or run in another place than its number says."""
    if faults := chain_faults():
        raise DeclarationError(faults)


def chain_faults() -> list[str]:
    """A line for each file that isn't one of the chain."""
    files = sorted((MIGRATIONS / "versions").glob("*.py"))
    numbered = [file for file in files if re.match("[0-9]+_", file.name)]
    number = f"{max((int(number_of(file)) for file in numbered), default=0) + 1:04}"  # the next one
    faults = {file: f"expected a name with a number, such as {number}_{file.name}" for file in files}
    for before, file in zip([None, *numbered], numbered, strict=False):
        faults[file] = file_fault(file, before, number)
    return [f"migrations/versions/{file.name}: {fault}" for file, fault in faults.items() if fault]


def file_fault(file: Path, before: Path | None, next_number: str) -> str:
    """Empty when there is none."""
    if before and number_of(file) == number_of(before):
        return f"expected a number of its own, such as {next_number}; {before.name} has this one"
    text = file.read_text()
    for variable, expected in (("revision", number_of(file)), ("down_revision", before and number_of(before))):
        line = f'{variable} = "{expected}"' if expected else f"{variable} = None"
        found = re.search(rf"^{variable}\b.*", text, re.MULTILINE)
        if not found or found[0].replace("'", '"') != line:
            return f"expected {line}, not {found[0] if found else 'without it'}"
    return ""


def number_of(file: Path) -> str:
    return file.name.partition("_")[0]
