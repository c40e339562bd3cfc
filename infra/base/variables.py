"""The engine under settings.py: reads environment variables and says all that is wrong with them, but never a secret.

A service's settings.py hands in a `Table`: a dataclass with a line for each variable, and what holds between them.
"""

import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from dotenv.parser import Binding, parse_stream

from infra import fast
from infra.base.kinds import PATH, Kind, parse
from infra.base.near_misses import near_misses
from infra.fast import lean_imports

# marshmallow would make validators, one with a pattern for addresses that takes a tenth of the start.
with lean_imports.without("marshmallow.validate") if fast.enabled("lean_environs") else nullcontext():
    from environs import Env, EnvError, EnvValidationError

SECRET_MAX = 64 * 1024  # bytes of a secret's file
NOT_SET = "not set"
# environs looks into the environment first. No name there holds a "=", so it finds what it is handed as the default.
NOWHERE = "="

Texts = Mapping[str, str]
Loaded = TypeVar("Loaded")


class Variable(NamedTuple):
    default: str | None
    kind: Kind
    meaning: str
    shown_default: str
    from_file: bool  # whether the file of variables may set it


class MadeAtStart(NamedTuple):
    """The default of a secret that is made at the first start, and kept in the folder that the variable names."""

    folder: str


class Problem(NamedTuple):
    variable: str
    text: str


def variable(
    default: str | None, kind: Kind, meaning: str, shown_default: str | None = None, *, from_file: bool = True
) -> Any:
    """A field of the dataclass; a `default` of None is one that is not set, or that follows from other variables."""
    line = Variable(default, kind, meaning, shown_default or default or "-", from_file)
    return dataclasses.field(repr=kind.type != "secret", metadata={"variable": line})


@dataclasses.dataclass
class Reading:
    """What was found, and what is wrong with it."""

    variables: Mapping[str, Variable]
    texts: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    sources: dict[str, str] = dataclasses.field(default_factory=dict)
    made: dict[str, str] = dataclasses.field(default_factory=dict)  # at start: a secret and its folder's variable
    values: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    problems: list[Problem] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    def found(self, name: str) -> bool:
        """Whether it is set, to a right value or to a wrong one."""
        return self.sources[name] != NOT_SET

    def refuse(self, name: str, text: str | None, expected: str, kind: Kind = PATH) -> None:
        holds = "not set" if text is None else "***" if kind.type == "secret" else cut(repr(kind.show(text)))
        self.problems.append(Problem(name, f"{name} is {holds}: expected {expected}"))


class SettingsError(Exception):
    """All that is wrong; `values` holds the variables that are right."""

    def __init__(self, reading: Reading) -> None:
        super().__init__("\n".join(problem.text for problem in reading.problems))
        self.problems = reading.problems
        self.warnings = reading.warnings
        self.values = reading.values


