"""Breaks one line after the other in a copy of the tree, and says which breaks the tests don't notice."""

import argparse
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.testing import run_tests
from cosmic_ray.work_item import TestOutcome

from tests.mutants.operators import OPERATORS
from tests.mutants.rooms import ROOMS, ROOT, modules

EQUIVALENT = Path(__file__).parent / "equivalent.txt"
HANGS = 120  # seconds of one test, which then fails
PATIENCE = 5  # times what the room's tests take unbroken, until they are given up: no test was red, so that it survives
WANTED = 92  # of 100
TIMED_OUT = "timeout"  # what cosmic-ray has in the place of the output


class Mutant(NamedTuple):
    path: Path
    line: int
    old: str
    new: str
    code: str  # of the whole module

    def __str__(self) -> str:
        return f"{self.path}:{self.line}\n- {self.old}\n+ {self.new}"


def every_mutant(path: Path) -> Iterator[tuple[int, int, int]]:
    """The line that is broken, the operator's number, and the how manieth of its mutants it is."""
    nodes = list(ast_nodes(get_ast((ROOT / path).read_text(encoding="utf-8"))))
    for number, operator in enumerate(OPERATORS):
        places = [node for node in nodes for _ in operator.mutation_positions(node)]
        for occurrence, node in enumerate(places):
            if node.type != "operator" or node.parent.type not in (
                "parameters",
                "param",
            ):  # a `*` that multiplies nothing
                yield node.start_pos[0], number, occurrence


def make(path: Path, number: int, occurrence: int) -> Mutant | None:
    """None when it can't be made or compiled, or changes nothing."""
    source = (ROOT / path).read_text(encoding="utf-8")
    try:
        code = mutate_code(source, OPERATORS[number], occurrence)
        compile(code, str(path), "exec")
    except (AttributeError, SyntaxError):  # AttributeError: cosmic-ray replaces no `except a.name`
        return None
    if code == source:
        return None
    before, after = source.splitlines(), code.splitlines()
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    _, first, last, start, end = next(block for block in blocks if block[0] != "equal")
    old, new = ("\n  ".join(filter(None, map(str.strip, part))) for part in (before[first:last], after[start:end]))
    return Mutant(path, first + 1, old, new, code)


def sample(paths: list[Path], size: int, chance: random.Random) -> list[Mutant]:
    """From so many different lines: else a line with many operators would be broken again and again."""
    by_line: dict[tuple[Path, int], list[tuple[int, int]]] = {}
    for path in paths:
        for line, number, occurrence in every_mutant(path):
            by_line.setdefault((path, line), []).append((number, occurrence))
    lines = sorted(by_line)
    chance.shuffle(lines)
    known = equivalents()
    found: list[Mutant] = []
    for path, line in lines:
        mutant = make(path, *chance.choice(by_line[path, line]))
        if mutant and not {(str(mutant.path), mutant.old, new) for new in (mutant.new, "*")} & known:
            found.append(mutant)
        if len(found) == size:
            break
    return found


def equivalents() -> set[tuple[str, str, str]]:
    """Path, old and new text (`*`: any) of those that are known to change nothing that anybody could notice."""
    found = set()
    for block in EQUIVALENT.read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            path, old, new, *_ = lines
            found.add((path, old.removeprefix("-").strip(), new.removeprefix("+").strip()))
    return found


def copy_tree(folder: Path) -> None:
    """What git knows, as it is in the working tree."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def play(room: str, mutants: list[Mutant], *, quick: bool) -> list[Mutant]:
    """Those that survive the room's tests."""
    tests = [name for name in ROOMS[room] if (ROOT / name).exists()]
    command = f"{sys.executable} -m pytest -x -q -n 0 -p no:cacheprovider --limit {HANGS}"
    command += f" -o faulthandler_timeout={HANGS + 30} {' '.join(tests[:1] if quick else tests)}"
    started = time.monotonic()
    outcome, output = run_tests(command, timeout=3600)
    if outcome is not TestOutcome.SURVIVED:
        sys.exit(f"{room}: the tests fail without a break\n{output[-2000:]}")
    limit = PATIENCE * (time.monotonic() - started) + HANGS
    survivors = []
    for mutant in mutants:
        whole = mutant.path.read_text(encoding="utf-8")
        mutant.path.write_text(mutant.code, encoding="utf-8")
        outcome, output = run_tests(command, timeout=limit)
        mutant.path.write_text(whole, encoding="utf-8")
        killed = outcome is not TestOutcome.SURVIVED and output != TIMED_OUT
        print("killed  " if killed else "survived", str(mutant).replace("\n", "  "), flush=True)
        if not killed:
            survivors.append(mutant)
    return survivors


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--room", action="append", choices=ROOMS, help="one of them; may be given again (all)")
    parser.add_argument("--sample", type=int, default=12, help="breaks of each room (12)")
    parser.add_argument("--seed", type=int, default=1, help="another one breaks other lines (1)")
    parser.add_argument("--module", type=Path, help="break lines of this file only, with its room's tests")
    parser.add_argument("--quick", action="store_true", help="only the first tests of each room")
    arguments = parser.parse_args()
    killed: Counter[str] = Counter()
    survivors: dict[str, list[Mutant]] = {}
    rooms = arguments.room or list(ROOMS)
    if arguments.module:
        rooms = [room for room in ROOMS if arguments.module in modules(room)]
    with tempfile.TemporaryDirectory(prefix="berth-mutants-") as folder:
        copy_tree(Path(folder))
        os.chdir(folder)
        for room in rooms:
            paths = [arguments.module] if arguments.module else modules(room)
            chosen = sample(paths, arguments.sample, random.Random(arguments.seed))
            survivors[room] = play(room, chosen, quick=arguments.quick)
            killed[room] = len(chosen) - len(survivors[room])
    return report(killed, survivors)


def report(killed: Counter[str], survivors: dict[str, list[Mutant]]) -> int:
    """1 when too few were killed."""
    for room, left in survivors.items():
        print(f"\n{room}: {killed[room]} killed, {len(left)} survived")
        for mutant in left:
            print(mutant)
    total = killed.total() + sum(map(len, survivors.values()))
    print(f"\n{killed.total()} of {total} killed; wanted: {WANTED} of 100")
    return 0 if killed.total() * 100 >= WANTED * total else 1


if __name__ == "__main__":
    sys.exit(main())
