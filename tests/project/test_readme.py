"""The two READMEs: what is typed, set or looked up is the same in English and in Chinese."""

import re

from tests.support.service import ROOT

ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# What no translation changes: code, where a link leads, a variable's name, a figure, a heading's level.
FACT = re.compile(r"`` .+? ``|`[^`]+`|\]\((?!README)[^)]+\)|[A-Z]+(?:_[A-Z]+)+|\d+(?:\.\d+)*|^#+(?= )", re.MULTILINE)


def facts(readme: str) -> list[set[str]]:
    """Of each paragraph, item and cell that has any."""
    parts = re.split(r"\n\n|\n(?=- )|\|", FENCED.sub("", readme))
    return [found for part in parts if (found := {" ".join(fact.split()) for fact in FACT.findall(part)})]


def test_the_fenced_blocks_are_the_same_byte_for_byte() -> None:
    assert FENCED.findall(CHINESE) == FENCED.findall(ENGLISH) != []


def test_each_paragraph_and_cell_tells_of_the_same_code_links_variables_and_figures() -> None:
    assert facts(CHINESE) == facts(ENGLISH) != []


def test_each_links_to_the_other_in_its_first_lines() -> None:
    assert "](README.zh-CN.md)" in ENGLISH[:100]
    assert "](README.md)" in CHINESE[:100]


def test_they_are_read_in_five_minutes() -> None:
    assert max(len(ENGLISH.splitlines()), len(CHINESE.splitlines())) <= 220


def test_the_pages_are_all_linked_to() -> None:
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert pages <= set(re.findall(r"\]\(([^)#]+)\)", ENGLISH))
