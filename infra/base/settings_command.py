"""`python settings.py`: every variable with its value and source, as a table, JSON, Markdown or an .env file."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from infra.base.kinds import BOOL, FILE, HOST, PATH, SECRET, TEXT
from infra.base.variables import Reading, Table, Variable, cut

USAGE = """usage: python settings.py [--format table|json|env|markdown]

Lists every environment variable, its type, default, value and where that came from, then what is wrong with them.
  table      for people (what it does without --format)
  json       for programs, with each variable's meaning and what is expected of it
  env        a file for ENV_FILE, with every variable commented out
  markdown   the documentation's table
Exit status: 0; 64 wrong usage; 78 table and json show a value that is wrong."""


def main(table: Table[Any], arguments: list[str]) -> int:
    """The exit status; `env` and `markdown` show no values, and so nothing wrong."""
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(f"{USAGE}\n")
        return os.EX_OK
    name = "table" if not arguments else arguments[-1]
    if arguments not in ([], ["--format", name]) or name not in FORMATS:
        sys.stderr.write(f"{USAGE}\n")
        return os.EX_USAGE
    reading = table.read()
    sys.stdout.write(f"{FORMATS[name](table, reading)}\n")
    return os.EX_CONFIG if reading.problems and name in {"table", "json"} else os.EX_OK


def as_table(table: Table[Any], reading: Reading) -> str:
    rows = [("variable", "type", "default", "value", "source")]
    for name, line in table.variables.items():
        value = cut(visible(shown(name, line, reading) or "-"))
        rows.append((name, line.kind.type, line.shown_default, value, visible(reading.sources[name])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    said = [*map(visible, reading.warnings), *(problem.text for problem in reading.problems)]
    return "\n".join([*lines, "", *said]).rstrip()


def shown(name: str, line: Variable, reading: Reading) -> str | None:
    """The value as it was given, but never a secret's."""
    if line.kind.type == "secret" and reading.found(name):
        return "***"
    text = reading.texts.get(name)
    return text and line.kind.show(text)


def visible(text: str) -> str:
    """What any terminal can take: no control characters, and nothing that stdout's encoding lacks."""
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return safe.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)


def as_json(table: Table[Any], reading: Reading) -> str:
    variables = [
        {
            "name": name,
            "type": line.kind.type,
            "default": None if line.shown_default == "-" else line.shown_default,
            "value": shown(name, line, reading),
            "source": reading.sources[name],
            "meaning": line.meaning,
            "expected": line.kind.expected,
        }
        for name, line in table.variables.items()
    ]
    problems = [problem._asdict() for problem in reading.problems]
    return json.dumps({"variables": variables, "warnings": reading.warnings, "problems": problems}, indent=2)


def explained(line: Variable) -> str:
    plain = line.kind in {TEXT, BOOL, PATH, FILE, HOST, SECRET} or line.kind.type in {"int", "float"}
    return line.meaning if plain else f"{line.meaning}; {line.kind.expected}"


def as_markdown(table: Table[Any]) -> str:
    rows = [("variable", "default", "meaning"), ("---", "---", "---")]
    rows += [(f"`{name}`", line.shown_default, explained(line)) for name, line in table.variables.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def as_env(table: Table[Any]) -> str:
    """A file that changes nothing until a `#` is taken away: .env.example."""
    lines = ["# Every setting, with its default (python settings.py --format env). `make run` reads .env."]
    for name, line in table.variables.items():
        if name != table.file and line.from_file:
            differs = "" if line.shown_default in {"-", line.default} else f" (default: {line.shown_default})"
            lines += ["", f"# {explained(line)}{differs}", f"#{name}={line.default or ''}"]
    return "\n".join(lines)


FORMATS: dict[str, Callable[[Table[Any], Reading], str]] = {
    "table": as_table,
    "json": as_json,
    "env": lambda table, _: as_env(table),
    "markdown": lambda table, _: as_markdown(table),
}
