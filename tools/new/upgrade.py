"""`make upgrade DIR=../harbour`: what `make new` makes today, on the branch `platform` of a copy made earlier.

The same arguments, which `.new.json` remembers, make the same files, so that the branch holds nothing but what changed
here, and git's own three-way merge takes it over. See docs/upgrading.md.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.new.__main__ import ROOT, RefusedError, format_code, make, own_version, write
from tools.new.migrations import VERSIONS
from tools.new.names import Name

BRANCH = "platform"


def main(arguments: list[str]) -> int:
    try:
        folder, memory = checked(*arguments)
        said = upgraded(folder, memory)
    except RefusedError as refused:
        print(f"make upgrade: {refused}", file=sys.stderr)
        return os.EX_USAGE
    print(said)
    return os.EX_OK


def checked(folder: str = "", *_: str) -> tuple[Path, Any]:
    """The copy, and what it was made with. Raises RefusedError."""
    if not folder:
        raise RefusedError("expected DIR, like DIR=../harbour")
    copy = Path(folder).expanduser().absolute()
    try:
        memory = json.loads((copy / ".new.json").read_text())
    except (OSError, ValueError) as error:
        raise RefusedError(f"DIR is {folder!r}: expected what `make new` made, with its .new.json ({error})") from None
    git(
        copy,
        "rev-parse",
        "--quiet",
        "--verify",
        f"refs/heads/{BRANCH}",
        wrong=f"expected a branch {BRANCH}, see docs/upgrading.md",
    )
    return copy, memory


def upgraded(copy: Path, memory: Any) -> str:
    """Commits what the copy would be made of today, and says what to do next."""
    theirs = git(copy, "ls-tree", "--name-only", "HEAD", VERSIONS).split()
    files = make(Name(memory["name"]), memory["without"], theirs)
    with tempfile.TemporaryDirectory() as parent:
        worktree = Path(parent, BRANCH)
        git(copy, "worktree", "add", "--quiet", str(worktree), BRANCH)
        try:
            git(worktree, "rm", "-rq", "--ignore-unmatch", ".")
            write(files, worktree)
            if not format_code(worktree):
                raise RefusedError("expected ruff, to format what is made: `make lint` installs it")
            git(worktree, "add", "--all")
            if not git(worktree, "status", "--porcelain"):
                return f"{copy} has all of {own_version()} already"
            git(worktree, "commit", "--quiet", "--message", f"{ROOT.name} {own_version()}")
        finally:
            git(copy, "worktree", "remove", "--force", str(worktree))
    return f"{own_version()} is on the branch {BRANCH} of {copy}. Next, there:\n    git merge {BRANCH}"


def git(folder: Path, *arguments: str, wrong: str = "") -> str:
    """What it writes. Raises RefusedError with `wrong`, or with git's own words."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(wrong or f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