@dataclasses.dataclass(frozen=True)
class Table(Generic[Loaded]):
    """What a service's settings.py hands in."""

    settings: type[Loaded]
    # The defaults that follow from other variables, whose texts it is given.
    defaults: Callable[[Texts], Mapping[str, str | MadeAtStart]]
    # What one variable asks of another: the name of each that is wrong, and what was expected.
    rules: Callable[[Reading], Iterator[tuple[str, str]]]
    # What is right, but should be looked at: a warning each.
    cautions: Callable[[Reading], Iterator[str]]
    file: str  # names the variable that names a file of variables
    file_ignored: tuple[str, str]  # where this variable is this text, the file is ignored
    foreign: str  # a pattern for names in the file that are for others to read

    @cached_property
    def variables(self) -> dict[str, Variable]:
        fields: Any = dataclasses.fields(self.settings)  # type: ignore[arg-type]
        return {field.name.upper(): field.metadata["variable"] for field in fields if "variable" in field.metadata}

    def load(self, environ: Texts | None = None) -> Loaded:
        """Raises SettingsError with all that is wrong, and then has made nothing."""
        reading = self.read(environ)
        if not reading.problems:
            for name, folder in reading.made.items():
                keep_secret(name, folder, self.variables[name].kind, reading)
        if reading.problems:
            raise SettingsError(reading)
        values = {name.lower(): value for name, value in reading.values.items()}
        loaded: Loaded = self.settings(**values, warnings=tuple(reading.warnings))  # type: ignore[call-arg]
        return loaded

    def read(self, environ: Texts | None = None) -> Reading:
        variables = self.variables
        reading = Reading(variables)
        real = self.given(os.environ if environ is None else environ)
        layers = {"environment": real, self.file: self.read_file(real, reading)}
        self.warn_of_unknown(layers, reading)
        for name, line in variables.items():
            look_up(name, line, layers if line.from_file else {"environment": real}, reading)
        self.fill_in_defaults(reading)
        convert(variables, reading)
        for name, expected in [*self.rules(reading), *unwritable(reading)]:
            reading.refuse(name, reading.texts.get(name), expected, variables[name].kind)
        reading.warnings.extend(self.cautions(reading))
        order = [row for name in variables for row in (name, f"{name}_FILE")]
        reading.problems.sort(key=lambda problem: order.index(problem.variable))
        return reading

    def given(self, texts: Texts) -> dict[str, str]:
        """Those that aren't empty, once what no secret has is taken away."""
        kinds = {name: line.kind for name, line in self.variables.items()}
        secret = {name for name, kind in kinds.items() if kind.type == "secret"}
        bared = {name: bare(text) if name in secret else text for name, text in texts.items()}
        return {name: text for name, text in bared.items() if text}

    def read_file(self, real: Texts, reading: Reading) -> dict[str, str]:
        """Where it is ignored, it may still say that it is: what says so must not start with the others' defaults."""
        if self.file not in real:
            return {}
        name, text = self.file_ignored
        texts = {} if real.get(name) == text else self.given(parse_file(self.file, real[self.file], reading))
        if real.get(name, texts.get(name)) != text:
            return texts
        reading.warnings.append(f"{self.file} is ignored: {name} is {text}")
        return {name: text}

    def warn_of_unknown(self, layers: Mapping[str, Texts], reading: Reading) -> None:
        """Of what looks like a variable that isn't set; in the file, of whatever nobody reads."""
        variables = self.variables
        known = {*variables, *(f"{name}_FILE" for name, line in variables.items() if line.kind.type == "secret")}
        missing = known.difference(*layers.values())
        for source, texts in layers.items():
            where = f" of {self.file}" if source == self.file else ""
            unknown = [name for name in texts if name not in known]
            meant = dict(near_misses(unknown, missing))
            for name in unknown:
                if name in meant:
                    reading.warnings.append(f"nothing reads {name}{where}: is {meant[name]} meant?")
                elif where and not re.fullmatch(self.foreign, name):
                    # Anything before a "=" is a name there, also a part of a secret that goes on in another line.
                    called = name if re.fullmatch("[A-Z][A-Z0-9_]*", name) else "a name that isn't in capitals"
                    reading.warnings.append(f"nothing reads {called}{where}")
        for name, line in variables.items():
            if not line.from_file and name in layers[self.file]:
                reading.warnings.append(f"{name} of {self.file} changes nothing: it is read before the file")

    def fill_in_defaults(self, reading: Reading) -> None:
        own = self.defaults(reading.texts)
        for name, line in self.variables.items():
            default = own.get(name, line.default)
            if default is None or reading.found(name):
                continue
            if isinstance(default, MadeAtStart):
                reading.made[name] = default.folder
                reading.sources[name] = f"made at start in {default.folder}"
            else:
                reading.texts[name], reading.sources[name] = default, "default" if default else NOT_SET


def parse_file(name: str, path: str, reading: Reading) -> dict[str, str]:
    try:
        lines = list(parse_stream(io.StringIO(Path(path).read_text(encoding="utf-8-sig"))))
    except (OSError, ValueError) as error:
        reading.refuse(name, path, f"a readable UTF-8 file ({reason(error)})")
        return {}
    for line in lines:
        if line.error or (line.key and line.value is None):
            reading.refuse(name, path, f"NAME=value in line {line_number(line)}")
    return {line.key: line.value for line in lines if line.key and line.value}


