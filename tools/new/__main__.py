"""`make new NAME=harbour-master DIR=../harbour [WITHOUT=accounts,events]`, with Python's standard library only."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from tools.new import cut
from tools.new.migrations import Files, chain
from tools.new.names import Name, refusal
from tools.new.parts import PARTS, rules, words

ROOT = Path(__file__).parents[2]
TEMPLATES = {  # what is there stands at the copy's top, where the copy is without the part
    "tools/new/templates/": None,
    "tools/new/templates_without_accounts/": "accounts",
}
FIRST_VERSION = "0.1.0"  # every copy's, so that a later version of the platform changes only what it changes
# Where a variable has lines of its own, which go with it; and every file of deploy/.
VARIABLE_FILES = (
    ".env.example",
    "compose.yaml",
    "docs/variables.md",
    "settings.py",
    "tests/deploy/test_compose.py",
    "tests/platform/test_settings.py",
)


class RefusedError(Exception):
    """Says in one line what is wrong with the arguments."""


def main(arguments: list[str]) -> int:
    try:
        name, folder, without = checked(*arguments)
    except RefusedError as refused:
        print(f"make new: {refused}", file=sys.stderr)
        return os.EX_USAGE
    left_out = f" without {' and '.join(without)}" if without else ""
    print(f"copying into {folder}: {name.label}{left_out}")
    files = make(name, without)
    write(files, folder)
    print("formatting")
    steps = [
        f"cd {shlex.quote(str(folder))}",
        "git init && git add . && git commit -m 'As make new made it'",
        "make run",
    ]
    if not format_code(folder):
        print("there is no ruff here to format with (`make lint` installs it): the copy does it itself")
        steps.insert(1, "make format")
    print(f"done, {len(files)} files. Next:", *steps, sep="\n    ")
    return os.EX_OK


def checked(label: str = "", folder: str = "", without: str = "", *_: str) -> tuple[Name, Path, list[str]]:
    """Raises RefusedError."""
    parts = sorted({part.strip() for part in without.split(",")} - {""})
    if not label or not folder:
        raise RefusedError("expected NAME and DIR, like NAME=harbour-master DIR=../harbour")
    if reason := refusal(label):
        raise RefusedError(reason)
    if unknown := [part for part in parts if part not in PARTS]:
        raise RefusedError(
            f"WITHOUT is {without!r}: expected {' and '.join(PARTS)}, comma-separated, not {unknown[0]!r}"
        )
    return Name(label), checked_folder(Path(folder).expanduser().absolute()), parts


def checked_folder(folder: Path) -> Path:
    folder = Path(os.path.normpath(folder))
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if folder == ROOT or ROOT in folder.parents:
        raise RefusedError(f"DIR is {str(folder)!r}: expected a folder outside this one")
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise RefusedError(f"DIR is {str(folder)!r}: expected a folder that can be written to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        raise RefusedError(f"DIR is {str(folder)!r}: expected a folder that can be written to ({reason})") from None
    if {each.name for each in folder.iterdir()} - {".git"}:  # docs/upgrading.md empties a worktree
        raise RefusedError(f"DIR is {str(folder)!r}: expected a folder that is empty, or not there yet")
    return folder


def make(name: Name, without: Collection[str], theirs: Collection[str] = ()) -> Files:
    """The copy's files: their contents and modes by their paths. `theirs`: migrations that it has; see `chain`."""
    made: Files = {}
    version = own_version()
    for path in sorted(tracked(), key=is_template):
        target = target_of(path, without)
        source = ROOT / path
        content = copied(target, source.read_bytes(), name, without, version) if target else None
        if target and content is not None:
            made[name(target)] = content, source.stat().st_mode & 0o777
    chain(made, theirs)
    memory = {"version": version, "commit": commit(), "name": name.label, "without": list(without)}
    made[".new.json"] = (json.dumps(memory, indent=2) + "\n").encode(), 0o644
    return made


def is_template(path: str) -> bool:
    """Templates come last: they win."""
    return path.startswith(tuple(TEMPLATES))


def target_of(path: str, without: Collection[str]) -> str | None:
    """Where a file goes in the copy. None: nowhere."""
    for folder, part in TEMPLATES.items():
        if path.startswith(folder):
            return path.removeprefix(folder) if part is None or part in without else None
    return None if is_left_out(path, without) else path


