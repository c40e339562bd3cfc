"""Whatever is called a key, a token or a password in a tracked file, production refuses."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from infra.base.kinds import KEY, SECRET, TOKEN
from infra.base.weak_secrets import weakness
from settings import VARIABLES
from tests.support.service import ROOT

NAMES = "|".join(name for name, line in VARIABLES.items() if line.kind.type == "secret") + "|MYSQL_ROOT_PASSWORD"
IN_YAML = re.compile(rf"(?m)\b(?:{NAMES}): ([^\n]+)")
IN_TEXT = re.compile(rf"\b(?:{NAMES})[\"']?\s?[=:]\s?[\"']?([^\s\"'`)]+)")
CALLED = re.compile(r"(?i)(.*_)?(secret|key|token|password)s?(_previous)?")
SHORTEST = 13  # characters; a shorter one is no key and no token, and a mere word where a test needs a password


def published() -> Iterator[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=60)
    for name in filter(None, done.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            yield from secrets_in(path, content.decode())


def secrets_in(path: Path, text: str) -> Iterator[str]:
    if path.parent.name == "secrets":
        yield text.strip()
    elif path.suffix == ".py":
        yield from python_secrets(ast.parse(text))
    else:
        pattern = IN_YAML if path.suffix in {".yaml", ".yml"} else IN_TEXT
        for found in pattern.finditer(text):
            value = found[1].strip("\r '\"")
            given = re.fullmatch(r"\$\{?\w+(?::?-(.*))?\}?", value)  # by another variable, perhaps with a default
            yield (given[1] or "").removesuffix("}") if given else value


def python_secrets(tree: ast.AST) -> Iterator[str]:
    """What a name, a keyword or a key of a dict is given, where that is called a secret in capitals."""
    for node in ast.walk(tree):
        given: list[tuple[ast.expr | str | None, ast.expr | None]] = []
        match node:
            case ast.Assign():
                given = [(target, node.value) for target in node.targets]
            case ast.AnnAssign():
                given = [(node.target, node.value)]
            case ast.keyword():
                given = [(node.arg, node.value)]
            case ast.Dict():
                given = list(zip(node.keys, node.values, strict=True))
        for target, value in given:
            name = target.id if isinstance(target, ast.Name) else getattr(target, "value", target)
            if isinstance(name, str) and (name == "key" or (name.isupper() and CALLED.fullmatch(name))):
                shortest = SHORTEST if name.isupper() else 32
                texts = (text for text in texts_of(value) if len(text) >= shortest)
                yield from (text for text in texts if not is_something_else(text, name))


def is_something_else(text: str, name: str) -> bool:
    """A pattern, or a message about the secret."""
    return text.startswith(("(?", "[", f"{name} is ")) or "{0}" in text


def texts_of(value: ast.expr | None) -> Iterator[str]:
    """A text, or the parts of one that don't vary."""
    for part in value.values if isinstance(value, ast.JoinedStr) else [value]:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def test_each_is_refused_in_production() -> None:
    found = {text for text in published() if len(text) >= SHORTEST}
    assert {"development-only-secret-key-of-32-bytes-or-more", "a-token-for-your-Prometheus"} <= found
    taken = {text for text in found if not all(weakness(text, kind) for kind in (KEY, TOKEN, SECRET))}
    assert taken == set(), "put them into infra/base/published_secrets.py"