def line_number(line: Binding) -> int:
    """Empty lines before it belong to its text."""
    text = line.original.string
    return line.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def look_up(name: str, line: Variable, layers: Mapping[str, Texts], reading: Reading) -> None:
    file = f"{name}_FILE" if line.kind.type == "secret" else name
    source, layer = next(((s, texts) for s, texts in layers.items() if name in texts or file in texts), (NOT_SET, {}))
    reading.sources[name] = source
    if file != name and name in layer and file in layer:
        reading.sources[name] = f"{name} and {file}"
        reading.problems.append(Problem(name, f"{name} and {file} are both set: expected one of them"))
    elif name in layer:
        reading.texts[name] = layer[name]
    elif file in layer:
        path = path_shown(layer[file])
        reading.sources[name] = f"{file}={path}"
        try:
            reading.texts[name] = read_secret(Path(layer[file]))
        except (OSError, ValueError) as error:
            reading.refuse(file, path, f"a readable UTF-8 file ({reason(error)})")


def read_secret(path: Path) -> str:
    """Of a pipe that nobody writes to it reads nothing, and waits for nobody."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        os.set_blocking(file.fileno(), True)
        content = file.read(SECRET_MAX + 1)
    if len(content) > SECRET_MAX:
        raise ValueError(f"it has more than {SECRET_MAX} bytes")
    text = bare(content.decode())
    if not text:
        raise ValueError("it is empty")
    return text


def bare(secret: str) -> str:
    """Without the byte order mark that an editor puts before it, and the line ends that it or `echo` puts after it."""
    return secret.removeprefix("\ufeff").rstrip("\r\n")


def parsed(text: str, kind: Kind) -> Any:
    try:
        return parse(text, kind)
    except (OSError, ValueError) as error:
        raise EnvError(str(error)) from error


def convert(variables: Mapping[str, Variable], reading: Reading) -> None:
    env = Env(eager=False, prefix=NOWHERE)
    env.add_parser("parsed", parsed)
    for name, line in variables.items():
        text = reading.texts.get(name)
        reading.values[name] = None if text is None else env.parsed(name, default=text, kind=line.kind)
    try:
        env.seal()
    except EnvValidationError as error:
        faults: Any = error.error_messages
        for name, (fault, *_) in ((found.removeprefix(NOWHERE), said) for found, said in faults.items()):
            kind = variables[name].kind
            if kind.type == "secret":
                reading.problems.append(Problem(name, f"{name} is {fault}: expected {kind.expected}"))
            else:
                reading.refuse(name, reading.texts[name], kind.expected, kind)


def unwritable(reading: Reading) -> Iterator[tuple[str, str]]:
    for name, folder in reading.made.items():
        if reading.values[folder] and not can_keep(reading.values[folder], name):
            yield folder, "a directory that can be written to"


def can_keep(folder: Path, name: str) -> bool:
    if os.access(folder / name.lower(), os.R_OK):
        return True
    nearest = next((path for path in (folder, *folder.parents) if os.access(path, os.F_OK)), folder)
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def keep_secret(name: str, folder: str, kind: Kind, reading: Reading) -> None:
    path = reading.values[folder] / name.lower()
    try:
        if not path.exists():
            make_secret(path)
        with suppress(OSError):
            path.chmod(0o600)
        reading.values[name] = parse(read_secret(path), kind)
    except (OSError, ValueError) as error:
        expected = f"a directory that keeps a good {path.name} ({reason(error)})"
        reading.refuse(folder, reading.texts[folder], expected)


def make_secret(path: Path) -> None:
    """Written aside, then linked: of processes that start at once one wins, and nobody reads half a secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(os.urandom(32).hex() + "\n")
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)


def path_shown(text: str) -> str:
    """Where a secret's file belongs, some put the secret: then it doesn't look like a path."""
    return text if text.startswith(("/", "./", "../")) else "***"


def cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    return error.strerror or "" if isinstance(error, OSError) else str(error)