def tracked() -> list[str]:
    """Git's list; where this isn't a checkout, every file that one would have."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0 and git("rev-parse", "--show-toplevel") == str(ROOT.resolve()):
        return [path for path in done.stdout.split("\0") if path and (ROOT / path).is_file()]
    return sorted(walk())


def walk() -> Iterator[str]:
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if not line.startswith("#")]
    for folder, folders, files in os.walk(ROOT):
        within = Path(folder).relative_to(ROOT)
        folders[:] = [each for each in folders if each != ".git" and not ignores(within / each, ignored)]
        yield from (str(within / each) for each in files if not ignores(within / each, ignored))


def ignores(path: Path, ignored: Collection[str]) -> bool:
    return any(fnmatch.fnmatch(path.name, each) or str(path) == each for each in ignored if each)


def git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def commit() -> str | None:
    found = git("rev-parse", "HEAD")
    if found and git("status", "--porcelain", "--untracked-files=no"):
        print("note: files here differ from their last commit, which .new.json names", file=sys.stderr)
    return found or None


def own_version() -> str:
    found = re.search(r'(?m)^VERSION = "(.+?)"', (ROOT / "settings.py").read_text(encoding="utf-8"))
    if not found:
        raise ValueError("settings.py has no VERSION")
    return found[1]


def is_left_out(path: str, without: Collection[str]) -> bool:
    ways = [path, *map(str, Path(path).parents)]
    return any(fnmatch.filter(ways, pattern) for rule in rules(without) for pattern in rule.paths)


def copied(path: str, content: bytes, name: Name, without: Collection[str], version: str) -> bytes | None:
    """What becomes of a file. None: nothing."""
    if b"\0" in content or path == "LICENSE" or path.startswith("infra/http/swagger_ui/LICENSE"):
        return content
    text: str | None = content.decode()
    for step in (cut_marks, cut_variables, cut_texts, cut_words):
        text = step(path, text, without) if text is not None else None
    if text is None:
        return None
    if path.endswith(".py") and text != content.decode():
        text = cut.unused_imports(text)
    return name(own_versions(text, version), path).encode()


def own_versions(text: str, version: str) -> str:
    """Where `make release` puts them: a package of another's may have the same one."""
    before = r'(?m)((?:^VERSION = "|^version = "|ARG VERSION=|/[a-z0-9-]+:|newTag: |refs/tags/v))'
    return re.sub(rf"{before}{re.escape(version)}(?![0-9.])", rf"\g<1>{FIRST_VERSION}", text)


def cut_marks(path: str, text: str, without: Collection[str]) -> str:
    return cut.marked(text, without)


def cut_variables(path: str, text: str, without: Collection[str]) -> str:
    names = [name for rule in rules(without) for name in rule.variables]
    tells = path in VARIABLE_FILES or path.startswith("deploy/")
    return cut.variables(text, names) if names and tells else text


def cut_words(path: str, text: str, without: Collection[str]) -> str | None:
    file = path.rpartition("/")[2]
    if re.fullmatch(r"tests/.*\b(test_\w+|conftest|scenarios)\.py", path) and (found := words(without, "tests")):
        left = cut.tests(text, found, alone=file.startswith("test_"))
        return left if not file.startswith("test_") or re.search(r"(?m)^(?:async )?def test_", left) else None
    if path.endswith(".md") and (found := words(without, "pages")):
        return cut.page(text, found)
    if path.startswith("deploy/") and path.endswith(".json") and (found := words(without, "entries")):
        return cut.entries(text, found)
    if path == "Makefile":
        return cut.targets(text, [target for rule in rules(without) for target in rule.targets])
    return text


def cut_texts(path: str, text: str, without: Collection[str]) -> str:
    for rule in rules(without):
        for old, new in rule.texts:
            text = text.replace(old, new)
    return text


def write(files: Files, folder: Path) -> None:
    for path, (content, mode) in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)


def format_code(folder: Path) -> bool:
    """A name of another length breaks lines elsewhere; what can't be broken may be as long as it is. False: no ruff."""
    places = [ROOT / ".venv/bin/ruff", Path(sys.executable).with_name("ruff"), Path(shutil.which("ruff") or "/")]
    ruff = next((str(each) for each in places if each.is_file()), None)
    if ruff:
        for command in (["check", "--quiet", "--fix", "--select=I"], ["format", "--quiet"]):
            subprocess.run([ruff, *command, "--no-cache"], cwd=folder, check=True)
    allow_long_lines(folder)
    return bool(ruff)


def allow_long_lines(folder: Path) -> None:
    project = folder / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    found = re.search(r"(?m)^line-length = (\d+)$", text)
    longest = int(found[1]) if found else 0
    code = "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    if any(len(line) > longest for line in code.splitlines()):
        reason = '  "E501",     # texts that hold the name; the formatter breaks what can be broken\n'
        project.write_text(text.replace("\nignore = [\n", f"\nignore = [\n{reason}"), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
