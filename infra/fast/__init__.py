"""The few places that bend another package for speed, each with a public fallback. FAST=off switches all of them off.

`enabled(seam)` is asked at the one place where a seam is used, beside its fallback. The folder may be deleted together
with these places.
"""

import os
import sys
from functools import cache
from pathlib import Path

# The versions that tests/fast/ passed with: a seam isn't used over any other.
TESTED = {
    "lean_environs": {"environs": "15.2.0", "marshmallow": "4.4.0"},
    "lean_databases": {"databases": "0.9.0", "SQLAlchemy": "2.1.9"},
    "lean_coredis": {"coredis": "6.9.0", "beartype": "0.23.1"},
    "mysql_packets": {"aiomysql": "0.3.2", "PyMySQL": "1.2.4"},
    "batched_writes": {"uvicorn": "0.54.0"},
}


@cache
def enabled(seam: str) -> bool:
    """Whether the seam may be used: not with FAST=off, nor over a version that it was not tested with."""
    return os.environ.get("FAST", "").lower() != "off" and not untested(seam)


@cache
def untested(seam: str) -> str:
    """The package and version that the seam was not tested with, as text; empty when there is none."""
    for package, tested in TESTED[seam].items():
        found = versions().get(package.lower(), "?")
        if found != tested:
            return f"{package} is {found}, not {tested}"
    return ""


@cache
def versions() -> dict[str, str]:
    """Of all packages, by their names in lower case: as importlib.metadata says, which takes a while to import.

    https://packaging.python.org/en/latest/specifications/recording-installed-packages/: the folder's name says it.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        for info in Path(folder).glob("*.dist-info"):
            name, _, version = info.stem.partition("-")
            found.setdefault(name.lower(), version)
    return found


def warnings() -> list[str]:
    """A line for each seam that is switched off because of a version."""
    if os.environ.get("FAST", "").lower() == "off":
        return []
    return [f"{seam} is off, and the service slower: {text}" for seam in TESTED if (text := untested(seam))]
