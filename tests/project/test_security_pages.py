"""docs/security.md and docs/asvs.md: every requirement has its row, and what they name is there."""

import re
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from tests.support.service import ROOT

SECURITY, ASVS = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("security.md", "asvs.md"))
IDS = Path(__file__).with_name("asvs_ids.txt")
FOLDERS = "accounts|deploy|faults|image|platform|project"
STATES = {"met", "not met", "the platform's", "does not apply"}


def ids() -> list[str]:
    """Of levels 1 and 2 of OWASP ASVS 5.0."""
    sections = re.findall(r"^(\d+\.\d+): (.+)$", IDS.read_text(encoding="utf-8"), re.MULTILINE)
    return [f"{section}.{number}" for section, numbers in sections for number in numbers.split()]


def rows() -> list[tuple[list[str], str, str]]:
    """The ids, the state, and why and where."""
    found = re.findall(r"^\| (\d[\d., ]+) \| (.+?) \| (.+) \|$", ASVS, re.MULTILINE)
    return [(each.split(", "), state, why) for each, state, why in found]


def in_order(numbers: list[str]) -> list[str]:
    return sorted(numbers, key=lambda number: [int(part) for part in number.split(".")])


def named_tests(text: str) -> set[str]:
    return set(re.findall(rf"\b(?:{FOLDERS})/test_\w+", text))


def test_every_requirement_is_on_the_page_once() -> None:
    on_the_page = [*chain.from_iterable(each for each, _, _ in rows())]
    assert len(ids()) == 253
    assert in_order(on_the_page) == in_order(ids())


def test_each_row_stands_in_its_chapter_and_has_a_state() -> None:
    assert {state for _, state, _ in rows()} == STATES
    for chapter in re.split(r"^## ", ASVS, flags=re.MULTILINE)[1:]:
        number = chapter.partition(".")[0]
        found = re.findall(r"^\| (\d[\d., ]+) \|", chapter, re.MULTILINE)
        assert {each.partition(".")[0] for row in found for each in row.split(", ")} == {number}


def test_the_page_counts_right() -> None:
    count = Counter(dict.fromkeys(STATES, 0))
    for each, state, _ in rows():
        count[state] += len(each)
    met, applicable = count["met"], count["met"] + count["not met"]
    [told] = re.findall(
        r"^\*\*(\d+) of (\d+)\*\* .* (\d+) are the platform's, (\d+) don't apply: (\d+) in all", ASVS, re.MULTILINE
    )
    assert told == tuple(map(str, (met, applicable, count["the platform's"], count["does not apply"], len(ids()))))


@pytest.mark.parametrize("page", [SECURITY, ASVS], ids=["security.md", "asvs.md"])
def test_every_test_that_is_named_is_there(page: str) -> None:
    assert [name for name in sorted(named_tests(page)) if not (ROOT / "tests" / f"{name}.py").exists()] == []
    named = re.findall(r"\b((?:docs|infra|handlers|deploy)/(?!test_)[\w/.-]*\w)", page)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_promise_names_a_test() -> None:
    [promises] = re.findall(r"^## What it promises\n(.*?)^## ", SECURITY, re.MULTILINE | re.DOTALL)
    told = re.findall(r"^\| \*\*(.+?)\*\*.* \| (.+?) \| (.*) \|$", promises, re.MULTILINE)
    assert len(told) == promises.count("\n| **") > 20
    assert [promise for promise, tests, _ in told if not named_tests(tests)] == []


def test_the_page_has_each_event_of_the_audit_log() -> None:
    said = re.compile(r'(?:"event": |\bevent=|\bevent: str = |\.tell\(\s*)"([a-z.]+)"')
    code = [path for folder in ("handlers", "infra/http") for path in (ROOT / folder).rglob("*.py")]
    in_code = {event for path in code for event in said.findall(path.read_text(encoding="utf-8"))}
    [section] = re.findall(r"^## What the audit log tells\n(.*?)^## ", SECURITY, re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    on_the_page = {event for cell in cells for event in re.findall(r"`([a-z.]+)`", cell)}
    assert on_the_page == in_code
    assert len(in_code) > 10
