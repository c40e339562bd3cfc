"""The numbers of a copy's migrations: each follows the one before it."""

import json
import re
from collections.abc import Collection, Iterator

VERSIONS = "migrations/versions/"
NUMBERED = re.compile(rf"{VERSIONS}(\d+)(_.*\.py)")

Files = dict[str, tuple[bytes, int]]


def chain(made: Files, theirs: Collection[str] = ()) -> None:
    """Numbers those in `made`, whose contents and modes are given by their paths.

    `theirs` are those that the copy has. Its databases may be at any of them: what it has keeps its number there, and
    what it doesn't have comes after all of them.
    """
    numbers = dict(numbers_of(theirs))
    ours = {name: (path, number) for path in sorted(made) for name, number in numbers_of([path])}
    for name, (_, number) in ours.items():
        numbers.setdefault(name, max(number, max(numbers.values(), default=0) + 1) if theirs else number)
    before = None
    for name, number in sorted(numbers.items(), key=lambda item: item[1]):
        revision = f"{number:04}"
        if name in ours:
            content, mode = made.pop(ours[name][0])
            made[f"{VERSIONS}{revision}{name}"] = renumbered(content, revision, before), mode
        before = revision


def numbers_of(paths: Collection[str]) -> Iterator[tuple[str, int]]:
    """What follows the number, and the number."""
    for path in paths:
        if found := NUMBERED.fullmatch(path):
            yield found[2], int(found[1])


def renumbered(content: bytes, revision: str, before: str | None) -> bytes:
    content = re.sub(rb"(?m)^revision = .*$", f'revision = "{revision}"'.encode(), content)
    return re.sub(
        rb"(?m)^down_revision = .*$", f"down_revision = {json.dumps(before) if before else None}".encode(), content
    )
